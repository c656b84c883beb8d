"""What follows a layer map: the entries of an imatrix, the types of a plan."""

import json
from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of
from tiny_models import tiny_moe

from quantplan.build.build import build, stock_plan
from quantplan.errors import BadUsage, ModelMismatch
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import make_plan
from quantplan.llamacpp import ggml
from quantplan.llamacpp.quantize import quantizable
from quantplan.llamacpp.tools import run
from quantplan.plan import Limit
from quantplan.quant_type import BY_NAME
from quantplan.recipes.import_plan import import_file
from quantplan.records.formats import PLANS
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.encode_tensors import tensor_data
from quantplan.surgery.follow import follow_imatrix, followed_entry, imatrix_notes
from quantplan.surgery.layer_map_files import LAYER_MAPS
from quantplan.surgery.operation import operate
from quantplan.surgery.products import OperationOptions, check_options, produce


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


@pytest.fixture(scope="module")
def imatrix(reference_imatrix):
    return read_imatrix(reference_imatrix)


def parts(model, text):
    return edited_tensors(model, apply_edits(model.blocks, parse_edits(text)))


def products(model, text, folder, **orders):
    operation = operate(model, apply_edits(model.blocks, parse_edits(text)), imatrix=orders.get("imatrix"))
    return produce(operation, OperationOptions(text, folder / "out.gguf", threads=1, **orders))


# --- imatrix


def test_entries_go_where_their_tensors_go(model, imatrix, tmp_path):
    followed = follow_imatrix(imatrix, parts(model, "delete 3; swap 3 4; repeat 0-1"), tmp_path / "out.gguf")
    for new, old in ((0, 0), (1, 1), (2, 0), (3, 1), (4, 2), (5, 5), (6, 4), (7, 6), (10, 9)):
        for role in ("attn_q", "ffn_down"):
            ours, theirs = followed.entries[f"blk.{new}.{role}.weight"], imatrix.entries[f"blk.{old}.{role}.weight"]
            assert (ours.sum2 == theirs.sum2).all() and (ours.counts == theirs.counts).all()
    assert "blk.11.attn_q.weight" not in followed.entries
    assert (followed.entries["output.weight"].sum2 == imatrix.entries["output.weight"].sum2).all()
    assert len(followed.entries) == len(imatrix.entries) + (11 - 10) * 7


def test_the_map_that_changes_nothing_changes_no_entry(model, imatrix, tmp_path):
    followed = follow_imatrix(imatrix, parts(model, "swap 1 2; swap 1 2"), tmp_path / "out.gguf")
    write_imatrix(followed, followed.path)
    again = read_imatrix(followed.path)
    assert again.entries.keys() == imatrix.entries.keys()
    for name, entry in imatrix.entries.items():
        assert (again.entries[name].sum2 == entry.sum2).all() and (again.entries[name].counts == entry.counts).all()
    assert (again.datasets, again.chunk_count, again.chunk_size) == (
        imatrix.datasets,
        imatrix.chunk_count,
        imatrix.chunk_size,
    )


def test_a_blend_has_the_average_by_share(model):
    part = next(each for each in parts(model, "blend 3 5 0.25 into 4") if each.name == "blk.4.attn_q.weight")
    sums = {f"blk.{block}.attn_q.weight": np.full((1, 256), float(block)) for block in (3, 4, 5)}
    known = imatrix_of(sums, {"blk.3.attn_q.weight": [100], "blk.5.attn_q.weight": [200]})
    entry = followed_entry(part, known)
    assert entry.sum2.dtype == np.float32 and (entry.sum2 == 0.75 * 3 + 0.25 * 5).all()
    assert entry.counts.tolist() == [125] and entry.counts.dtype == np.int64


def test_an_entry_that_a_source_lacks_is_missing(model):
    part = next(each for each in parts(model, "blend 3 5 into 4") if each.name == "blk.4.attn_q.weight")
    assert followed_entry(part, imatrix_of({"blk.3.attn_q.weight": np.ones((1, 256))})) is None
    scaled = next(each for each in parts(model, "scale 3 0.5") if each.name == "blk.3.attn_q.weight")
    known = imatrix_of({"blk.3.attn_q.weight": np.full((1, 256), 7.0)})
    assert (followed_entry(scaled, known).sum2 == 7).all()


