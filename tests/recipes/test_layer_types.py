import pytest

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.recipes.layer_types import (
    flags_for,
    looks_like_layer_types,
    parse_layer_types,
    write_flags,
    write_layer_types,
)

FLAGS = 'FLAGS="--token-embedding-type Q4_K --output-tensor-type Q6_K --layer-types-high"'


def test_text_among_other_text():
    text = f"""A card. Sizes [GB]: see below.
    LAYER_TYPES='[
      [0 ,"Q4_K_M"],[1 ,"q4_k_s"],
      [2,
       "Q6_K" ]
    ]'
    {FLAGS}
    | Quant | [12] |"""
    layers = parse_layer_types(text, 3)
    assert layers.layers == ((0, "Q4_K_M"), (1, "Q4_K_S"), (2, "Q6_K"))
    assert layers.ftypes == ("Q4_K_M", "Q4_K_S", "Q6_K")
    assert (layers.token_embedding, layers.output) == (BY_NAME["Q4_K"], BY_NAME["Q6_K"])
    assert layers.ignored == ("--layer-types-high",)


@pytest.mark.parametrize(
    "text",
    [
        '[[1,"Q4_K"],[0,"Q6_K"]]',  # bare, in any order
        'export LAYER_TYPES="[[0,\\"Q6_K\\"],[1,\\"Q4_K\\"]]"\nllama-quantize ...',
        "LAYER_TYPES = \u2018[[0,\u201cQ6_K\u201d],[1,\u201cQ4_K\u201d]]\u2019",
        'LAYER_TYPES=[ [ 0 , "Q6_K" ] , [ 1 , "Q4_K" ] ]',
        "LAYER_TYPES=[[0,'Q6_K'],[1,'Q4_K'],]",
        '+   LAYER_TYPES=\'[\n+   [0 ,"Q6_K"],\n+   [1 ,"Q4_K"]\n+   ]\'',  # copied from a diff page
        '-   LAYER_TYPES=\'[\n-   [0 ,"Q6_K"],[1 ,"Q4_K"]\n-   ]\'',
        '    LAYER_TYPES=\'[\n-   [0 ,"Q8_0"],\n+   [0 ,"Q6_K"],\n    [1 ,"Q4_K"]\n    ]\'',
    ],
)
def test_forms(text):
    assert looks_like_layer_types(text)
    layers = parse_layer_types(text, 2)
    assert layers.layers == ((0, "Q6_K"), (1, "Q4_K"))
    assert layers.token_embedding is layers.output is None


def test_a_class_in_a_rule_is_no_list():
    assert not looks_like_layer_types("blk.[[:digit:]].attn_v=q6_k")
    assert not looks_like_layer_types("llama-quantize --tensor-pad [[704,768]] --tensor-type attn_v=q6_k a b Q4_K")


def test_flags_may_be_bare_options():
    text = '[[0,"Q6_K"]]\nllama-quantize --output-tensor-type q6_K --token-embedding-type=q5_0 a b'
    layers = parse_layer_types(text, 1)
    assert (layers.token_embedding, layers.output) == (BY_NAME["Q5_0"], BY_NAME["Q6_K"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing here", "no LAYER_TYPES"),
        ('[[0,"Q4_K"]]', "does not name layer 1 and 1 more"),
        ('[[0,"Q4_K"],[1,"Q4_K"],[1,"Q6_K"],[2,"Q4_K"]]', "layer 1 2 times"),
        ('[[0,"Q4_K"],[1,"Q4_K"],[2,"Q4_K"],[3,"Q4_K"]]', "layer 3, the model has layers 0 to 2"),
        ('[[0,"Q4_K"],[1,"Q4_K"],[-1,"Q4_K"]]', "layer -1"),
        ('[[0,"Q4_K"],[1,"Q4_K"],[2]]', r"\[2\]"),
        ('[[0,"Q4_K"],[1,4],[2,"Q4_K"]]', r"\[1, 4\]"),
        ('[["0","Q4_K"]]', r"not \[layer"),
        ('[[true,"Q4_K"]]', r"not \[layer"),
        ('x\n[[0,"Q4_K"],\n[1 "Q4_K"]]', "line 3"),
        (
            '[[0,"Q4_K"],[1,"Q4_K"],[2,"Q4_K"]] FLAGS="--output-tensor-type"',
            "ends after --output-tensor-type",
        ),
    ],
)
def test_bad_lists(text, words):
    with pytest.raises(BadFile, match=words):
        parse_layer_types(text, 3)


def test_unknown_types():
    def known(name):
        raise NothingSelected(f"no {name}")

    with pytest.raises(NothingSelected, match="Q4_KM"):
        parse_layer_types('[[0,"Q4_KM"]]', 1, known)
    with pytest.raises(NothingSelected, match="Q6_K"):
        parse_layer_types('[[0,"Q4_K"]] FLAGS="--output-tensor-type Q6K"', 1)


def test_written_lists_read_back():
    layers = tuple((block, "IQ4_XS" if block % 3 else "Q6_K") for block in range(64))
    flags = write_flags(BY_NAME["Q4_K"], BY_NAME["Q6_K"])
    text = write_layer_types(layers, flags)
    assert parse_layer_types(text, 64).layers == layers
    assert parse_layer_types(text, 64).output == BY_NAME["Q6_K"]
    lines = text.splitlines()
    assert lines[1].startswith('[0 ,"Q6_K"  ],[1 ,"IQ4_XS"],')
    assert len(lines) == 8 + 3
    assert len({len(line) for line in lines[1:8]}) == 1  # aligned
    assert write_flags(None, None) == ""


def test_flags_name_whatever_stands_outside_the_blocks():
    outside = {"per_layer_token_embd.weight": "Q4_K", "token_embd.weight": "Q6_K", "cls.weight": "Q8_0"}
    flags = flags_for({name: BY_NAME[kind] for name, kind in outside.items()})
    assert flags.startswith("--token-embedding-type Q6_K --tensor-type ^per_layer_token_embd.weight$=q4_k")
    found = parse_layer_types(write_layer_types(((0, "Q4_K"),), flags), 1)
    assert (found.token_embedding, found.output, found.ignored) == (BY_NAME["Q6_K"], None, ())
    assert [str(rule) for rule in found.rules] == ["^per_layer_token_embd.weight$=q4_k", "^cls.weight$=q8_0"]
    assert write_flags(found.token_embedding, found.output, found.rules) == flags
