"""What commands say of a plan with error-compensated rounding; its table is made up, nothing is measured."""

import json
from dataclasses import replace

import pytest

from quantplan.gguf.reader import read_model
from quantplan.planning.request import quantizable
from quantplan.quant_type import parse_types
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES
from quantplan.sensitivity.rows import prior_table

pytestmark = pytest.mark.llamacpp
NOTE = "the rules rebuild the types, not the compensated rounding of {} tensors; `quantplan quantize` builds both"


@pytest.fixture
def plan(command, small_model, workplace):
    """plan.json, of a table in which compensated rounding to K-types below Q6_K costs half of ggml's."""
    model = read_model(small_model)
    table = prior_table(model, quantizable(model), parse_types("k,Q8_0"), None)
    rows = {}
    for name, row in table.rows.items():
        stock = {kind: cost for kind, cost in row.weights.items() if kind not in ("Q6_K", "Q8_0")}
        rows[name] = replace(row, weights=row.weights | {kind: cost / 2 for kind, cost in stock.items()}, stock=stock)
    made_from = table.made_from | {"second_moments": {"text": "t" * 64, "n_ctx": 512, "chunks": 4}}
    SENSITIVITY_TABLES.write(replace(table, rows=rows, made_from=made_from), workplace / "table.json")
    words = ("-m", small_model, "-b", "33%", "--sensitivity", "table.json", "--types", "k,Q8_0", "--out", "plan.json")
    done = command("solve", *words)
    assert done.code == 0, done.err
    plan = PLANS.read(workplace / "plan.json")
    assert 0 < len(plan.compensated) <= 15 and plan.stock_rounding_kld > plan.predicted_kld
    assert f"rounding  error-compensated for {len(plan.compensated)} of 15 tensors: expected KLD" in done.out
    return plan


def test_explain(command, plan):
    count = len(plan.compensated)
    done = command("explain", "plan.json")
    assert f"rounding    error-compensated for {count} of 15 tensors: expected KLD" in done.out
    assert f"rules       {NOTE.format(count)}" in done.out and "gained most by compensated rounding" in done.out
    found = json.loads(command("explain", "plan.json", "--json").out)["rounding"]
    assert {each["name"] for each in found["tensors"]} == set(plan.compensated)
    assert all(each["stock_damage"] == pytest.approx(2 * each["damage"]) for each in found["tensors"])
    assert found["stock_rounding_kld"] == plan.stock_rounding_kld


def test_explain_a_tensor(command, plan):
    name = plan.compensated[0]
    assert "stock rounding" in command("explain", "plan.json", name).out
    (found,) = json.loads(command("explain", "plan.json", name, "--json").out)
    for rung in found["curve"]:
        expected = None if rung["type"] in ("Q6_K", "Q8_0", "F16") else pytest.approx(2 * rung["damage"])
        assert rung["stock_damage"] == expected


def test_explain_a_plan_whose_compensation_was_dropped(command, plan, workplace):
    """As `run` leaves it where stock rounding was no worse."""
    PLANS.write(plan.with_stock_rounding(), workplace / "stock.json")
    found = json.loads(command("explain", "stock.json", "--json").out)
    ours = json.loads(command("explain", "plan.json", "--json").out)
    assert found["rounding"] is None and found["predicted_kld"] == plan.stock_rounding_kld
    name = plan.compensated[0]
    damages = [next(each["damage"] for each in file["tensors"] if each["name"] == name) for file in (found, ours)]
    assert damages[0] == pytest.approx(2 * damages[1])


def test_diff(command, plan, workplace):
    PLANS.write(plan.with_stock_rounding(), workplace / "stock.json")
    done, count = command("diff", "plan.json", "stock.json"), len(plan.compensated)
    assert f"{count} of {len(plan.tensors)} tensors differ" in done.out and "K compensated" in done.out
    assert f"rounding of plan: {count} tensors compensated; of stock: 0 tensors compensated" in done.out
    assert NOTE.format(count) in done.out
    found = json.loads(command("diff", "plan.json", "stock.json", "--json").out)
    assert found["compensated"] == [count, 0] and all(each["compensated"] == [True, False] for each in found["tensors"])
    assert found["predicted_kld"] == pytest.approx([plan.predicted_kld, plan.stock_rounding_kld])


def test_emit(command, plan):
    done = command("emit", "plan.json")
    assert NOTE.format(len(plan.compensated)) in " ".join(done.err.split())
    found = json.loads(command("emit", "plan.json", "--json").out)
    assert found["rounding"]["note"] == NOTE.format(len(plan.compensated))


def test_card(command, plan, workplace):
    done = command("card", "plan.json", "--out", "card", "--json")
    assert json.loads(done.out)["files"][0]["rounding"]["compensated"] == len(plan.compensated)
    text = (workplace / "card" / "README.md").read_text()
    assert NOTE.format(len(plan.compensated))[1:] in text and "Rounding error-compensated for" in text


def test_report(command, plan, small_model, workplace):
    words = ("-m", small_model, "--sensitivity", "table.json", "--types", "k,Q8_0", "--points", "3", "--out", "r.html")
    found = json.loads(command("report", *words, "--json").out)
    rounded = [each["rounding"] for each in found["plans"] if each["rounding"]]
    assert rounded and rounded[0]["stock_rounding_kld"] > min(each["kld"] for each in found["plans"])
    stock = next(each for each in found["mixes"] if each["name"] == "Q4_K_S")
    same = next(each for each in found["plans"] if each["asked"] == "Q4_K_S")
    assert same["rounding"]["stock_rounding_kld"] <= stock["kld"] * 1.0001, "stock quants are rounded by llama-quantize"
    assert "rules-note" in (workplace / "r.html").read_text()


def test_compare_says_what_it_cannot_check(command, plan, small_model, small_text):
    words = ("compare", "plan.json", "-m", small_model, "--text", small_text, "--with", "Q4_K_M", "--dry-run")
    assert "whether the evaluation text overlaps it is not known" in " ".join(command(*words).err.split())
    other = command(*words, "--calibration", small_text)
    assert "overlaps it is not known" in " ".join(other.err.split()), "of another digest than the plan's"
    assert "100% of the long lines" in other.err


def test_measure_finds_the_calibration_text_of_the_project(command, workplace, small_model, small_text, monkeypatch):
    command("init", small_model, "--folder", "p", "--calibration", small_text, "--text", small_text, "--ctx", "64")
    monkeypatch.chdir(workplace / "p")
    done = command("measure", small_model, "--chunks", "2", "-t", "1")
    assert done.code == 0 and "100% of the long lines" in done.err