def test_experts_keep_their_counts(tmp_path):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    hits = {f"blk.{block}.ffn_up_exps.weight": list(range(block, block + 8)) for block in range(3)}
    sums = {name: np.full((8, 256), index) for index, name in enumerate(hits)}
    known = imatrix_of(sums, hits)
    swapped = follow_imatrix(known, parts(model, "swap 0 2"), tmp_path / "out.gguf")
    assert swapped.entries["blk.0.ffn_up_exps.weight"].counts.tolist() == list(range(2, 10))
    blended = follow_imatrix(known, parts(model, "blend 0 2 into 1"), tmp_path / "out.gguf")
    assert blended.entries["blk.1.ffn_up_exps.weight"].counts.tolist() == list(range(1, 9))


def test_what_is_only_like_it_is_said(model, imatrix):
    (only,) = imatrix_notes(imatrix, parts(model, "swap 3 4"))
    assert "an imatrix of the new model is better" in only
    _, averaged = imatrix_notes(imatrix, parts(model, "blend 3 5"))
    assert averaged.startswith("7 imatrix entries of blended tensors, such as blk.4.") and "approximation" in averaged


@pytest.mark.llamacpp
def test_blends_are_encoded_with_what_follows(model, imatrix, tmp_path):
    """IQ2_XS cannot be encoded without importance: a blend's is the average of its sources'."""
    small = tmp_path / "small.gguf"
    words = [
        "llama-quantize",
        "--imatrix",
        imatrix.path,
        "--tensor-type",
        "ffn_up=iq2_xs",
        model.path,
        small,
        "Q4_K",
        "1",
    ]
    run([str(word) for word in words])
    quantized = read_model(small)
    made = apply_edits(10, parse_edits("blend 3 5 into 4"))
    with pytest.raises(BadUsage, match=r"IQ2_XS cannot be encoded without imatrix data: give an --imatrix"):
        operate(quantized, made)
    operation = operate(quantized, made, imatrix=imatrix)
    assert any("encoded again as IQ2_XS" in note or "IQ2_XS" in note for note in operation.notes)
    part = next(each for each in operation.tensors if each.name == "blk.4.ffn_up.weight")
    rows = [
        ggml.dequantize(tensor_data(quantized, replace(part, sources=((t, 1.0),))), t.type, 256)
        for t, _ in part.sources
    ]
    weights = followed_entry(part, imatrix).mean_square()
    wanted = ggml.quantize(np.float32(0.5) * rows[0] + np.float32(0.5) * rows[1], part.type, weights)
    assert (tensor_data(quantized, part, imatrix) == wanted).all()
    assert (
        produce(operation, OperationOptions("blend 3 5 into 4", tmp_path / "out.gguf", imatrix, threads=1)).model.blocks
        == 10
    )


# --- plans


@pytest.mark.llamacpp
@pytest.mark.parametrize("text", ["delete 3; swap 3 4", "repeat 2-5", "blend 2 9 into 5"])
def test_a_plan_that_followed_is_built_to_the_byte(model, imatrix, text, tmp_path):
    plan = stock_plan(model, "Q4_K_M", imatrix)
    made = products(model, text, tmp_path, imatrix=imatrix, plan=plan)
    followed = PLANS.read(made.plan_file)
    for part in parts(model, text):
        kinds = [plan.types[tensor.name] for tensor, _ in part.sources]
        assert followed.types[part.name] == max(kinds, key=lambda kind: kind.bits)
    assert (followed.model_digest, followed.outcome.status) == (made.model.digest, "given")
    assert followed.made_from["followed"]["digest"] == model.digest
    assert {each.name for each in followed.tensors if each.rule} == {each.name for each in quantizable(made.model)}
    built = build(followed, made.model, tmp_path / "built.gguf", threads=1)  # checks types and size itself
    assert built.file_bytes == followed.file_bytes < made.model.file_bytes
    with pytest.raises(ModelMismatch, match="the plan was made for"):
        followed.check_belongs_to(model)


