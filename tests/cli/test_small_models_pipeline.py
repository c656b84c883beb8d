"""A model with experts and one with tied embeddings, both small but real, through the whole pipeline as typed."""

import json
import re

import pytest
from tiny_models import EXPERTS, UNREACHABLE, tiny_moe, tiny_tied

from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES

pytestmark = pytest.mark.llamacpp
ONE = ("--threads", "1")


@pytest.fixture
def step(command):
    """A command that must end well; its Ended."""

    def run(*words):
        done = command(*words)
        assert done.code == 0, done.err
        return done

    return run


@pytest.fixture
def project(step, workplace, small_text, monkeypatch):
    """A project of a model that lies in ``workplace``; the working folder is the project's from then on."""

    def make(model):
        step("init", model, "--folder", "p", "--calibration", small_text, "--text", small_text, "--ctx", "128")
        monkeypatch.chdir(workplace / "p")
        return workplace / "p"

    return make


def built_as_planned(step, folder, budget, *constraints):
    """imatrix to measure; the source, the plan and the built model."""
    step("probe", "--chunks", "2", "--types", "Q2_K,Q4_K,Q8_0,IQ4_NL", "--out", "damage.json", *ONE)
    step(
        "solve",
        "--budget",
        budget,
        "--sensitivity",
        "damage.json",
        "--types",
        "Q2_K,Q4_K,Q8_0,IQ4_NL",
        "--out",
        "plan.json",
        *constraints,
    )
    plan = PLANS.read(folder / "plan.json")
    step("quantize", "plan.json", "--out", "out.gguf", *ONE)
    built = read_model(folder / "out.gguf")
    assert built.file_bytes == plan.file_bytes == (folder / "out.gguf").stat().st_size <= plan.budget_bytes
    assert {each.name: each.type for each in built.tensors} == plan.types
    (measured,) = json.loads(step("measure", "out.gguf", "--chunks", "4", "--json", *ONE).out)
    assert 0 < measured["kld"] < 1 and 0 < plan.predicted_kld < 1
    return plan, built


def test_experts(step, project, workplace):
    model = tiny_moe(workplace / "moe.gguf")
    folder = project(model)
    step("imatrix", "--chunks", "8", *ONE)
    (path,) = (folder / "imatrix").glob("*.gguf")
    hits = {name: entry.counts for name, entry in read_imatrix(path).entries.items() if "_exps" in name}
    assert len(hits) == 9 and all(len(each) == EXPERTS for each in hits.values())
    unreached = {name for name, counts in hits.items() if counts[UNREACHABLE] == 0}
    assert unreached == {f"blk.2.ffn_{role}_exps.weight" for role in ("gate", "up", "down")}

    told = step("analyze", "--experts")
    assert "3 of 9 expert tensors have experts that no token reached" in told.err
    assert re.search(rf"blk\.2\.ffn_up_exps\.weight *│ *{EXPERTS} *│ *1 *│ *{UNREACHABLE} *│", told.out)
    assert "3 of 9 expert tensors have experts that no token reached" in step("probe", "--dry-run").err

    plan, built = built_as_planned(step, folder, "5bpw", "--min-type", "ffn_down_exps=Q3_K")
    table = SENSITIVITY_TABLES.read(folder / "damage.json")
    assert {name for name in hits} < {tensor.name for tensor in built.tensors} & table.rows.keys()
    assert all(table.rows[name].source == "probed" for name in hits)
    assert all(plan.types[name].bits > 3 for name in hits if "down" in name)
    assert built.by_name["blk.0.ffn_gate_inp.weight"].type.name == "F32"  # routers are copied


def test_tied_embeddings_and_rows_that_fall_back(step, project, workplace):
    model = tiny_tied(workplace / "tied.gguf")
    folder = project(model)
    step("imatrix", "--chunks", "8", *ONE)
    plan, built = built_as_planned(step, folder, "Q4_K_M")
    assert "output.weight" not in plan.types and read_model(model).tied and built.tied
    assert SENSITIVITY_TABLES.read(folder / "damage.json").rows["token_embd.weight"].source == "probed"
    odd = {plan.types[name].name for name in plan.types if name.endswith("ffn_down.weight")}
    assert odd <= {"Q4_0", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"}
