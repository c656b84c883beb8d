"""Built files equal their plans to the byte, whatever the model, the imatrix and the types."""

import os
import random
import re
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of
from reporters import Recorder
from tiny_models import tiny_moe, tiny_tied

from quantplan.build import build as module
from quantplan.build import preflight
from quantplan.build.build import (
    build,
    build_stock_quant,
    check_build,
    rules_file,
    stock_plan,
)
from quantplan.errors import (
    BadFile,
    BadUsage,
    ImatrixNeeded,
    ModelMismatch,
    NoSpace,
    NotAsPlanned,
    NothingSelected,
    ToolFailed,
)
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.gguf.sized_plan import make_plan
from quantplan.llamacpp.quantize import quantizable
from quantplan.llamacpp.tools import run
from quantplan.quant_type import BY_NAME, fitted, parse_types
from quantplan.recipes.emit import alignment_note, plan_text
from quantplan.recipes.quantize_command import build_command, plan_rules
from quantplan.records.formats import PLANS

pytestmark = pytest.mark.llamacpp
FREE = "Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,legacy,IQ3_S,IQ4_XS,IQ4_NL,F16,BF16,F32"


def random_types(model, types=FREE, seed=0):
    chance = random.Random(seed)
    kinds = parse_types(types)
    return {each.name: fitted(chance.choice(kinds), each.columns) for each in quantizable(model)}


