"""What others publish, imported: layer types, rules, quantized files."""

from pathlib import Path

import pytest
from model_shapes import GEMMA_3N_E2B, QWEN3_8B, QWQ_32B
from tiny_models import tiny_moe, tiny_tied

from quantplan.errors import BadFile, BadUsage, ModelMismatch, NothingSelected
from quantplan.experiments.build import build, build_mix, plan_rules, stock_plan
from quantplan.experiments.emit import plan_text
from quantplan.formats.gguf import read_model
from quantplan.formats.imatrix_files import read_imatrix
from quantplan.formats.importing import import_file
from quantplan.llamacpp.quantize import quantizable

pytestmark = pytest.mark.tools
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
    with pytest.raises(BadUsage, match=r"token_embd\.weight.*--base"):
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
    with pytest.raises(NothingSelected, match="did you mean attn_v"):
        import_file(text(layers + flags.replace("attn_v", "attn_vv")), reference)


def test_per_layer_embeddings_follow_the_embeddings_unless_a_rule_names_them(text, tmp_path):
    model = read_model(GEMMA_3N_E2B.write(tmp_path / "m.gguf"))
    layers = "[" + ",".join(f'[{block},"Q4_K_S"]' for block in range(30)) + "]"
    types = import_file(text(layers + FLAGS), model).plan.types
    assert types["per_layer_token_embd.weight"].name == types["token_embd.weight"].name == "Q4_K"
    flags = FLAGS.replace('Q6_K"', 'Q6_K --tensor-type per_layer=q3_k"')
    types = import_file(text(layers + flags), model).plan.types
    assert (types["per_layer_token_embd.weight"].name, types["token_embd.weight"].name) == ("Q3_K", "Q4_K")


def test_bad_layer_types(reference, text):
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


# --- GGUF


def test_a_quantized_file_is_rebuilt_as_it_was(reference, reference_imatrix, tmp_path):
    mixed = build_mix(reference, "Q4_K_M", tmp_path / "q4.gguf", reference_imatrix, threads=2)
    imported = import_file(mixed.path, reference)
    assert "was made with the imatrix" in imported.warnings[0]
    plan = import_file(mixed.path, reference, read_imatrix(reference_imatrix)).plan
    assert plan.file_bytes == mixed.file_bytes
    built = build(plan, reference, tmp_path / "again.gguf", threads=2)
    last = min(each.offset for each in built.tensors)
    assert built.path.read_bytes()[last:] == mixed.path.read_bytes()[last:]  # the same bits by other means


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
    with pytest.raises(BadFile, match="neither"):
        (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
        import_file(tmp_path / "x", reference)
    with pytest.raises(BadFile, match="gone"):
        import_file(tmp_path / "gone", reference)


def test_a_big_models_rules_stay_few(tmp_path):
    model = read_model(QWEN3_8B.write(tmp_path / "m.gguf"))
    assert len(plan_rules(stock_plan(model, "Q4_K_M"))) == 5
