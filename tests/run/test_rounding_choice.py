"""Compensated rounding is kept only where it is significantly better than llama-quantize's, on every text that judges."""

from dataclasses import replace

import numpy as np
import pytest
import record_parts
from tiny_models import tiny_tied

from quantplan.evaluate import baselines
from quantplan.evaluate.baselines import BuildContext
from quantplan.evaluate.measure import MeasureOptions
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import quantizable
from quantplan.planning.request import PlanRequest
from quantplan.quant_type import parse_types
from quantplan.run import run as running
from quantplan.run.refine import Scored
from quantplan.run.rounding_choice import RoundingChoice, choose_rounding
from quantplan.run.run import run
from quantplan.run.targets import RunOptions, RunTarget, Texts
from quantplan.sensitivity.compensated_errors import collect_for_rounding
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.probe import ProbeOptions

ONE = Execution(1)
PLAN = record_parts.PLAN


def pair(ratio, noise=0.001, seed=0):
    """(compensated, stock) on 64 chunks: KLDs near ratio * 0.1 and 0.1."""
    random = np.random.default_rng(seed)
    stock = 0.1 + noise * random.standard_normal(64)
    ours = ratio * stock + noise * random.standard_normal(64)
    return Scored("plan", PLAN, tuple(ours)), Scored("stock", PLAN.with_stock_rounding(), tuple(stock))


def test_better_on_all_texts():
    choice = choose_rounding({"validation text": pair(0.6), "text of another domain": pair(0.8)})
    assert choice.compensated
    assert choice.words.startswith("KLD with compensated rounding over llama-quantize's: 0.6")
    assert "on the validation text, 0.8" in choice.words and choice.words.endswith("on the text of another domain")


@pytest.mark.parametrize("other", [pair(1.2), pair(0.999, noise=0.02)], ids=["worse", "not significant"])
def test_one_text_where_it_is_not_better(other):
    choice = choose_rounding({"validation text": pair(0.6), "text of another domain": other})
    assert not choice.compensated and choice.words.endswith(": llama-quantize's rounding is taken")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the model and the cache, which both runs share."""
    return tmp_path_factory.mktemp("rounding")


@pytest.mark.llamacpp
@pytest.mark.parametrize("kept", [True, False])
def test_a_run_measures_both_roundings_on_both_texts(kept, folder, tmp_path, calibration_text, monkeypatch):
    monkeypatch.setattr(baselines, "published_ftypes", lambda: ("Q3_K_S",))
    judged = []

    def choose(pairs):
        judged.append(pairs)
        return RoundingChoice(kept, "decided")

    monkeypatch.setattr(running, "choose_rounding", choose)
    whole = calibration_text.read_text(encoding="utf-8")
    texts = Texts(whole[:8_000], whole[20_000:26_000], whole[40_000:46_000], whole[60_000:66_000])
    model, probe = read_model(tiny_tied(folder / "tied-f16.gguf")), ProbeOptions(64, 4, extend=False, execution=ONE)
    moments = collect_for_rounding(model, quantizable(model), texts.calibration, probe, folder / "cache")
    write_imatrix(moments.imatrix("text"), folder / "tied.imatrix.gguf")
    imatrix = read_imatrix(folder / "tied.imatrix.gguf")
    types = parse_types("Q3_K,Q5_K,Q5_1,Q8_0")
    options = RunOptions(
        SensitivityOptions(types, probe, 1 << 13, compensate=True),
        MeasureOptions(64, 4, ONE),
        refine_chunks=4,
        refine=False,
    )
    target = RunTarget(PlanRequest(model, imatrix, types, "4bpw"), "tied", tmp_path / "tied.gguf")
    context = BuildContext(
        model, tmp_path / "builds", imatrix.path, 1, calibration=texts.calibration, cache=folder / "cache"
    )
    (result,) = run([target], texts, options, context, folder / "cache")
    ((domain_pair, validation_pair),) = [(p["text of another domain"], p["validation text"]) for p in judged]
    for compensated, stock in (domain_pair, validation_pair):
        assert compensated.plan.compensated and not stock.plan.compensated
        assert compensated.plan.types == stock.plan.types and len(compensated.klds) == len(stock.klds) == 4
    assert domain_pair[0].klds != validation_pair[0].klds and domain_pair[0].klds != domain_pair[1].klds
    plan = result.comparison.rows[0].name
    assert plan.endswith("stock rounding") != kept and "; decided" in result.reason
    if not result.is_stock_quant:
        assert bool(result.plan.compensated) == kept
        assert result.plan == replace(result.plan, rounding=result.plan.rounding if kept else None)
