"""The probe: scales, their errors, and going on after an interruption."""

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from reporters import Recorder

from quantplan.errors import BadUsage, QuantplanError, TextTooShort
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.gguf.writer import write_header_only
from quantplan.llamacpp import quantize
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.llamacpp.quantize import Recipe
from quantplan.progress import SILENT
from quantplan.quant_type import BY_NAME
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import Journal
from quantplan.sensitivity import probe as probing
from quantplan.sensitivity import tensor_swap as probers
from quantplan.sensitivity.probe import bootstrap_error, probe
from quantplan.sensitivity.probe_text import chunk_order
from quantplan.sensitivity.probe_types import probe_type
from quantplan.sensitivity.tensor_swap import (
    ProbeOptions,
    Survey,
    Swapped,
    TensorSwapper,
    affordable,
    relative_error,
)
from quantplan.tensor import Tensor

ROOT = Path(__file__).parents[2]
FEW = ("blk.0.attn_v.weight", "blk.0.ffn_down.weight", "blk.1.attn_output.weight", "token_embd.weight")


def few(case):
    return tuple(case.model.by_name[name] for name in FEW)


def run(case, folder, tensors=None, **options):
    """A probe of the few tensors (or those given) with the journal in ``folder``."""
    wanted = replace(case.options, **options)
    return probe(case.model, tensors or few(case), case.imatrix, case.text, wanted, Cache(Plain(), folder, "probe"))