@pytest.fixture(scope="module")
def split_model(reference_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    run(["llama-gguf-split", "--split", "--split-max-tensors", "40", str(reference_model), str(folder / "m")])
    return folder / "m-00001-of-00003.gguf"


def aligned(path, alignment):
    """The file again, its tensors at multiples of another number of bytes; llama.cpp loads it."""
    layout, data = read_layout(path), path.read_bytes()
    sizes = {tensor.name: tensor.bytes for tensor in read_model(path).tensors}
    wide = layout.changed({"general.alignment": MetadataEntry.of("general.alignment", alignment)})
    wide = wide.with_tensors((info, sizes[info.name]) for info in layout.tensors)
    content = bytearray(wide.header)
    for info, place in zip(layout.tensors, wide.tensors, strict=True):
        content = content.ljust(wide.data_offset + place.offset, b"\0")
        content += data[layout.data_offset + info.offset :][: sizes[info.name]]
    path.write_bytes(content.ljust(-(-len(content) // alignment) * alignment, b"\0"))
    return path


@pytest.fixture
def model(request, reference_model, tmp_path):
    makers = {
        "untied": lambda: reference_model,
        "tied": lambda: tiny_tied(tmp_path / "tied.gguf"),
        "odd rows": lambda: tiny_tied(tmp_path / "odd.gguf", feed_forward=300),
        "experts": lambda: tiny_moe(tmp_path / "moe.gguf"),
        "split": lambda: request.getfixturevalue("split_model"),
        "aligned to 64": lambda: aligned(tiny_tied(tmp_path / "tied.gguf"), 64),
    }
    return read_model(makers[request.param]())


@pytest.fixture
def reference(reference_model):
    return read_model(reference_model)


@pytest.fixture
def plan(reference):
    return make_plan(reference, random_types(reference))


MODELS = pytest.mark.parametrize(
    "model", ["untied", "tied", "odd rows", "experts", "split", "aligned to 64"], indirect=True
)


@MODELS
def test_any_plan_is_built_to_the_byte(model, tmp_path):
    plan = make_plan(model, random_types(model, seed=1))
    done = []
    built = build(plan, model, tmp_path / "out.gguf", threads=2, advance=done.append)
    assert built.file_bytes == plan.file_bytes == (tmp_path / "out.gguf").stat().st_size
    assert {each.name: each.type for each in built.tensors} == plan.types
    assert sum(done) == len(model.tensors)


@MODELS
@pytest.mark.parametrize("ftype", ["Q4_K_M", "Q3_K_L", "Q8_0", "F16"])
def test_stock_mixes_are_predicted_to_the_byte(model, ftype, tmp_path):
    built = build_stock_quant(model, ftype, tmp_path / "out.gguf", threads=2)
    assert built.file_bytes == stock_plan(model, ftype).file_bytes


def test_bare_rules_say_what_a_model_of_another_alignment_needs(reference, tmp_path):
    model = read_model(aligned(tiny_tied(tmp_path / "tied.gguf"), 64))
    plan = make_plan(model, random_types(model))
    note = alignment_note(plan)
    assert (
        "alignment of the model is 64" in note and alignment_note(make_plan(reference, random_types(reference))) is None
    )
    (tmp_path / "rules.txt").write_text(plan_text(plan, "tensor-types"))
    options = re.search(r"add (.+) to its command line", note)[1].split()
    rules = ["--tensor-type-file", str(tmp_path / "rules.txt")]
    run(["llama-quantize", *options, *rules, str(model.path), str(tmp_path / "q.gguf"), plan.base_ftype])
    plan.check_built(read_model(tmp_path / "q.gguf"))
    model.path.unlink()
    assert alignment_note(plan) is None


def as_legacy(imatrix, path):
    """The .dat form of before 2025-07, in which llama.cpp stores (sum/count) * chunks."""
    out = struct.pack("<i", len(imatrix.entries))
    for name, entry in imatrix.entries.items():
        values = (entry.mean_square() * imatrix.chunk_count).astype("<f4").ravel()
        out += struct.pack("<i", len(name)) + name.encode()
        out += struct.pack("<ii", imatrix.chunk_count, values.size) + np.ascontiguousarray(values).tobytes()
    dataset = b"some/where/calibration.txt"
    path.write_bytes(out + struct.pack("<ii", imatrix.chunk_count, len(dataset)) + dataset)
    return path


@pytest.mark.parametrize("form", ["imatrix.gguf", "old.dat", "a name with blanks, which is long " * 4 + ".dat"])
def test_plans_with_an_imatrix_are_built_to_the_byte(reference, reference_imatrix, tmp_path, monkeypatch, form):
    path = tmp_path / "private" / form
    path.parent.mkdir()
    if form.endswith(".dat"):
        as_legacy(read_imatrix(reference_imatrix), path)
    else:
        shutil.copyfile(reference_imatrix, path)
    imatrix = read_imatrix(path)
    types = random_types(reference) | {f"blk.0.attn_{each}.weight": BY_NAME["IQ2_XS"] for each in "kv"}
    plan = make_plan(reference, types, imatrix)
    PLANS.write(plan, tmp_path / "plan.json")
    monkeypatch.chdir(tmp_path)
    built = build(PLANS.read("plan.json"), reference, tmp_path / "out.gguf", threads=2)
    assert built.metadata["quantize.imatrix.file"] == form[:127]  # no folder: it would be published
    assert built.metadata["quantize.imatrix.chunks_count"] == 20
    assert built.file_bytes == plan.file_bytes
    stock = build_stock_quant(reference, "Q4_0", tmp_path / "mix.gguf", path.relative_to(tmp_path), threads=2)
    assert stock.by_name["blk.0.ffn_down.weight"].type.name == "Q4_1"  # only with an imatrix
    assert stock.file_bytes == stock_plan(reference, "Q4_0", imatrix).file_bytes


def test_a_renamed_imatrix_still_builds_what_was_planned(reference, reference_imatrix, tmp_path):
    plan = make_plan(reference, random_types(reference), read_imatrix(reference_imatrix))
    renamed = shutil.copyfile(reference_imatrix, tmp_path / "renamed.gguf")
    built = build(plan, reference, tmp_path / "out.gguf", imatrix_path=renamed, threads=2)
    assert built.metadata["quantize.imatrix.file"] == reference_imatrix.name


def test_rules_and_command_can_be_run_again(reference, plan, tmp_path):
    out, report = tmp_path / "with blank" / "out.gguf", Recorder()
    build(plan, reference, out, threads=2, report=report)
    assert sorted(each.name for each in out.parent.iterdir()) == ["out.gguf", "out.tensor-types.txt"]
    assert rules_file(out).read_text().split() == [str(rule) for rule in plan_rules(plan)]
    assert f"--tensor-type-file '{rules_file(out)}'" in report.said[0]
    assert build_command(plan, reference, out).count("--tensor-type ") == len(plan_rules(plan))


def test_base_is_the_type_of_most_bytes_and_quantized(reference, tmp_path):
    half = {name: BY_NAME["Q2_K"] for name in random_types(reference)} | {"output.weight": BY_NAME["F16"]}
    assert make_plan(reference, half).base_ftype == "Q2_K"
    all_f16 = make_plan(reference, {name: BY_NAME["F16"] for name in half})
    assert all_f16.base_ftype == "Q8_0"
    assert build(all_f16, reference, tmp_path / "f16.gguf").file_bytes == all_f16.file_bytes
    assert 0 <= all_f16.file_bytes - reference.file_bytes <= 64  # only general.quantization_version is new


def test_quantized_sources_are_quantized_again(reference, tmp_path):
    quantized = build_stock_quant(reference, "Q8_0", tmp_path / "q8.gguf", threads=2)
    plan = make_plan(quantized, random_types(quantized))
    report = Recorder()
    assert build(plan, quantized, tmp_path / "out.gguf", report=report).file_bytes == plan.file_bytes
    assert "--allow-requantize" in report.said[0]


# --- what goes wrong


def left_in(folder):
    return sorted(each.name for each in folder.iterdir())


def test_wrong_models_imatrices_and_places(reference, plan, reference_imatrix, tmp_path):
    other = read_model(tiny_tied(tmp_path / "tied.gguf"))
    with pytest.raises(ModelMismatch, match="digest"):
        build(plan, other, tmp_path / "out.gguf")
    with pytest.raises(BadUsage, match="without an imatrix"):
        build(plan, reference, tmp_path / "out.gguf", imatrix_path=reference_imatrix)
    with pytest.raises(BadUsage, match="the model itself"):
        build(plan, reference, reference.path)
    with pytest.raises(BadUsage, match="folder"):
        build(plan, reference, tmp_path)
    with_imatrix = make_plan(reference, random_types(reference), read_imatrix(reference_imatrix))
    changed = tmp_path / "imatrix.gguf"
    changed.write_bytes(reference_imatrix.read_bytes() + b"\0")
    with pytest.raises(ModelMismatch, match="not the imatrix"):
        build(with_imatrix, reference, tmp_path / "out.gguf", imatrix_path=changed)
    with pytest.raises(BadFile, match="--imatrix"):
        build(with_imatrix, reference, tmp_path / "out.gguf", imatrix_path=tmp_path / "gone.gguf")
    with pytest.raises(BadFile, match="cannot write"):
        build(plan, reference, tmp_path / "tied.gguf" / "out.gguf")
    assert left_in(tmp_path) == ["imatrix.gguf", "tied.gguf"]


def test_headers_cannot_be_built(tmp_path):
    from model_shapes import QWEN3_8B

    model = read_model(QWEN3_8B.write(tmp_path / "m.gguf"))
    plan = stock_plan(model, "Q4_K_M")
    check_build(plan, model, tmp_path / "out.gguf")
    with pytest.raises(BadFile, match="without weights"):
        build(plan, model, tmp_path / "out.gguf")


def test_no_room_is_known_before_the_run(reference, plan, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: usage._replace(free=plan.file_bytes))
    with pytest.raises(NoSpace, match="free some"):
        build(plan, reference, tmp_path / "out.gguf")
    assert left_in(tmp_path) == []


def test_a_llama_quantize_that_reads_rules_otherwise_is_found_out_before_the_run(
    reference, plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(preflight, "dry_run_as", lambda *_: plan.types | {"output.weight": BY_NAME["F64"]})
    with pytest.raises(NotAsPlanned, match=r"output\.weight as F64"):
        build(plan, reference, tmp_path / "out.gguf")
    assert left_in(tmp_path) == []


def test_a_file_that_differs_from_its_plan_is_removed(reference, plan, tmp_path):
    (tmp_path / "out.gguf").write_text("older")
    with pytest.raises(NotAsPlanned, match="the plan says"):
        build(replace(plan, file_bytes=plan.file_bytes + 1), reference, tmp_path / "out.gguf")
    assert left_in(tmp_path) == ["out.gguf", "out.tensor-types.txt"]
    assert (tmp_path / "out.gguf").read_text() == "older"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ToolFailed("it broke")])
def test_nothing_half_done_is_left(reference, plan, tmp_path, monkeypatch, error):
    seen = []

    def interrupt(_amount):
        seen.append(left_in(tmp_path))
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        build(plan, reference, tmp_path / "out.gguf", advance=interrupt)
    assert f".out.gguf.{os.getpid()}.part.gguf" in seen[0]
    assert left_in(tmp_path) == ["out.tensor-types.txt"]


def test_a_full_disk_is_called_by_its_name(reference, plan, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)

    def fill(_amount):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: usage._replace(free=0))
        raise ToolFailed("basic_ios::clear: iostream error")

    with pytest.raises(NoSpace, match="iostream"):
        build(plan, reference, tmp_path / "out.gguf", advance=fill)


def test_plans_that_cannot_be(reference, tmp_path):
    types = random_types(reference)
    with pytest.raises(NothingSelected, match=r"blk\.77"):
        make_plan(reference, types | {"blk.77.attn_v.weight": BY_NAME["Q4_K"]})
    odd = read_model(tiny_tied(tmp_path / "odd.gguf"))
    with pytest.raises(BadUsage, match="would store Q5_0"):
        make_plan(odd, random_types(odd) | {"blk.0.ffn_down.weight": BY_NAME["Q4_K"]})
    with pytest.raises(BadUsage, match=r"token_embd\.weight \(IQ2_XXS\).*cannot be made without"):
        make_plan(reference, types | {"token_embd.weight": BY_NAME["IQ2_XXS"]})


def test_imatrix_without_data_for_a_tensor(reference, reference_imatrix):
    imatrix = read_imatrix(reference_imatrix)
    entries = {name: entry for name, entry in imatrix.entries.items() if not re.match(r"blk\.3\.attn_v", name)}
    types = {name: BY_NAME["IQ2_S"] for name in random_types(reference)} | {"token_embd.weight": BY_NAME["Q4_K"]}
    make_plan(reference, types, imatrix)
    with pytest.raises(
        BadUsage,
        match=r"^blk\.3\.attn_v\.weight \(IQ2_S\) cannot be made without imatrix data and .* has no data",
    ):
        make_plan(reference, types, replace(imatrix, entries=entries))


@pytest.mark.parametrize("legacy", [False, True])
def test_sums_of_zero_destroy_no_weights(tmp_path, legacy):
    """llama-quantize takes them for weights and writes zeros: a whole tensor, two experts of eight."""
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    random = np.random.default_rng(0)
    tensors = {t.name: t for t in quantizable(model) if t.block is not None}
    sums = {name: random.lognormal(0, 1, (t.experts, t.columns)).astype(np.float32) for name, t in tensors.items()}
    dense, experts = "blk.1.attn_q.weight", "blk.0.ffn_up_exps.weight"
    sums[dense][:] = 0
    sums[experts][[2, 5]] = 0
    path = tmp_path / "zero.imatrix"
    if legacy:
        path.write_bytes(legacy_imatrix(sums))
    else:
        counts = {name: [10] * len(values) for name, values in sums.items()}
        write_imatrix(imatrix_of(sums, counts), path)
    imatrix = read_imatrix(path)
    plan = make_plan(model, {each.name: BY_NAME["Q2_K"] for each in quantizable(model)}, imatrix)
    assert plan.imatrix.excluded == (dense,)
    built = build(plan, model, tmp_path / "q.gguf", imatrix_path=path, threads=1)
    stock = build_stock_quant(model, "Q2_K", tmp_path / "stock.gguf", path, threads=1)
    for made in (built, stock):
        for name in (dense, experts):
            before, after = tensor_rows(model, model.by_name[name]), tensor_rows(made, made.by_name[name])
            stacks = model.by_name[name].experts
            errors = ((after - before) ** 2).reshape(stacks, -1).sum(1) / (before**2).reshape(stacks, -1).sum(1)
            assert errors.max() < 0.2, name


def legacy_imatrix(sums):
    out = struct.pack("<i", len(sums))
    for name, values in sums.items():
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 10, values.size) + values.tobytes()
    return out + struct.pack("<ii", 10, 8) + b"text.txt"


def test_a_stock_quant_that_needs_an_imatrix_though_its_types_do_not(reference_model, reference_imatrix):
    model = read_model(reference_model)
    with pytest.raises(ImatrixNeeded, match=r"makes no Q2_K_S without imatrix data \(blk\.0\."):
        stock_plan(model, "Q2_K_S")
    assert (
        stock_plan(model, "Q2_K_S", read_imatrix(reference_imatrix)).file_bytes < stock_plan(model, "Q2_K").file_bytes
    )
