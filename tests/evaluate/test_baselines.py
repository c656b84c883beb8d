"""The files of a comparison, by what the command line names them with."""

from dataclasses import replace

import pytest
from card_parts import MODEL, plan_of

from quantplan.errors import BadFile, BadUsage, ModelMismatch
from quantplan.evaluate import baselines
from quantplan.evaluate.baselines import BuildContext, baseline, file_size
from quantplan.records.formats import PLANS


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "tools_build", lambda: "1")
    return BuildContext(MODEL, tmp_path / "builds")


def test_several_plans_are_built_and_compared(context, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(baselines, "build", lambda plan, source, out, **options: built.append((plan, out)))
    plans = {"first": plan_of(), "second": plan_of("Q5_K")}
    for name, plan in plans.items():
        PLANS.write(plan, tmp_path / f"{name}.json")
    entries = [baseline(str(tmp_path / f"{name}.json"), context) for name in plans]
    assert [entry.name for entry in entries] == list(plans)
    assert [plan for plan, _ in built] == list(plans.values()) and built[0][1] != built[1][1]
    assert [out for _, out in built] == [entry.file for entry in entries]


def test_a_plan_of_another_model_is_refused(context, tmp_path):
    PLANS.write(replace(plan_of(), model_digest="0" * 64), tmp_path / "other.json")
    with pytest.raises(ModelMismatch):
        baseline(str(tmp_path / "other.json"), context)


def test_a_file_that_does_not_exist(context):
    with pytest.raises(BadFile, match=r"gone.gguf: no such file; build it .* or the name of a stock quant"):
        baseline("gone.gguf", context)


def test_sizes_are_known_without_building(tmp_path):
    plan = plan_of()
    PLANS.write(plan, tmp_path / "plan.json")
    assert file_size(str(tmp_path / "plan.json"), None) == ("plan.json", plan.file_bytes)
    with pytest.raises(BadUsage, match="records do not hold sizes of stock quants"):
        file_size("Q4_K_M", None)
