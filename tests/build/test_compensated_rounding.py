"""Compensated rounding of built files: the same types and bytes, less output error, resumed, and refused where it must be."""

from dataclasses import replace

import numpy as np
import pytest
from reporters import Recorder
from tiny_architectures import tiny_hybrid
from tiny_models import tiny_moe, tiny_tied

from quantplan.build import compensated_rounding as module
from quantplan.build.build import build, build_stock_quant
from quantplan.build.compensated_rounding import Compensation, compensable, compensate_file, rounding_use
from quantplan.build.requantize import requantization
from quantplan.errors import BadUsage, ModelMismatch, NoSpace
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model, tensor_bytes
from quantplan.gguf.sized_plan import make_plan
from quantplan.llamacpp.ggml import dequantize
from quantplan.llamacpp.quantize import quantizable
from quantplan.llamacpp.tools import run
from quantplan.plan import RoundingUse
from quantplan.quant_type import fitted, quant_type
from quantplan.recipes.quantize_command import plan_rules
from quantplan.records.journal import text_digest
from quantplan.rounding.compensate import RoundingOptions
from quantplan.sensitivity.second_moments import MomentOptions, collect
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.text_parts import probing_and_refinement

pytestmark = pytest.mark.llamacpp
ONE = Execution(threads=1)
MOMENTS = MomentOptions(n_ctx=64, chunks=24, execution=ONE)


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:12_000]


@pytest.fixture(scope="module", params=[tiny_tied, tiny_moe], ids=["tied", "experts"])
def case(request, tmp_path_factory, text):
    """A model, its second moments, an imatrix of the same pass, and a plan of Q4_K (or what fits) with compensation."""
    folder = tmp_path_factory.mktemp("compensated")
    model = read_model(request.param(folder / "model.gguf"))
    moments = collect(model, quantizable(model), text, MOMENTS, folder / "cache")
    path = folder / "model.imatrix.gguf"
    write_imatrix(moments.imatrix("text"), path)
    plan = make_plan(model, _types(model), read_imatrix(path))
    names = [tensor.name for tensor in compensable(plan.types, model, moments)]
    plan = plan.with_compensation(names, rounding_use(moments.made_from))
    return model, plan, path, Compensation(moments, folder / "cache", RoundingOptions(threads=1))


def _types(model):
    kinds = ("Q4_K", "Q3_K", "IQ4_XS")
    tensors = quantizable(model)
    return {t.name: fitted(quant_type(kinds[index % 3]), t.columns) for index, t in enumerate(tensors)}


@pytest.fixture(scope="module")
def files(case, tmp_path_factory):
    """The plan built without and with compensation."""
    model, plan, path, compensation = case
    folder = tmp_path_factory.mktemp("built")
    stock = build(plan.with_stock_rounding(), model, folder / "stock.gguf", imatrix_path=path, threads=1)
    ours = build(plan, model, folder / "ours.gguf", imatrix_path=path, threads=1, compensation=compensation)
    return stock, ours


def test_types_and_sizes_stay_and_all_other_bytes_are_llama_quantizes(case, files):
    _, plan, _, _ = case
    stock, ours = files
    assert plan.compensated and ours.file_bytes == stock.file_bytes == plan.file_bytes
    left, right = (np.fromfile(built.path, np.uint8) for built in files)
    for tensor in stock.tensors:
        place = slice(tensor.offset, tensor.offset + tensor.bytes)
        assert ours.by_name[tensor.name].type == tensor.type
        if tensor.name in plan.compensated:
            assert not np.array_equal(left[place], right[place]), tensor.name
            left[place] = right[place] = 0
    assert np.array_equal(left, right)


