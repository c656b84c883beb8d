"""Both engines on the same files: what the tool prints is what is measured in this process.

Tolerances. The base file holds log-probabilities in 16 bits over a range of up to 16 nats, so each is off
by up to 16 / 65535 / 2 = 1.2e-4 at random and clipped at 16 below the largest. PPL of the file itself never
sees the base file: printed to 6 decimals, float32 sums. KLD: rounding errors average out, clipping leaves
out the tail; at Q4_K_M 2e-6 of 8.5e-3 were seen, 5e-5 are allowed. ln(PPL ratio): true tokens less likely
than the clip count as likely as the clip in the base, which raises the ratio of every file alike - by what
the tool says of the base against itself (0.0068 here), so the two differ by just that. Same top: ties that
rounding makes may go either way.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantplan.cache_types import F16_CACHE, parse_kv
from quantplan.errors import ConditionsDiffer, NoSpace
from quantplan.evaluate import measure_with_tool as module
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.measure_with_tool import measure_with_tool
from quantplan.execution import Execution
from quantplan.llamacpp.tools import run
from quantplan.measurement import check_comparable
from quantplan.project import read_text
from quantplan.records.formats import MEASUREMENTS

pytestmark = pytest.mark.llamacpp
PROSE = Path(__file__).resolve().parents[3] / "shared" / "text" / "prose-heldout.txt"
OPTIONS = MeasureOptions(n_ctx=256, chunks=8, execution=Execution(1))


@pytest.fixture(scope="module")
def q4(reference_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("q4") / "q4_k_m.gguf"
    run(["llama-quantize", str(reference_model), str(path), "Q4_K_M", "1"])
    return path


@pytest.fixture(scope="module")
def both(reference_model, q4, calibration_text):
    text = calibration_text.read_text(encoding="utf-8")
    files = [reference_model, q4]
    shares = []
    by_tool = measure_with_tool(reference_model, files, text, OPTIONS, shares.append)
    assert sum(shares) == pytest.approx(1)
    return measure(reference_model, files, text, OPTIONS), by_tool


def test_figures_agree(both):
    (_, own), (self_by_tool, tool) = both
    assert tool.notes == ()
    assert own.ppl.value == pytest.approx(tool.ppl.value, rel=1e-6)
    assert own.ppl.stderr == pytest.approx(tool.ppl.stderr, rel=1e-5)
    bias = self_by_tool.ln_ppl_ratio.value
    assert 0 < bias < 0.02
    assert own.ln_ppl_ratio.value == pytest.approx(tool.ln_ppl_ratio.value - bias, abs=2e-5)
    assert own.kld.value == pytest.approx(tool.kld.value, abs=5e-5)
    assert own.kld.stderr == pytest.approx(tool.kld.stderr, rel=0.02)
    assert own.kld_maximum == pytest.approx(tool.kld_maximum, abs=1e-3)
    assert own.kld_percentiles[99.0] == pytest.approx(tool.kld_percentiles[99.0], abs=2e-4)
    assert own.kld_median == pytest.approx(tool.kld_median, abs=1e-4)
    assert own.delta_p.value == pytest.approx(tool.delta_p.value, abs=2e-3)
    assert own.rms_dp.value == pytest.approx(tool.rms_dp.value, abs=2e-3)
    assert own.rms_dp.stderr == pytest.approx(tool.rms_dp.stderr, abs=2e-3)
    assert own.same_top.value == pytest.approx(tool.same_top.value, abs=0.3)  # 3 of 1016 tokens
    assert (own.bpw, own.file_bytes, own.model_digest) == (tool.bpw, tool.file_bytes, tool.model_digest)


def test_a_quantized_cache(reference_model, q4, calibration_text):
    """The base runs with f16, the file with the types that are asked for; a cache alone costs more than the floor."""
    text = calibration_text.read_text(encoding="utf-8")
    options = replace(OPTIONS, chunks=4, cache_types=parse_kv("q8_0,q5_1"))
    own, tool = (engine(reference_model, [q4], text, options)[0] for engine in (measure, measure_with_tool))
    assert own.kld.value == pytest.approx(tool.kld.value, abs=5e-5)
    assert own.ppl.value == pytest.approx(tool.ppl.value, rel=1e-6)
    assert own.same_top.value == pytest.approx(tool.same_top.value, abs=0.4)
    assert (own.conditions.cache_types, tool.conditions.cache_types) == ("q8_0,q5_1", "q8_0,q5_1")
    coarse = replace(options, cache_types=parse_kv("q4_0"))
    (cache_alone,) = measure(reference_model, [reference_model], text, coarse)
    (f16,) = measure(reference_model, [reference_model], text, replace(options, cache_types=F16_CACHE))
    assert cache_alone.kld.value > 5e-4 and f16.kld.value == 0
    with pytest.raises(ConditionsDiffer, match="cache_types q8_0,q5_1 / q4_0"):
        check_comparable([own, cache_alone])


def test_only_float32_sees_that_a_file_equals_itself(both):
    (own, _), (tool, _) = both
    assert (own.kld.value, own.kld_maximum, own.ln_ppl_ratio.value) == (0, 0, 0)
    assert tool.kld_maximum > 0 and tool.ln_ppl_ratio.value > 0
    assert math.isclose(tool.kld.value, 0, abs_tol=5e-4)  # the floor


def test_figures_of_different_engines_do_not_compare(both):
    with pytest.raises(ConditionsDiffer, match="engine in-process / llama-perplexity"):
        check_comparable([both[0][1], both[1][1]])


def test_the_tools_figures_are_kept_as_they_are(both, tmp_path):
    MEASUREMENTS.write(both[1][1], tmp_path / "a.json")
    assert MEASUREMENTS.read(tmp_path / "a.json") == both[1][1]


def test_a_disk_too_small_for_the_base_file(monkeypatch, reference_model, calibration_text):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(NoSpace, match=r"needs 16.66 MB, .* has 1.00 MB; set TMPDIR"):
        measure_with_tool(reference_model, [reference_model], calibration_text.read_text(), OPTIONS)


def ppl_of_tool(model, text):
    """What llama-perplexity says of the file itself."""
    log = run(["llama-perplexity", "-m", str(model), "-f", str(text), "-c", "128", "--chunks", "8", "-t", "1"]).log
    return float(re.search(r"Final estimate: PPL = ([\d.]+)", log)[1])


def ppl_here(model, text):
    options = MeasureOptions(n_ctx=128, chunks=8, execution=Execution(1))
    return measure(model, [model], read_text(text), options)[0].ppl.value


def test_a_text_is_its_bytes(reference_model, calibration_text, tmp_path):
    """Line ends of Windows, of old Macs and of Unicode, a byte order mark: all are tokens for llama-perplexity."""
    lines = calibration_text.read_bytes()[:20_000].decode(errors="ignore").split("\n")
    ends = ["\r\n", "\n", "\r", "\x0b", "\u2028", "\x85"]
    text = "\ufeff" + "".join(line + ends[number % len(ends)] for number, line in enumerate(lines))
    (tmp_path / "text.txt").write_bytes(text.encode())
    expected = ppl_of_tool(reference_model, tmp_path / "text.txt")
    assert ppl_here(reference_model, tmp_path / "text.txt") == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(not PROSE.is_file(), reason=f"no text at {PROSE}")
@pytest.mark.parametrize("ends, ppl", [(b"\n", 30.22), (b"\r\n", 116.17)])
def test_line_ends_of_windows(reference_model, tmp_path, ends, ppl):
    (tmp_path / "text.txt").write_bytes(PROSE.read_bytes()[:60_000].replace(b"\n", ends))
    assert ppl_here(reference_model, tmp_path / "text.txt") == pytest.approx(ppl, abs=0.005)
