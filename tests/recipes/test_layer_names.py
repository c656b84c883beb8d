"""Names beyond FTYPEs: as cards define them, as they are known, and as they are not."""

import pytest

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.recipes.layer_names import WELL_KNOWN, LayerName, definitions, layer_name
from quantplan.recipes.layer_types import parse_layer_types, write_layer_types

FTYPES = ("Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_XS")
CARD = """For this file the Q6_K_H layer quants are as follows:

Q4_K_L : Q4_K_M + attn_o = q6_k
Q5_K_L : attn_v = q8_0 attn_o = q6_k ffn_d = q6_k
Q6_K_S : Q6_K
Q6_K_M : attn_v = q8_0 ffn_d = q8_0
Q6_K_L : attn_v = q8_0 attn_o = q8_0 ffn_d = q8_0

   LAYER_TYPES='[
   [0 ,"Q6_K_S"],[1 ,"Q5_K_L"],[2 ,"Q4_K_L"]
   ]'
   FLAGS="--token-embedding-type Q6_K --output-tensor-type Q6_K --layer-types-high --tensor-pad [[704,768]]

Q3_S_H : Smallest Q3_K based quant available
embed  : Q6_K
0..5   : Q4_K_M
"""


def known(name):
    if name.upper() not in FTYPES:
        raise NothingSelected(f"llama-quantize has no stock quant {name!r}; did you mean Q4_K_M?")
    return name.upper()


def named(**roles):
    return tuple((role, BY_NAME[kind]) for role, kind in roles.items())


def test_definitions_of_a_card():
    assert definitions(CARD, known) == {
        "Q4_K_L": LayerName("Q4_K_M", named(attn_output="Q6_K")),
        "Q5_K_L": LayerName("Q5_K_M", named(attn_v="Q8_0", attn_output="Q6_K", ffn_down="Q6_K")),
        "Q6_K_S": LayerName("Q6_K"),
        "Q6_K_M": LayerName("Q6_K", named(attn_v="Q8_0", ffn_down="Q8_0")),
        "Q6_K_L": LayerName("Q6_K", named(attn_v="Q8_0", attn_output="Q8_0", ffn_down="Q8_0")),
    }
    assert definitions(CARD, known) == dict(WELL_KNOWN)


@pytest.mark.parametrize(
    "line",
    [
        "Q4_K_X : Q4_K_M + attn_o = q6_k ffn_u = q5_k",
        "  q4_k_x: q4_k_m attn_o=Q6_K, ffn_u=Q5_K",
        "- `Q4_K_X : Q4_K_M + attn_output = q6_k + ffn_up = q5_k`",
        "| Q4_K_X : Q4_K_M + attn_o = q6_k ffn_u = q5_k |",
    ],
)
def test_ways_to_write_a_definition(line):
    text = line.replace("q4_k_x", "Q4_K_X")
    assert definitions(text, known) == {"Q4_K_X": LayerName("Q4_K_M", named(attn_output="Q6_K", ffn_up="Q5_K"))}


def test_what_a_layer_stores():
    name = LayerName("Q5_K_M", named(attn_v="Q8_0", ffn_down="Q6_K"))
    assert name.type_of("attn_v") == BY_NAME["Q8_0"]
    assert name.type_of("ffn_down_exps") == name.type_of("ffn_down_shexp") == BY_NAME["Q6_K"]
    assert name.type_of("attn_v_b") is name.type_of("ffn_up") is None


def test_the_texts_own_meaning_comes_before_llama_cpps_and_that_before_the_known():
    own = {"Q6_K": LayerName("Q5_K_M"), "Q6_K_M": LayerName("Q8_0")}
    assert layer_name("q6_k", own, known) == LayerName("Q5_K_M")
    assert layer_name("Q6_K_M", own, known) == LayerName("Q8_0")
    assert layer_name("Q6_K_M", {}, known) == WELL_KNOWN["Q6_K_M"]
    assert layer_name("iq4_xs", {}, known) == LayerName("IQ4_XS")


def test_a_name_that_nobody_defines():
    with pytest.raises(NothingSelected, match=r"did you mean Q4_K_M.*Q4_K_L, Q5_K_L.*`Q4_K_X : Q4_K_M \+ attn_o"):
        layer_name("Q4_K_X", {}, known)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Q4_K_L : Q4_K_M + attn_o = q6_k\nQ4_K_L : Q4_K_S + attn_o = q6_k", BadFile, "Q4_K_L twice"),
        ("Q4_K_L : Q4_K_M + attn_o = q6k", NothingSelected, "Q6_K"),
        ("Q4_K_L : Q4_K_MM + attn_o = q6_k", NothingSelected, "Q4_K_MM"),
        ("Q9_K_L : attn_o = q6_k", NothingSelected, "no stock quant Q9_K; write Q9_K_L : FTYPE"),
    ],
)
def test_bad_definitions(text, error, words):
    with pytest.raises(error, match=words):
        definitions(text, known)