@pytest.fixture(scope="module")
def whole(case, tmp_path_factory):
    """An uninterrupted probe with extension, in the default number of windows, and its journal's folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(case, folder, chunks=0, extend=True), folder


# -- which windows


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 100])
def test_chunk_order_is_a_permutation(count):
    assert sorted(chunk_order(count)) == list(range(count))


def test_every_beginning_is_spread_over_the_text():
    order = chunk_order(64)
    for size in (2, 4, 8, 16, 32):
        assert sorted(order[:size] * size // 64) == list(range(size))
    assert set(chunk_order(100)[:10] // 25) == {0, 1, 2, 3}


def test_chunks_are_those_asked_for_or_whole_batches_as_far_as_the_text_goes():
    assert ProbeOptions(128, 8).base_chunks(1000) == 8
    assert ProbeOptions(128, 1).base_chunks(1000) == 2
    assert ProbeOptions(128).base_chunks(1000) == 16
    assert ProbeOptions(512).base_chunks(1000) == 4
    assert ProbeOptions(4096).base_chunks(1000) == 4
    assert ProbeOptions(128, 40).base_chunks(1000) == 40
    assert ProbeOptions(128, 40).base_chunks(21) == 21


def test_bootstrap_error_is_that_of_the_mean():
    values = np.random.default_rng(0).lognormal(0, 0.5, 40)
    assert bootstrap_error(values) == pytest.approx(values.std(ddof=1) / math.sqrt(40), rel=0.1)
    assert bootstrap_error(values) == bootstrap_error(values)
    assert math.isnan(bootstrap_error(values[:1]))


# -- the error of what is swapped in


def test_relative_error_of_experts():
    random = np.random.default_rng(0)
    weights, changed = random.standard_normal((2, 6, 32)).astype(np.float32)
    importance = random.lognormal(0, 1, (3, 32)).astype(np.float32)
    per_row = np.repeat(importance, 2, axis=0)
    expected = (per_row * (weights - changed) ** 2).sum() / (per_row * weights**2).sum()
    assert relative_error(weights, changed, importance) == pytest.approx(expected, rel=1e-5)
    assert relative_error(weights, weights, importance) == 0
    expected = ((weights - changed) ** 2).sum() / (weights**2).sum()
    assert relative_error(weights, changed, None) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "stored, columns, kind",
    [
        ("F16", 256, "Q4_K"),
        ("F16", 288, "Q5_0"),
        ("Q5_K", 256, "Q4_K"),
        ("Q4_K", 256, "Q3_K"),
        ("Q3_K", 256, "Q2_K"),
    ],
)
def test_probe_type_is_below_the_stored_one(stored, columns, kind):
    assert probe_type(BY_NAME[stored], columns).name == kind


# -- scales


@pytest.mark.llamacpp
def test_one_scale_prices_every_type(reference_model, reference_imatrix, calibration_text):
    """On the trained model: KLD / error of a tensor is the same from Q3_K and Q5_K, errors 15 times apart."""
    model, imatrix = read_model(reference_model), read_imatrix(reference_imatrix)
    text = calibration_text.read_text(encoding="utf-8")[:4000]
    with TensorSwapper(model, imatrix, text, ProbeOptions(n_ctx=128, execution=Execution(1))) as swapper:
        count = min(16, len(swapper.chunks))
        names = ("blk.5.ffn_down.weight", "blk.0.attn_v.weight", "output.weight")
        tensors = [model.by_name[name] for name in names]
        assert swapper.find(tensors) == set(names)
        swapper.take_base(count)
        for tensor in tensors:
            scales, spread = {}, {}
            for kind in ("Q3_K", "Q5_K"):
                error = swapper.swap(tensor, BY_NAME[kind])
                klds = swapper.chunk_klds(0, count)
                scales[kind], spread[kind] = klds.mean() / error, bootstrap_error(klds) / error
            swapper.restore(tensor)
            assert abs(scales["Q3_K"] - scales["Q5_K"]) < 3 * math.hypot(*spread.values()), tensor.name
            assert 0.67 < scales["Q3_K"] / scales["Q5_K"] < 1.5, tensor.name


def test_scales_are_klds_over_errors(case, whole):
    found, folder = whole
    results = Journal(folder, "probe").results
    assert list(found.scales) == list(FEW) and found.not_found == ()
    for name, scale in found.scales.items():
        klds = results[name]["klds"]
        assert scale.kld == pytest.approx(np.mean(klds)) and scale.chunks == len(klds) >= 16
        assert scale.value == pytest.approx((np.mean(klds) - found.floor) / results[name]["error"])
        assert scale.stderr == pytest.approx(
            np.std(klds, ddof=1) / math.sqrt(len(klds)) / results[name]["error"], rel=0.2
        )
        assert 0 < scale.stderr < 0.5 * scale.value
    assert 0 <= found.floor < 0.01 * min(scale.kld for scale in found.scales.values())


def test_the_error_is_that_of_the_type_with_the_imatrix(case, whole):
    found, _ = whole
    from quantplan.llamacpp import ggml

    tensor, kind = case.model.by_name["blk.0.attn_v.weight"], BY_NAME["Q4_K"]
    weights, importance = tensor_rows(case.model, tensor), case.imatrix.quantize_weights(tensor)
    rounded = ggml.dequantize(ggml.quantize(weights, kind, importance), kind, 256)
    assert found.scales[tensor.name].error == pytest.approx(relative_error(weights, rounded, importance), rel=1e-3)
    assert found.scales[tensor.name].error != pytest.approx(relative_error(weights, rounded, None), rel=0.01)


def test_uniform_swaps_show_how_damages_add_up(whole):
    found, _ = whole
    klds = {name: np.mean(entry["klds"]) for name, entry in found.uniform.items()}
    assert klds["Q2_K"] > klds["Q3_K"] > klds["Q4_K"] > 0
    for entry in found.uniform.values():
        sum_of_singles = sum(found.scales[name].value * error for name, error in entry["errors"].items())
        assert 0.5 < np.mean(entry["klds"]) / sum_of_singles < 2


def test_more_chunks_shrink_the_error(case, tmp_path, calibration_text):
    longer = replace(case, text=calibration_text.read_text(encoding="utf-8")[:40_000])
    tensor = few(case)[:1]
    errors = []
    for chunks in (16, 64):
        scale = run(longer, tmp_path, tensor, chunks=chunks).scales[tensor[0].name]
        assert scale.chunks == chunks
        errors.append(scale.stderr)
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize(("short", "kept"), [(16, 16), (3, 0)])
def test_more_chunks_only_add_to_those_there(case, tmp_path, whole, short, kept):
    """The journal of a short probe serves the longer one, in whole batches: both end with the same values."""
    run(case, tmp_path / "a", chunks=short)
    before = Journal(tmp_path / "a", "probe").results
    assert all(len(before[name]["klds"]) == short for name in FEW)
    run(case, tmp_path / "a", chunks=18)
    run(case, tmp_path / "b", chunks=18)
    after, undisturbed = (Journal(tmp_path / which, "probe").results for which in "ab")
    for name in FEW:
        assert after[name]["klds"][:kept] == before[name]["klds"][:kept]
        assert after[name]["klds"] == undisturbed[name]["klds"] and len(after[name]["klds"]) == 18


@pytest.mark.llamacpp
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_a_quantized_base(case, whole, tmp_path, kind):
    """Against its own logits a quantized model has about the scales of the original."""
    path = tmp_path / "base.gguf"
    quantize.quantize(case.model.path, Recipe(kind, pure=True), path, threads=1)
    model = read_model(path)
    names = FEW[:1] + FEW[2:]  # rows of 288 fall back and are not stored as this type
    found = run(replace(case, model=model), tmp_path, tuple(model.by_name[name] for name in names))
    for name in names:
        assert 0.6 < found.scales[name].value / whole[0].scales[name].value < 1.7, name


def test_without_imatrix(case, whole, tmp_path):
    found = run(replace(case, imatrix=None), tmp_path)
    for name, scale in found.scales.items():
        assert 0.6 < scale.value / whole[0].scales[name].value < 1.7


def test_a_tensor_that_takes_no_part(case, tmp_path):
    extra = Tensor("blk.0.unused.weight", (256, 256), BY_NAME["F16"])
    found = run(case, tmp_path, (*few(case)[:1], extra))
    assert found.not_found == ("blk.0.unused.weight",)
    assert set(found.scales) == {FEW[0]}


# -- going on


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("passes", [2, 4, 8])
def test_an_interrupted_probe_goes_on_to_the_same_result(case, whole, tmp_path, monkeypatch, passes):
    """Stopped in the middle of a swap: among the tensors, in the floor, in the uniform swaps."""
    straight, _ = whole
    honest, left = TensorSwapper.chunk_klds, passes

    def failing(self, start, stop):
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted
        return honest(self, start, stop)

    monkeypatch.setattr(TensorSwapper, "chunk_klds", failing)
    with pytest.raises(Interrupted):
        run(case, tmp_path, chunks=0, extend=True)
    monkeypatch.setattr(TensorSwapper, "chunk_klds", honest)
    resumed = run(case, tmp_path, chunks=0, extend=True)
    assert resumed.scales == straight.scales
    assert (resumed.floor, resumed.uniform) == (straight.floor, straight.uniform)
    assert resumed.forward_passes < straight.forward_passes


def test_who_gets_more_chunks_is_decided_by_the_first_ones(tmp_path, monkeypatch):
    """Else an interruption between two extensions would change the choice: ``a`` has its own already."""
    random = np.random.default_rng(0)
    tensors = [Tensor(name, (256, 4), BY_NAME["F16"]) for name in "abcd"]
    first = {
        t.name: (1 + spread * random.standard_normal(4)).tolist()
        for t, spread in zip(tensors, (0.6, 0.4, 0.01, 0.01), strict=True)
    }

    def chosen(already):
        journal = Cache(Plain(), tmp_path, already or "none")
        for name, klds in first.items():
            journal.put(name, {"error": 0.1, "klds": klds + ([1.0] * 12 if name in already else [])})
        asked = []

        def swapped(swaps):
            for swap in swaps:
                asked.append((swap.key, swap.start, swap.stop))
                yield swap, Swapped(dict.fromkeys(swap.tensors, 0.1), [1.0] * (swap.stop - swap.start), 0, 0, 1)

        stages = probing.ProbeStages(
            SimpleNamespace(run=swapped), tensors, ProbeOptions(512), journal, SILENT, probing.Probe()
        )
        stages.first, stages.names, stages.survey = 4, list("abcd"), Survey(frozenset("abcd"), 100, 256)
        stages.extend()
        assert journal["#extended"] == 16
        assert [len(journal[name]["klds"]) for name in "abcd"] == [16, 16, 4, 4]
        return asked

    assert chosen("") == [("a", 4, 16), ("b", 4, 16)]
    assert chosen("a") == [("b", 4, 16)] and chosen("ab") == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_after_kill_9_the_journal_goes_on(case, whole, tmp_path):
    code = (
        "import os, pickle, signal, sys; from pathlib import Path; from quantplan.records.cache import Cache, Plain\n"
        "from quantplan.sensitivity.probe import probe\nfrom quantplan.sensitivity.tensor_swap import TensorSwapper\n"
        "swap, swaps = TensorSwapper.swap, []\n"
        "def killed(*arguments):\n"
        "    swaps.append(swap(*arguments))\n"
        "    return swaps[-1] if len(swaps) < 3 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "TensorSwapper.swap = killed\n"
        "model, tensors, imatrix, text, options = pickle.loads(sys.stdin.buffer.read())\n"
        f"probe(model, tensors, imatrix, text, options, Cache(Plain(), Path({str(tmp_path)!r}), 'probe'))\n"
    )
    import pickle

    options = replace(case.options, chunks=0, extend=True)
    given = pickle.dumps((case.model, few(case), case.imatrix, case.text, options))
    process = subprocess.run([sys.executable, "-c", code], input=given, cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    kept = Journal(tmp_path, "probe").results
    assert {name for name in kept if not name.startswith("#")} == set(FEW[:2])
    assert run(case, tmp_path, chunks=0, extend=True).scales == whole[0].scales


def test_a_second_probe_runs_nothing(case, whole, monkeypatch):
    found, folder = whole

    def none(*_arguments):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(probers, "Engine", none)
    report = Recorder()
    options = replace(case.options, chunks=0, extend=True)
    again = probe(
        case.model,
        few(case),
        case.imatrix,
        case.text,
        options,
        Cache(Plain(), folder, "probe"),
        report,
    )
    assert (again.scales, again.floor, again.uniform) == (found.scales, found.floor, found.uniform)
    assert (again.forward_passes, again.overhead) == (0, None)
    assert report.events == []


# -- errors


def test_text_too_short(case, tmp_path):
    with pytest.raises(TextTooShort, match="at least 256 are needed"):
        run(replace(case, text="a few words"), tmp_path)


def test_a_header_without_weights(case, tmp_path):
    path = write_header_only(tmp_path / "h.gguf", "llama", {}, [("blk.0.attn_q.weight", (4096, 65536), BY_NAME["F16"])])
    model = read_model(path)
    with pytest.raises(BadUsage, match="a header without weights"):
        run(replace(case, model=model), tmp_path, model.tensors)


def test_a_model_that_gives_no_numbers(case, tmp_path):
    data = bytearray(case.model.path.read_bytes())
    tensor = case.model.by_name["blk.1.attn_output.weight"]
    data[tensor.offset : tensor.offset + 2] = np.float16("nan").tobytes()
    (tmp_path / "nan.gguf").write_bytes(data)
    with pytest.raises(QuantplanError, match="nan.gguf: the model gives NaN or infinite logits; is the file corrupt"):
        run(replace(case, model=read_model(tmp_path / "nan.gguf")), tmp_path)


def test_divergence_from_nan_is_no_zero():
    from quantplan.llamacpp.token_scores import base_rows, divergence

    rows = np.zeros((2, 64), np.float32)
    rows[1, 5] = np.nan
    assert np.isnan(divergence(base_rows(rows), rows)).tolist() == [False, True]


def test_a_swap_below_the_noise_costs_the_noise_and_is_unsure():
    """Not seen is not free: nobody may plan with a damage of 0 and an error of 0."""
    scale = probing.scale_of("t", {"klds": [1.1e-7, 0.9e-7, 1.0e-7, 1.0e-7], "error": 0.01}, floor=2e-7)
    assert scale.value == pytest.approx(2e-5)
    assert scale.stderr >= scale.value
    seen = probing.scale_of("t", {"klds": [1.1e-5, 0.9e-5, 1.0e-5, 1.0e-5], "error": 0.01}, floor=2e-7)
    assert seen.value == pytest.approx((1e-5 - 2e-7) / 0.01)
    assert 0 < seen.stderr < 0.1 * seen.value


def test_chunks_end_where_text_or_memory_does(case, monkeypatch):
    survey, batch, options = Survey(frozenset(), 21, 1000), chunks_per_batch(case.options.n_ctx), case.options
    assert affordable(10**6, options, survey) == 21
    assert affordable(batch, options, survey) == batch < 21
    monkeypatch.setattr(probers, "LOGIT_BYTES", 4 * (options.n_ctx // 2) * 1000 * 3 * batch // 2)
    assert affordable(10**6, options, survey) == batch