@pytest.mark.llamacpp
def test_what_a_plan_promised_does_not_follow(model, tmp_path):
    types = {each.name: BY_NAME["Q8_0"] for each in quantizable(model)}
    plan = make_plan(model, types, predicted_kld=0.01, limits=(Limit("VRAM", "bytes", 10, 9),), budget_bytes=1 << 30)
    made = products(model, "delete 3", tmp_path, plan=plan)
    followed = PLANS.read(made.plan_file)
    assert followed.predicted_kld is None and not followed.limits and followed.budget_bytes is None
    assert any(note.startswith("the expected KLD of the plan did not follow") for note in made.record.notes)


@pytest.mark.llamacpp
def test_layer_types_follow_where_they_mean_the_same(model, tmp_path):
    text = tmp_path / "layers.txt"
    flags = 'FLAGS="--token-embedding-type Q6_K --output-tensor-type Q6_K"'

    def plan_of(names):
        layers = json.dumps(list(enumerate(names)))
        text.write_text(f"LAYER_TYPES='{layers}'\n{flags}\n")
        return import_file(text, model).plan

    simple = plan_of(["Q8_0"] * 3 + ["Q5_K_S"] + ["Q6_K"] * 6)
    followed = PLANS.read(products(model, "swap 3 7; delete 0", tmp_path, plan=simple).plan_file)
    assert [name for _, name in followed.layer_types] == ["Q8_0"] * 2 + ["Q6_K"] * 4 + ["Q5_K_S"] + ["Q6_K"] * 2
    assert followed.flags == simple.flags and followed.types["blk.6.attn_q.weight"].name == "Q5_K"

    # Q4_K_M stores ffn_down of some blocks larger, by their number: moved, the name would say something else
    mixed = plan_of(["Q4_K_M"] * 10)
    made = products(model, "reverse 0-8", tmp_path, plan=mixed)
    followed = PLANS.read(made.plan_file)
    assert not followed.layer_types
    assert followed.types["blk.8.ffn_down.weight"] == mixed.types["blk.0.ffn_down.weight"]
    assert any("LAYER_TYPES of the plan did not follow" in note for note in made.record.notes)


def test_orders_that_belong_to_another_model(model, tmp_path):
    other = read_model(tiny_moe(tmp_path / "moe.gguf"))
    plan = stock_plan(model, "Q8_0")
    with pytest.raises(ModelMismatch, match="the plan was made for"):
        check_options(other, OperationOptions("delete 0", tmp_path / "out.gguf", plan=plan))
    known = imatrix_of({"blk.9.attn_q.weight": np.ones((1, 256))})
    with pytest.raises(ModelMismatch, match=r"1 of 1 entries .blk.9.attn_q.weight"):
        check_options(other, OperationOptions("delete 0", tmp_path / "out.gguf", imatrix=known))


@pytest.mark.llamacpp
def test_a_plan_whose_imatrix_is_not_given(model, imatrix, tmp_path):
    with pytest.raises(BadUsage, match="the plan was made with the imatrix"):
        check_options(
            model, OperationOptions("delete 0", tmp_path / "out.gguf", plan=stock_plan(model, "Q4_K_M", imatrix))
        )


# --- the record


def test_the_record_says_what_was_done(model, tmp_path):
    text = "delete 3; blend 5 7 0.3; scale 0 0.9 ffn_down"
    made = products(model, text, tmp_path)
    record = LAYER_MAPS.read(tmp_path / "out.layers.json")
    assert record == made.record
    assert record.edits == text and record.layer_map == apply_edits(10, parse_edits(text))
    assert (record.source.digest, record.result.digest) == (model.digest, made.model.digest)
    assert (record.result.file, record.result.bytes) == ("out.gguf", made.model.file_bytes)
    named = {each.tensor: each.sources for each in record.reencoded}
    assert named["blk.6.ffn_up.weight"] == ("blk.6.ffn_up.weight", "blk.8.ffn_up.weight")
    assert named["blk.0.ffn_down.weight"] == ("blk.0.ffn_down.weight",) and len(named) == 12