def test_a_card_is_read_whole():
    layers = parse_layer_types(CARD, 3, known)
    assert layers.layers == ((0, "Q6_K_S"), (1, "Q5_K_L"), (2, "Q4_K_L"))
    assert layers.ftypes == ("Q6_K", "Q5_K_M", "Q4_K_M")
    assert layers.output == BY_NAME["Q6_K"]
    assert layers.ignored == ("--layer-types-high", "--tensor-pad [[704,768]]")
    assert parse_layer_types(CARD + CARD, 3, known).lists == 2
    written = write_layer_types(layers.layers, "--output-tensor-type Q6_K", layers.extended)
    again = parse_layer_types(written, 3, known)
    assert (again.layers, again.names) == (layers.layers, layers.names)


# --- names that are a type, and names with digits

LEGEND = """
   ["A","attn","V","attn_v","O","attn_o","D","ffn_d","U","ffn_u","G","ffn_g"],
   ["MAP","VOD","0","QN_K","2","Q2_K","4","Q4_K","5","Q5_K","6","Q6_K","8","Q8_0","f","F16"],
"""


def meanings(text, blocks):
    layers = parse_layer_types(text, blocks, known)
    return {name: str(layers.names[name]) for _, name in layers.layers}


def test_types_as_names():
    text = '[[0,"MXFP4"],[1,"bf16"],[2,"F32"],[3,"Q6_K"],[4,"TQ2_0"]]'
    assert meanings(text, 5) == {
        "MXFP4": "all = mxfp4",
        "BF16": "all = bf16",
        "F32": "all = f32",
        "Q6_K": "Q6_K",
        "TQ2_0": "all = tq2_0",
    }
    layers = parse_layer_types(text, 5, known)
    assert layers.ftypes == ("Q6_K",) and not layers.extended
    assert layers.names["MXFP4"].type_of("attn_q") == BY_NAME["MXFP4"]
    with pytest.raises(NothingSelected, match="I32"):
        parse_layer_types('[[0,"I32"]]', 1, known)


def test_a_text_may_define_the_name_of_a_type():
    text = 'MXFP4 : Q4_K_M + attn_o = q6_k\n[[0,"MXFP4"]]'
    assert meanings(text, 1) == {"MXFP4": "Q4_K_M + attn_output = q6_k"}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("Q5_K_655", "all = q5_k attn_v = q6_k attn_qkv = q6_k"),
        ("Q5_K_060", "all = q5_k attn_output = q6_k"),
        ("Q4_K_008", "all = q4_k ffn_down = q8_0"),
        ("q4_k_4h4", "all = q4_k attn_output = f16"),
        ("Q4_K_44f", "all = q4_k ffn_down = f32"),
        ("Q6_K_000", "all = q6_k"),
    ],
)
def test_names_with_digits_mean_this_wherever_they_stand(name, meaning):
    text = f'[[0,"{name}"]]'
    assert meanings(text, 1) == {name.upper(): meaning}
    layers = parse_layer_types(text, 1, known)
    written = write_layer_types(layers.layers, "", layers.extended)
    assert parse_layer_types(written, 1, known).names == layers.names


def test_a_legend_of_the_texts_own_goes_before():
    assert meanings(f"LAYER_TYPES='[{LEGEND}[0,\"Q4_K_44f\"]]'", 1) == {"Q4_K_44F": "all = q4_k ffn_down = f16"}
    places = LEGEND.replace('"MAP","VOD"', '"MAP","VUAG"')
    found = meanings(f'[{places}[0,"Q5_K_6084"]]', 1)
    meant = "all = q5_k attn_v = q6_k attn_qkv = q6_k ffn_gate = q4_k attn = q8_0"
    assert found == {"Q5_K_6084": meant}
    name = parse_layer_types(f'[{places}[0,"Q5_K_6084"]]', 1, known).names["Q5_K_6084"]
    roles = ("attn_v", "attn_output", "attn_q", "ffn_gate_exps", "ffn_up", "ffn_down")
    assert [name.type_of(role).name for role in roles] == ["Q6_K", "Q8_0", "Q8_0", "Q4_K", "Q5_K", "Q5_K"]


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ('["V","attn_v","O"]', BadFile, "neither a layer nor pairs"),
        ('["MAP","VX","6","Q6_K"]', BadFile, "what X stands for"),
        ('["MAP","VOD","6","Q6K"]', NothingSelected, "Q6_K"),
    ],
)
def test_bad_legends(row, error, words):
    with pytest.raises(error, match=words):
        parse_layer_types(f'[{row},[0,"Q4_K_655"]]', 1, known)