def test_no_tensor_is_worse_than_ggmls_encoding_and_most_are_better(case, files, tmp_path):
    model, plan, _, compensation = case
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(files[0].path.read_bytes())
    tensors = compensable({name: plan.types[name] for name in plan.compensated}, model, compensation.moments)
    results = compensate_file(copy, model, replace(compensation, cache=tmp_path), tensors)
    assert [result.tensor for result in results] == [tensor.name for tensor in tensors]
    assert all(result.error <= result.stock_error for result in results)
    assert np.mean([result.error / result.stock_error for result in results]) < 0.95
    assert copy.read_bytes() == files[1].path.read_bytes(), "the same inputs give the same bytes"


def test_the_number_of_threads_changes_no_byte(case, files, tmp_path):
    model, plan, path, compensation = case
    other = Compensation(compensation.moments, tmp_path, RoundingOptions(threads=2))
    built = build(plan, model, tmp_path / "two.gguf", imatrix_path=path, threads=2, compensation=other)
    assert built.path.read_bytes() == files[1].path.read_bytes()


def test_encoded_tensors_are_kept_when_a_build_is_interrupted(case, files, tmp_path, monkeypatch):
    model, plan, path, compensation = case
    encode, done, encoded = module.compensate, [], []
    monkeypatch.setattr(module, "compensate", lambda *arguments: encoded.append(1) or encode(*arguments))
    build(
        plan,
        model,
        tmp_path / "whole.gguf",
        imatrix_path=path,
        threads=1,
        compensation=replace(compensation, cache=tmp_path / "whole"),
    )

    def interrupted(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return encode(*arguments)

    mine = replace(compensation, cache=tmp_path / "cache")
    monkeypatch.setattr(module, "compensate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(plan, model, tmp_path / "out.gguf", imatrix_path=path, threads=1, compensation=mine)
    assert [file.name for file in tmp_path.glob("*gguf")] == ["whole.gguf"]
    again = []
    monkeypatch.setattr(module, "compensate", lambda *arguments: again.append(1) or encode(*arguments))
    build(plan, model, tmp_path / "out.gguf", imatrix_path=path, threads=1, compensation=mine)
    assert (tmp_path / "out.gguf").read_bytes() == files[1].path.read_bytes()
    kept = next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert len(again) < len(encoded) and len(list(kept.iterdir())) == len(plan.compensated)


def test_an_altered_block_in_the_cache_is_encoded_again(case, files, tmp_path):
    model, plan, path, compensation = case
    mine = replace(compensation, cache=tmp_path / "cache")
    build(plan, model, tmp_path / "one.gguf", imatrix_path=path, threads=1, compensation=mine)
    kept = next((tmp_path / "cache").rglob("*.blocks"))
    kept.write_bytes(bytes(kept.stat().st_size))
    build(plan, model, tmp_path / "two.gguf", imatrix_path=path, threads=1, compensation=mine)
    assert (tmp_path / "two.gguf").read_bytes() == files[1].path.read_bytes()


def test_a_plan_with_compensation_needs_its_second_moments(case, text, tmp_path):
    model, plan, path, compensation = case
    with pytest.raises(BadUsage, match="--calibration TEXT, or --rounding stock"):
        build(plan, model, tmp_path / "out.gguf", imatrix_path=path)
    other = collect(model, quantizable(model), text[:9000], MOMENTS, tmp_path)
    with pytest.raises(ModelMismatch, match="another calibration text"):
        build(plan, model, tmp_path / "out.gguf", imatrix_path=path, compensation=Compensation(other, tmp_path))
    assert not list(tmp_path.glob("*.gguf"))


def test_the_cache_needs_room_for_encoded_tensors(case, tmp_path, monkeypatch):
    model, plan, _, compensation = case
    tensors = compensable({name: plan.types[name] for name in plan.compensated}, model, compensation.moments)
    needed = plan.file_bytes + sum(tensor.bytes_as(plan.types[tensor.name]) for tensor in tensors)
    usage = module.shutil.disk_usage(tmp_path)
    for free in (needed, needed - 1):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _path, free=free: usage._replace(free=free))
        if free == needed:
            module.check_cache_space(compensation, tensors, plan, tmp_path / "out.gguf")
    with pytest.raises(NoSpace, match=f"needs {needed:,} bytes on the disk of .*cache.*QUANTPLAN_CACHE"):
        module.check_cache_space(compensation, tensors, plan, tmp_path / "out.gguf")


def test_stacked_tensors_are_not_taken_from_a_build_with_another_imatrix(case, files, tmp_path):
    """Experts that saw too little text keep llama-quantize's blocks, which depend on it."""
    model, plan, path, compensation = case
    tensors = [tensor for tensor in compensable(plan.types, model, compensation.moments) if len(tensor.shape) > 2]
    if not tensors:
        pytest.skip("a dense model")
    other = write_other_imatrix(read_imatrix(path), tmp_path / "other.imatrix.gguf")
    again = make_plan(model, _types(model), other)
    built = {"one": files[0], "two": build(again, model, tmp_path / "stock.gguf", imatrix_path=other.path, threads=1)}
    copies = {name: tmp_path / f"{name}.gguf" for name in ("one", "two", "fresh")}
    for name, copy in copies.items():
        copy.write_bytes(built.get(name, built["two"]).path.read_bytes())
        mine = replace(compensation, cache=tmp_path / ("fresh" if name == "fresh" else "cache"))
        compensate_file(copy, model, mine, tensors[:1])
    assert copies["two"].read_bytes() == copies["fresh"].read_bytes()


def write_other_imatrix(imatrix, path):
    """The same entries with other values."""
    random = np.random.default_rng(0)
    entries = {
        name: replace(entry, sum2=entry.sum2 * random.lognormal(0, 2, entry.sum2.shape).astype(np.float32))
        for name, entry in imatrix.entries.items()
    }
    write_imatrix(replace(imatrix, entries=entries), path)
    return read_imatrix(path)


def test_stock_rounding_is_llama_quantize_s_file_byte_for_byte(case, files, tmp_path):
    """The same command line, run by hand."""
    model, plan, path, _ = case
    rules = tmp_path / "rules.txt"
    rules.write_text("".join(f"{rule}\n" for rule in plan_rules(plan)))
    out = tmp_path / "by-hand.gguf"
    words = [
        "llama-quantize",
        "--imatrix",
        path.name,
        "--tensor-type-file",
        rules,
        model.path,
        out,
        plan.base_ftype,
        "1",
    ]
    run([str(word) for word in words], cwd=path.parent)
    assert out.read_bytes() == files[0].path.read_bytes()


def test_a_stock_quant_is_llama_quantize_s_file_byte_for_byte(case, tmp_path):
    model, _, path, _ = case
    built = build_stock_quant(model, "Q4_K_M", tmp_path / "ours.gguf", path, threads=1)
    out = tmp_path / "by-hand.gguf"
    run(["llama-quantize", "--imatrix", path.name, str(model.path), str(out), "Q4_K_M", "2"], cwd=path.parent)
    assert out.read_bytes() == built.path.read_bytes()


def changed(model, path, name, change):
    """A copy of the model file, the weights (or norms) of one tensor changed in place."""
    data, tensor = np.fromfile(model.path, np.uint8), model.by_name[name]
    values = data[tensor.offset : tensor.offset + tensor.bytes].view(
        np.float16 if tensor.type.name == "F16" else np.float32
    )
    change(values)
    data.tofile(path)
    return read_model(path)


def test_zero_matrices_and_zero_activations(text, tmp_path):
    """A matrix of zeros stays one; columns that no token uses are named, and the file is built."""
    model = read_model(tiny_tied(tmp_path / "model.gguf"))
    model = changed(model, tmp_path / "one.gguf", "blk.0.attn_q.weight", lambda values: values.fill(0))
    zero_input = lambda norm: norm.__setitem__(7, 0)  # noqa: E731
    model = changed(model, tmp_path / "two.gguf", "blk.1.attn_norm.weight", zero_input)
    run(["llama-quantize", str(model.path), str(tmp_path / "q.gguf"), "Q4_K_M"])
    report = Recorder()
    work = requantization(tmp_path / "q.gguf", model, text, ProbeOptions(64, execution=ONE), tmp_path, report)
    built = work.build(model, tmp_path / "out.gguf", threads=1)
    assert "blk.0.attn_q.weight" in work.plan.compensated
    assert not tensor_values(built, "blk.0.attn_q.weight").any()
    assert np.isfinite(tensor_values(built, "blk.1.attn_q.weight")).all()
    (note,) = [line for line in report.said if "zero at every token" in line]
    assert note.startswith(
        "1 matrix inputs have columns that are zero at every token, first blk.1.attn_q.weight (1 of 256)"
    )


def tensor_values(model, name):
    tensor = model.by_name[name]
    return dequantize(np.array(tensor_bytes(model, tensor)), tensor.type, tensor.columns)


def test_the_text_of_a_plan_is_given_whole_or_as_run_takes_it(text):
    part = probing_and_refinement(text)[0]
    for given in (part, text):
        assert module.calibration_of(RoundingUse(text_digest(part), 64, 24), given) == part
    assert module.calibration_of(RoundingUse(text_digest(text), 64, 24), text) == text
    assert module.calibration_of(RoundingUse(text_digest(text), 64, 24), part) is None


def test_any_quant_is_built_again_with_its_own_types(case, files, text, tmp_path):
    model, plan, _, _ = case
    work = requantization(files[0].path, model, text, ProbeOptions(64, execution=ONE), tmp_path)
    built = work.build(model, tmp_path / "again.gguf", threads=1)
    assert {t.name: t.type for t in built.tensors} == {t.name: t.type for t in files[0].tensors}
    assert work.plan.compensated == plan.compensated
    name = plan.compensated[0]
    assert not np.array_equal(tensor_bytes(built, built.by_name[name]), tensor_bytes(files[0], files[0].by_name[name]))


def test_a_file_without_anything_to_compensate_is_refused(case, text, tmp_path):
    model, *_ = case
    with pytest.raises(BadUsage, match="no tensor of it can be compensated"):
        requantization(model.path, model, text, ProbeOptions(64, execution=ONE), tmp_path)


@pytest.mark.parametrize("make", [tiny_moe, tiny_hybrid], ids=["experts", "hybrid"])
def test_on_other_text_a_compensated_file_loses_less(make, calibration_text, tmp_path):
    """Experts that see few tokens, and blocks with a state: never worse than ggml's own rounding of the same types."""
    model, whole = read_model(make(tmp_path / "model.gguf")), calibration_text.read_text(encoding="utf-8")
    options = MomentOptions(n_ctx=64, execution=ONE)
    moments = collect(model, quantizable(model), whole[:60_000], options, tmp_path / "cache")
    types = {tensor.name: fitted(quant_type("Q3_K"), tensor.columns) for tensor in quantizable(model)}
    plan = make_plan(model, types)
    names = [tensor.name for tensor in compensable(plan.types, model, moments)]
    plan = plan.with_compensation(names, rounding_use(moments.made_from))
    compensation = Compensation(moments, tmp_path / "cache", RoundingOptions(threads=1))
    build(plan.with_stock_rounding(), model, tmp_path / "stock.gguf", threads=1)
    build(plan, model, tmp_path / "ours.gguf", threads=1, compensation=compensation)
    files, judging = [tmp_path / "ours.gguf", tmp_path / "stock.gguf"], MeasureOptions(64, 48, ONE)
    ours, stock = measure(model.path, files, whole[200_000:240_000], judging)
    assert ours.file_bytes == stock.file_bytes
    assert 0 < ours.kld.value < stock.kld.value, (ours.kld, stock.kld)
