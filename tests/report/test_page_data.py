"""What a report page is made from: every plan that solve gives, in little room."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from measurement_parts import MEASUREMENT
from report_parts import made_up, made_up_data, types_of

from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import quantize, tools
from quantplan.planning import request as planning
from quantplan.planning.solving import plan_for
from quantplan.quant_type import parse_types
from quantplan.records.formats import MEASUREMENTS
from quantplan.report.card_figures import write_figures
from quantplan.report.commands import Commands
from quantplan.report.page import page
from quantplan.report.page_data import LETTERS, page_data, roles
from quantplan.report.report_data import report_data
from quantplan.sensitivity.rows import prior_table


@pytest.fixture(scope="module")
def small():
    return made_up_data()


def test_letters_stand_for_the_types_of_every_plan(small):
    found = made_up()
    for plan, own in zip(found.plans, small["plans"], strict=True):
        assert types_of(small, own) == {name: kind.name for name, kind in plan.types.items()}
    assert types_of(small, small["mixes"][1]) == {name: kind.name for name, kind in found.stock_quants[1].types.items()}
    assert len({each["types"] for each in small["plans"]}) == len(small["plans"])


def test_damage_stands_by_tensor_and_type(small):
    row = made_up().table.rows["blk.1.attn_k.weight"]
    at = [each["name"] for each in small["tensors"]].index(row.tensor)
    for kind, damage in zip(small["types"], small["damage"][at], strict=True):
        assert damage == pytest.approx(row.damage(kind["name"]), rel=1e-3)


def test_a_type_without_a_price_is_null_and_no_zero():
    found = made_up()
    name = "blk.0.attn_q.weight"
    row = found.table.rows[name]
    fewer = replace(row, weights={kind: value for kind, value in row.weights.items() if kind != "IQ1_S"})
    found = replace(found, table=replace(found.table, rows=found.table.rows | {name: fewer}))
    data = page_data(found, Commands(["quantplan", "solve"], Path("plans"), "x"), "", "")
    at = [each["name"] for each in data["tensors"]].index(name)
    types = [each["name"] for each in data["types"]]
    assert data["damage"][at][types.index("IQ1_S")] is None and None not in data["damage"][at + 1]


def test_data_are_json_and_hold_every_statistic(small):
    assert json.loads(json.dumps(small, allow_nan=False)) == small
    fields = [each["name"] for each in small["statistics"]["fields"]]
    row = small["statistics"]["rows"][0]
    own = next(each for each in made_up().statistics.tensors if each.name == row["name"])
    assert row["values"][fields.index("zd")] == pytest.approx(own.zd, abs=0.01)
    assert small["tensors"][row["tensor"]]["name"] == row["name"]


def test_roles_come_in_the_order_of_a_block():
    tensors = made_up(roles=10).model.tensors
    assert roles(tensors) == [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "ffn_gate_exps",
        "ffn_up_exps",
        "ffn_down_exps",
    ]


@pytest.mark.slow
def test_1100_tensors_and_100_budgets_are_less_than_8_mb():
    data = made_up_data(blocks=61, roles=18, budgets=100)
    text = page(data)
    assert len(data["tensors"]) == 1100 and len(data["plans"]) == 100
    assert len(text.encode()) < 8_000_000


def test_more_types_than_letters_are_refused(monkeypatch):
    monkeypatch.setattr("quantplan.report.page_data.LETTERS", LETTERS[:3])
    with pytest.raises(ValueError, match="types, 3 letters"):
        made_up_data()


@pytest.mark.slow
def test_pictures_for_cards(tmp_path):
    paths = write_figures(made_up(), tmp_path)
    assert [each.name for each in paths] == ["frontier.png", "frontier.svg", "heat-map.png", "heat-map.svg"]
    assert all(each.stat().st_size > 5000 for each in paths)


# --- of the bundled model, planned for real


@pytest.fixture(scope="module")
def request_of_all(reference_model, reference_imatrix):
    return planning.PlanRequest(
        read_model(reference_model), read_imatrix(reference_imatrix), parse_types("k,iq,Q8_0"), None
    )


@pytest.fixture(scope="module")
def table(request_of_all):
    model = request_of_all.model
    return prior_table(model, planning.quantizable(model), request_of_all.types, request_of_all.imatrix)


@pytest.fixture(scope="module")
def reference(request_of_all, table, tmp_path_factory):
    reports = tmp_path_factory.mktemp("reports")
    own = replace(MEASUREMENT.conditions, base_digest=request_of_all.model.digest)
    MEASUREMENTS.write(replace(MEASUREMENT, conditions=own), reports / "own.measurement.json")
    MEASUREMENTS.write(MEASUREMENT, reports / "others.measurement.json")
    (reports / "half.json").write_text('{"format": "quantplan-comp')
    (reports / "unlike.json").write_text("[1, 2]")
    return report_data(request_of_all, table, 5, reports)


@pytest.fixture(scope="module")
def reference_data(reference):
    return page_data(reference, Commands(["quantplan", "solve"], Path("plans"), "prose-10m"), "quantplan report", "")


@pytest.mark.llamacpp
def test_each_budget_shows_the_plan_that_solve_gives(reference, reference_data, request_of_all, table):
    budgets = [plan["asked"] for plan in reference_data["plans"]]
    assert len([each for each in budgets if each.isdigit()]) == 4 and "Q4_K_M" in budgets
    assert budgets[-1] == "Q8_0"  # where the steps end: the fifth
    for shown in (reference_data["plans"][at] for at in (0, 4, 9, reference.opens_at, -1)):
        plan, _ = plan_for(replace(request_of_all, budget=shown["asked"]), table)
        assert shown["bytes"] == plan.file_bytes and shown["budget"] == plan.budget_bytes
        assert shown["kld"] == pytest.approx(plan.predicted_kld, rel=1e-5)
        assert shown["kld_err"] == pytest.approx(plan.predicted_kld_err, rel=1e-3)
        assert shown["bpw"] == pytest.approx(plan.bits_per_weight(request_of_all.model), abs=1e-4)
        assert types_of(reference_data, shown) == {each.name: each.type.name for each in plan.tensors if each.rule}


@pytest.mark.llamacpp
def test_stock_mixes_are_those_of_the_tool(reference, reference_data, request_of_all):
    stock_quant = next(each for each in reference_data["mixes"] if each["name"] == "Q5_K_M")
    types = quantize.stock_quant(request_of_all.model, "Q5_K_M", request_of_all.imatrix.path)
    assert types_of(reference_data, stock_quant) == {name: types[name].name for name in reference.plans[0].types}
    without = next(each for each in reference_data["mixes"] if each["name"] == "Q5_0")
    assert without["kld"] is None and without["unpriced"] == "Q5_0, Q5_1"
    assert reference_data["plans"][reference_data["opens_at"]]["asked"] == "Q4_K_M"


@pytest.mark.llamacpp
def test_the_command_of_llama_quantize_gives_the_plan(reference_data, request_of_all, monkeypatch):
    """Run as it stands, but for --dry-run: in the imatrix's folder, with paths as seen from there."""
    shown = reference_data["plans"][3]
    line = shown["commands"]["llama-quantize"]
    assert line.startswith("(cd ") and line.endswith(")")
    enter, _, command = line[1:-1].partition(" && ")
    words = shlex.split(command)
    monkeypatch.chdir(shlex.split(enter)[1])
    assert words[words.index("--imatrix") + 1] == request_of_all.imatrix.path.name
    log = tools.run([words[0], "--dry-run", *words[1:-2], words[-1]]).log
    found = quantize.parse(log)
    assert types_of(reference_data, shown) == {
        each["name"]: found[each["name"]].name for each in reference_data["tensors"]
    }


@pytest.mark.llamacpp
def test_records_of_the_reports_join_and_others_are_told(reference):
    assert [each.file for each in reference.measurements] == [MEASUREMENT.file]
    assert len(reference.notes) == 2
    half, others = reference.notes
    assert "half.json: not JSON" in half
    assert "others.measurement.json: measured against another model" in others
