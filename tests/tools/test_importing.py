"""What others publish, imported: layer types, rules, quantized files."""

from pathlib import Path

import numpy as np
import pytest
from model_shapes import GEMMA_3N_E2B, GLM_4_5_AIR, QWEN3_1_7B, QWEN3_8B, QWQ_32B, dense
from tiny_models import tiny_moe, tiny_tied

from quantplan.build.build import build, build_stock_quant, stock_plan
from quantplan.errors import BadFile, BadUsage, ModelMismatch, NothingSelected
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.llamacpp.quantize import dry_run, quantizable
from quantplan.quant_type import BY_NAME
from quantplan.recipes.emit import plan_text
from quantplan.recipes.import_plan import import_file
from quantplan.recipes.quantize_command import plan_rules
from quantplan.recipes.rules import check_rules, role_rules

pytestmark = pytest.mark.llamacpp
SEED = Path(__file__).parents[3] / "shared" / "seeds" / "002_098483952eacee31.txt"
FLAGS = 'FLAGS="--token-embedding-type Q4_K --output-tensor-type Q6_K"'


def hybrid_qwq():
    """The published Q4_K_H of QwQ-32B: Q3 in the middle, alternating steps, Q4 to Q6 at the end."""
    ftypes = ["Q4_K_M", "Q4_K_S", "Q3_K_L"] + ["Q3_K_M"] * 13 + ["Q3_K_L", "Q3_K_M"] * 4 + ["Q3_K_L"] * 16
    ftypes += ["Q4_K_S", "Q3_K_L"] * 4 + ["Q4_K_S"] * 8
    ftypes += ["Q4_K_M", "Q4_K_S", "Q4_K_M", "Q4_K_M", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"]
    return "LAYER_TYPES=[" + ",".join(f'[{block},"{ftype}"]' for block, ftype in enumerate(ftypes)) + f"]\n{FLAGS}"


@pytest.fixture
def text(tmp_path):
    def write(content):
        path = tmp_path / "text.txt"
        path.write_text(content)
        return path

    return write


@pytest.fixture
def qwq(tmp_path):
    return read_model(QWQ_32B.write(tmp_path / "qwq.gguf"))


@pytest.fixture
def reference(reference_model):
    return read_model(reference_model)


def names(types, kind):
    return {name for name, each in types.items() if each.name == kind}


# --- LAYER_TYPES


def test_published_size_of_a_hybrid(qwq, text):
    plan = import_file(text(hybrid_qwq()), qwq).plan
    assert plan.tensor_bytes == pytest.approx(17.913e9, abs=1e6)
    assert plan.file_bytes == plan.metadata_bytes + plan.tensor_bytes
    assert plan.types["token_embd.weight"].name == "Q4_K"
    assert plan.types["output.weight"].name == "Q6_K"
    assert plan.layer_types[0] == (0, "Q4_K_M")


def test_the_published_text_as_it_stands(qwq, text):
    if not SEED.is_file():
        pytest.skip(f"{SEED} is not there: the text as published was not imported")
    imported = import_file(SEED, qwq)
    assert imported.plan.types == import_file(text(hybrid_qwq()), qwq).plan.types
    assert ["--layer-types-high is in no public source" in each for each in imported.warnings] == [True]


def test_each_block_takes_what_the_mix_gives_that_block(reference, text):
    plan = import_file(
        text('[[0,"Q4_K_M"],' + ",".join(f'[{i},"Q6_K"]' for i in range(1, 10)) + "]" + FLAGS), reference
    ).plan
    stock = stock_plan(reference, "Q4_K_M").types
    for name, kind in plan.types.items():
        if name.startswith("blk.0."):
            assert kind == stock[name]
        elif name.startswith("blk.") and "norm" not in name:
            assert kind.name == "Q6_K"


def test_emitted_layer_types_are_the_same_plan(reference, text):
    ftypes = ["Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS"] * 2
    layers = ",".join(f'[{block},"{ftype}"]' for block, ftype in enumerate(ftypes))
    plan = import_file(text(f"[{layers}]{FLAGS}"), reference).plan
    again = import_file(text(plan_text(plan, "layer-types")), reference).plan
    assert again == plan
    rules = import_file(text(plan_text(plan, "tensor-types")), reference).plan
    assert rules.types == plan.types


def test_embeddings_and_output_must_be_said(reference, text, tmp_path):
    layers = "[" + ",".join(f'[{block},"Q4_K_M"]' for block in range(10)) + "]"
    with pytest.raises(BadUsage, match=r"token_embd\.weight.*--stock-quant"):
        import_file(text(layers), reference)
    assert import_file(text(layers), reference, base="q4_k_m").plan.types == stock_plan(reference, "Q4_K_M").types
    tied = read_model(tiny_tied(tmp_path / "tied.gguf"))
    plan = import_file(text('[[0,"Q4_K_M"],[1,"Q6_K"]]\nFLAGS="--output-tensor-type Q5_K"'), tied).plan
    assert plan.types["token_embd.weight"].name == "Q5_K"  # it is the output too


def test_rules_among_the_flags_come_before_the_layers(reference, text):
    layers = "[" + ",".join(f'[{block},"Q4_K_S"]' for block in range(10)) + "]"
    flags = FLAGS.replace('_K"', '_K --tensor-type blk.0.attn_v=q8_0 --tensor-type token_embd=q2_k"')
    plan = import_file(text(layers + flags), reference).plan
    assert names(plan.types, "Q8_0") == {"blk.0.attn_v.weight"}
    assert plan.types["token_embd.weight"].name == "Q4_K"  # options come before rules
    assert import_file(text(plan_text(plan, "layer-types")), reference).plan == plan
    imported = import_file(text(layers + flags.replace("attn_v", "attn_vv")), reference)
    assert "--tensor-type blk.0.attn_vv=q8_0 matches no tensor" in imported.warnings[0]


def test_per_layer_embeddings_follow_the_embeddings_unless_a_rule_names_them(text, tmp_path):
    model = read_model(GEMMA_3N_E2B.write(tmp_path / "m.gguf"))
    layers = "[" + ",".join(f'[{block},"Q4_K_S"]' for block in range(30)) + "]"
    types = import_file(text(layers + FLAGS), model).plan.types
    assert types["per_layer_token_embd.weight"].name == types["token_embd.weight"].name == "Q4_K"
    flags = FLAGS.replace('Q6_K"', 'Q6_K --tensor-type per_layer=q3_k"')
    types = import_file(text(layers + flags), model).plan.types
    assert (types["per_layer_token_embd.weight"].name, types["token_embd.weight"].name) == ("Q3_K", "Q4_K")


def listed(runs):
    """A LAYER_TYPES list from (name, how many layers)."""
    layers = [name for name, count in runs for _ in range(count)]
    return "LAYER_TYPES='[" + ",".join(f'[{block},"{name}"]' for block, name in enumerate(layers)) + "]'\n"


def test_published_size_of_extended_names(text, tmp_path):
    """GLM-4.6V Q4_P_H, 61.9e9 on its card: GLM-4.5-Air's shapes, inner widths padded as the card says, without MTP tensors."""
    wide = {1408: 1536, 10944: 11008}
    tensors = (
        (name, tuple(wide.get(size, size) for size in shape), kind)
        for name, shape, kind in GLM_4_5_AIR.tensors()
        if not name.startswith("blk.46.")
    )
    numbers = {f"glm4moe.{key}": value for key, value in GLM_4_5_AIR.numbers.items()}
    numbers |= {"glm4moe.feed_forward_length": 11008, "glm4moe.expert_feed_forward_length": 1536}
    model = read_model(write_header_only(tmp_path / "glm.gguf", "glm4moe", numbers, tensors))
    runs = [("Q4_K_M", 1), ("Q4_K_S", 2), ("Q3_K_L", 2), ("Q3_K_M", 1), ("Q3_K_L", 1), ("Q3_K_M", 1), ("Q3_K_L", 1)]
    runs += [("Q3_K_M", 15)] + [("Q3_K_L", 1), ("Q3_K_M", 1)] * 3 + [("Q3_K_L", 1), ("Q4_K_S", 2), ("Q3_K_L", 1)]
    runs += [("Q4_K_S", 1), ("Q3_K_L", 1), ("Q4_K_S", 3), ("Q4_K_M", 3), ("Q4_K_L", 1), ("Q5_K_S", 1), ("Q5_K_M", 1)]
    imported = import_file(text(listed([*runs, ("Q5_K_L", 1), ("Q6_K_S", 1)]) + FLAGS), model)
    assert imported.plan.tensor_bytes == pytest.approx(61.9e9, abs=0.05e9)
    types = {role: imported.plan.types[f"blk.45.{role}.weight"].name for role in ("attn_v", "attn_output", "attn_q")}
    assert types == {"attn_v": "Q8_0", "attn_output": "Q6_K", "attn_q": "Q5_K"}
    assert imported.plan.types["blk.45.ffn_down_exps.weight"].name == "Q6_K"
    assert imported.plan.types["blk.42.attn_output.weight"].name == "Q6_K"


def test_a_plan_of_extended_names_is_written_with_their_meaning(text, tmp_path):
    """Llama-3.1-8B Q6_K_H: as large as the stock Q6_K, as its card says."""
    model = read_model(dense("llama", 32, 4096, 14336, 32, 8, 128256).write(tmp_path / "m.gguf"))
    runs = [("Q6_K_S", 2), ("Q5_K_L", 2), ("Q5_K_M", 8), ("Q5_K_L", 4), ("Q6_K_S", 4), ("Q6_K_M", 4), ("Q6_K_L", 4)]
    imported = import_file(text(listed([*runs, ("Q8_0", 4)]) + FLAGS.replace("Q4_K", "Q6_K")), model)
    assert imported.plan.file_bytes == pytest.approx(stock_plan(model, "Q6_K").file_bytes, rel=0.005)
    written = plan_text(imported.plan, "layer-types")
    assert "Q5_K_L : Q5_K_M + attn_v = q8_0 attn_output = q6_k ffn_down = q6_k\n" in written
    assert import_file(text(written), model).plan == imported.plan
    own = "Q5_K_L : Q5_K_S + attn_v = q6_k\n" + written.split("\n", 2)[2]
    assert import_file(text(own), model).plan.types["blk.2.attn_v.weight"].name == "Q6_K"


def test_published_size_of_ranges(text, tmp_path):
    """Qwen3-8B Q6_K_H as its card has it: about 6e9 bytes."""
    model = read_model(QWEN3_8B.write(tmp_path / "m.gguf"))
    card = "embed  : Q6_K\n0..5   : Q4_K_M\n6..11  : Q5_K_S\n12..29 : Q5_K_M\n30..32 : Q6_K\n33..35 : Q8_0\noutput : Q6_K\n"
    plan = import_file(text(f"The layer quants are as follows:\n\n{card}\nThese were selected."), model).plan
    assert plan.tensor_bytes == pytest.approx(6e9, rel=0.02)
    assert plan.layer_types[5:7] == ((5, "Q4_K_M"), (6, "Q5_K_S"))
    with pytest.raises(BadFile, match="does not name layer 5"):
        import_file(text(card.replace("0..5", "0..4")), model)


def test_a_text_of_two_lists_is_read_up_to_the_second(reference, text):
    both = listed([("Q4_K_S", 10)]) + FLAGS + "\n" + listed([("Q6_K", 10)]) + FLAGS
    imported = import_file(text(both), reference)
    assert "2 LAYER_TYPES lists" in imported.warnings[0]
    assert imported.plan.layer_types[0] == (0, "Q4_K_S")


def test_bad_layer_types(reference, text):
    with pytest.raises(NothingSelected, match=r"'Q4_K_X'.*Q4_K_L, Q5_K_L.*`Q4_K_X : Q4_K_M"):
        import_file(text(listed([("Q4_K_X", 10)])), reference)
    with pytest.raises(NothingSelected, match="Q4_K_M"):
        import_file(text('[[0,"Q4_KM"]]'), reference)
    with pytest.raises(BadFile, match="layers 0 to 9"):
        import_file(text(hybrid_qwq()), reference)


# --- rules


def test_rules_with_a_base(reference, text):
    plan = import_file(text("attn_v=q8_0 ^output=q5_k"), reference, base="Q4_K_S").plan
    assert names(plan.types, "Q8_0") == {f"blk.{block}.attn_v.weight" for block in range(10)}
    assert names(plan.types, "Q5_K") >= {"output.weight"}
    assert plan.types["token_embd.weight"] == stock_plan(reference, "Q4_K_S").types["token_embd.weight"]


def test_a_command_line_names_its_own_base(reference, text):
    words = "llama-quantize --pure --tensor-type attn_v=q8_0 --output-tensor-type q6_k m.gguf o.gguf Q4_K_M 4"
    types = import_file(text(words), reference).plan.types
    assert (types["blk.0.ffn_down.weight"].name, types["output.weight"].name) == (
        "Q4_K",
        "Q6_K",
    )  # --pure: no mix
    assert types["blk.0.attn_v.weight"].name == "Q8_0"


def test_a_pattern_that_would_take_for_ever_is_not_given_to_llama_quantize(reference, text):
    endless = "([a-z0-9_.]+)*attn_v.*t$=q8_0 ([a-z0-9_.]+)*[^a-z0-9_.]=q6_k"
    asked = import_file(text(endless), reference, base="Q4_K_S")
    assert asked.plan.types == import_file(text("attn_v=q8_0"), reference, base="Q4_K_S").plan.types
    assert any("1 of 2 rules match no tensor" in each for each in asked.warnings)


def test_rules_for_everything_need_no_base(reference, text):
    assert names(import_file(text(".*=q5_0"), reference).plan.types, "Q5_0") == {
        each.name for each in quantizable(reference)
    }


def test_bad_rules(reference, text):
    with pytest.raises(BadUsage, match=r"nothing about .* 61 more"):
        import_file(text("attn_v=q8_0"), reference)
    with pytest.raises(BadUsage, match="ignores all rules with F16"):
        import_file(text("attn_v=q8_0"), reference, base="f16")
    with pytest.raises(NothingSelected, match="did you mean attn_v"):
        import_file(text("attn_vv=q8_0"), reference, base="Q4_K_M")
    with pytest.raises(NothingSelected, match="Q8_0"):
        import_file(text("attn_v=q80"), reference, base="Q4_K_M")


def test_rules_that_do_little_are_told(reference, text, tmp_path):
    warnings = import_file(text("attn_norm=q8_0 .*=q4_k"), reference).warnings
    assert ["never quantizes" in each for each in warnings] == [True]
    odd = read_model(tiny_tied(tmp_path / "odd.gguf"))
    imported = import_file(text(".*=q4_k"), odd)
    assert imported.plan.types["blk.0.ffn_down.weight"].name == "Q5_0"
    assert "becomes Q5_0, not Q4_K" in imported.warnings[0]


def test_published_texts_of_a_dense_model(text, tmp_path):
    """The sizes that llama-quantize --dry-run and the publishers' own tools give these texts, tensor data only."""
    model = read_model(QWEN3_1_7B.write(tmp_path / "m.gguf"))
    first = "llama-quantize --tensor-type attn_v=q8_0 model-F16.gguf model-a.gguf 15\n"
    two = first + "llama-quantize --tensor-type attn_v=q4_k model-F16.gguf model-b.gguf Q3_K_M\n"
    ticks = "Built with `--tensor-type attn_v=q8_0 --tensor-type ffn_down=q6_k` over Q4_K_M.\n"
    recipe = (
        "blk\\..*\\.attn_.*\\.weight = q6_K   # attention\nblk\\..*\\.ffn_.*\\.weight=q4_K\ntoken_embd\\.weight=q6_K\n"
    )
    legend = '[["A","attn","V","attn_v","O","attn_o","D","ffn_d"],'
    legend += '["MAP","VOD","0","QN_K","4","Q4_K","5","Q5_K","6","Q6_K","8","Q8_0"]'
    runs = [("Q5_K_655", 1), ("Q4_K_555", 5), ("Q4_K_544", 16), ("Q4_K_654", 4), ("Q5_K_666", 1), ("Q6_K_866", 1)]
    card = listed(runs).replace("'[", f"'{legend},") + FLAGS.replace("Q4_K", "Q5_K")
    sizes = {
        name: import_file(text(content), model, base=base).plan.tensor_bytes
        for name, content, base in (
            ("two", two, None),
            ("ticks", ticks, "Q4_K_M"),
            ("recipe", recipe, None),
            ("card", card, None),
        )
    }
    assert sizes == {"two": 1_123_248_128, "ticks": 1_168_664_576, "recipe": 1_139_304_448, "card": 1_056_247_808}
    assert "2 recipes" in import_file(text(two), model).warnings[0]


# --- ik_llama.cpp and recipes


@pytest.mark.parametrize("form", ["tensor-types", "args", "custom-q", "recipe"])
def test_every_form_reads_back_as_the_plan(reference, text, form):
    plan = import_file(text("attn_v=q8_0 ffn_down=iq4_xs blk.[2-4].*=q3_k"), reference, base="Q4_K_M").plan
    imported = import_file(text(plan_text(plan, form)), reference)
    assert imported.plan.types == plan.types
    assert imported.warnings == ()


def test_recipes_name_every_tensor_and_spell_types_as_ik_llama_cpp_does(reference, text):
    recipe = plan_text(stock_plan(reference, "Q4_K_M"), "recipe")
    lines = [line for line in recipe.splitlines() if line and not line.startswith("#")]
    assert r"^blk\.[0-9]\.attn_norm\.weight$=f32" in lines
    assert r"^output\.weight$=q6_K" in lines
    assert recipe.index("## Attention") < recipe.index(r"attn_q\.") < recipe.index("## Feed-forward")
    with pytest.raises(BadUsage, match="ik_llama.cpp has no type TQ2_0"):
        plan_text(import_file(text(".*=tq2_0"), reference).plan, "custom-q")


def test_types_of_ik_llama_cpp_are_named_and_replaced_when_asked(reference, text):
    recipe = "# mixed\n^blk\\..*\\.attn_.*$=iq5_k_r4\n^blk\\..*\\.ffn_.*$=iq2_k\n^.*norm.*$=f32\n^.*$=q6_0\n"
    with pytest.raises(NothingSelected) as error:
        import_file(text(recipe), reference)
    assert "IQ2_K (2.375 bits; 30 tensors, first blk.0.ffn_gate.weight), nearest: Q2_K (2.625 bits)" in str(error.value)
    assert "Q6_0 (6.5 bits; 2 tensors" in str(error.value) and "--nearest" in str(error.value)
    imported = import_file(text(recipe), reference, nearest=True)
    assert len(imported.warnings) == 3
    assert {kind.name for name, kind in imported.plan.types.items() if "norm" not in name} == {"Q5_K", "Q2_K", "Q6_K"}
    assert len(imported.plan.made_from["replaced_types"]) == 3


def test_nearest_types_need_what_there_is(reference, reference_imatrix, text):
    words = "llama-quantize --custom-q '.*=iq2_kt' --output-tensor-type iq6_k m.gguf o.gguf IQ2_KT 8"
    types = import_file(text(words), reference, nearest=True).plan.types
    assert types["blk.0.attn_q.weight"].name == "Q2_K"  # what is nearer needs an imatrix
    assert types["output.weight"].name == "Q6_K"
    types = import_file(text(words), reference, read_imatrix(reference_imatrix), nearest=True).plan.types
    assert types["blk.0.attn_q.weight"].name == "IQ2_XXS"


def test_a_rule_that_another_takes_everything_from_is_told(reference, text):
    """Recipes without anchors: output.weight is found in attn_output.weight too, by every tool that reads them."""
    recipe = "# old\noutput\\.weight=q8_0\nblk\\..*\\.attn_output\\.weight=q4_K\n.*=q4_K\n"
    imported = import_file(text(recipe), reference)
    assert imported.plan.types["blk.0.attn_output.weight"].name == "Q8_0"
    (warning,) = imported.warnings
    assert (
        r"attn_output\.weight=q4_k decides nothing: output\.weight=q8_0 is found in blk.0.attn_output.weight before"
        in warning
    )
    assert import_file(text(recipe.replace("output", "^output", 1)), reference).warnings == ()


def test_rules_of_ik_llama_cpp_keep_their_case(reference, text):
    with pytest.raises(NothingSelected, match="ATTN_V"):
        import_file(text("ATTN_V=q8_0,FFN=q8_0"), reference, base="Q4_K_S")
    imported = import_file(text("ATTN_V=q8_0,attn_k=q6_K"), reference, base="Q4_K_S")
    assert names(imported.plan.types, "Q6_K") >= {"blk.0.attn_k.weight"}
    assert not names(imported.plan.types, "Q8_0")
    assert "1 of 2 rules match no tensor" in imported.warnings[0]
    with pytest.raises(NothingSelected, match="IQ4_KS.*--stock-quant"):
        import_file(text("llama-quantize --custom-q attn_k=q6_K a.gguf b.gguf IQ4_KS"), reference)


# --- the fewest rules


def rank(assignment, kind):
    """Of the table of blocks by roles that have the type: no disjoint cover by rectangles has fewer."""
    places = [name.split(".") for name in assignment if name.startswith("blk.")]
    roles = sorted({role for _, _, role, _ in places})
    table = np.zeros((64, len(roles)))
    for _, block, role, _ in places:
        table[int(block), roles.index(role)] = assignment[f"blk.{block}.{role}.weight"] == kind
    return np.linalg.matrix_rank(table)


@pytest.mark.parametrize("precedence", ["first", "last"])
def test_few_rules_mean_the_same_to_the_tool(qwq, text, precedence):
    """The published hybrid: 27 rules of a role and type each are 13, and llama-quantize reads them in any order as the plan."""
    plan = import_file(text(hybrid_qwq()), qwq).plan
    assignment = {each.name: each.type for each in plan.tensors if each.rule}
    few, many = plan_rules(plan), role_rules(assignment, plan.types)
    assert (len(few), len(many)) == (13, 27)
    assert len(few) == 2 + sum(rank(assignment, kind) for kind in set(assignment.values()))
    check_rules(few, assignment, plan.types)
    ordered = few if precedence == "first" else few[::-1]
    assert dry_run(qwq.path, plan.base_ftype, rules=ordered) == plan.types


# --- GGUF


def test_a_quantized_file_is_rebuilt_as_it_was(reference, reference_imatrix, tmp_path):
    mixed = build_stock_quant(reference, "Q4_K_M", tmp_path / "q4.gguf", reference_imatrix, threads=2)
    imported = import_file(mixed.path, reference)
    assert "was made with the imatrix" in imported.warnings[0]
    plan = import_file(mixed.path, reference, read_imatrix(reference_imatrix)).plan
    assert plan.file_bytes == mixed.file_bytes
    built = build(plan, reference, tmp_path / "again.gguf", threads=2)
    last = min(each.offset for each in built.tensors)
    assert built.path.read_bytes()[last:] == mixed.path.read_bytes()[last:]  # the same bits by other means


def test_a_published_file_without_the_block_that_predicts_further_tokens(tmp_path):
    """The types of all shared tensors, and the others as stored, or of a stock quant; a table that a converter added."""
    numbers = {f"glm4moe.{key}": value for key, value in GLM_4_5_AIR.numbers.items()}
    rows = list(GLM_4_5_AIR.tensors())
    full = read_model(GLM_4_5_AIR.write(tmp_path / "full.gguf"))
    kinds = {"F32": BY_NAME["F32"], "BF16": BY_NAME["Q5_0"]}  # rows of 1408 fit no K-type
    left = [(name, shape, kinds[kind.name]) for name, shape, kind in rows if not name.startswith("blk.46.")]
    left.append(("rope_freqs.weight", (32,), BY_NAME["F32"]))
    numbers |= {"glm4moe.block_count": 46, "glm4moe.nextn_predict_layers": 0}
    published = write_header_only(tmp_path / "published.gguf", "glm4moe", numbers, left)
    imported = import_file(published, full)
    assert {imported.plan.types[name] for name, _, kind in left if kind.name == "Q5_0"} == {BY_NAME["Q5_0"]}
    assert imported.plan.types["blk.46.attn_q.weight"].name == "BF16"
    lacks, has = imported.warnings
    assert (
        "does not have 23 tensors" in lacks and "block 46 predicts further tokens" in lacks and "--stock-quant" in lacks
    )
    assert "has 1 tensors" in has and "rope_freqs.weight" in has
    smaller = import_file(published, full, base="Q4_K_M").plan
    assert smaller.types["blk.46.attn_q.weight"].name == "Q4_K"
    (tmp_path / "card.md").write_text(listed([("Q4_K_S", 46)]) + FLAGS)
    imported = import_file(tmp_path / "card.md", full)
    assert "does not name layer 46, which predicts further tokens" in imported.warnings[0]
    assert imported.plan.types["blk.46.attn_q.weight"].name == "BF16"
    (tmp_path / "card.md").write_text(listed([("Q4_K_S", 45)]) + FLAGS)
    with pytest.raises(BadFile, match="does not name layer 45 of"):
        import_file(tmp_path / "card.md", full)


def test_files_of_other_models(reference, tmp_path, qwq):
    with pytest.raises(ModelMismatch, match="qwen3moe"):
        import_file(tiny_moe(tmp_path / "moe.gguf"), reference)
    with pytest.raises(ModelMismatch, match="different models"):
        import_file(tiny_tied(tmp_path / "tied.gguf"), reference)
    with pytest.raises(ModelMismatch, match="shape"):
        import_file(tiny_tied(tmp_path / "a.gguf"), read_model(tiny_tied(tmp_path / "b.gguf", feed_forward=320)))


def test_files_that_are_something_else(reference, text, tmp_path):
    with pytest.raises(BadFile, match="a quantplan-plan file"):
        import_file(text('{"format": "quantplan-plan"}'), reference)
    with pytest.raises(BadFile, match="not UTF-8 text"):
        (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
        import_file(tmp_path / "x", reference)
    with pytest.raises(BadFile, match="gone"):
        import_file(tmp_path / "gone", reference)


def test_a_big_models_rules_stay_few(tmp_path):
    model = read_model(QWEN3_8B.write(tmp_path / "m.gguf"))
    assert len(plan_rules(stock_plan(model, "Q4_K_M"))) == 5
