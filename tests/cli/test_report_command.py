"""`quantplan report` as a person runs it, on a small model."""

import json
import shlex
import webbrowser

import pytest
from report_parts import types_of

pytestmark = pytest.mark.llamacpp
SMALL = ("--types", "k", "--points", 4, "--sample", "16k", "--threads", 1)


@pytest.fixture
def call(command, small_model, small_imatrix):
    def report(*words):
        return command("report", "-m", small_model, "--imatrix", small_imatrix, *words)

    return report


def test_a_page_without_a_probe_says_that_it_is_for_ranking_only(call, files, workplace):
    ended = call(*SMALL, "--sensitivity", "weights")
    assert ended.code == 0 and ended.out == "reports/index.html\n"
    assert "not calibrated" in ended.err
    assert files() == ["reports/index.html"]
    assert "For ranking only" in (workplace / "reports/index.html").read_text(encoding="utf-8")


def test_the_commands_on_the_page_make_the_plans_on_the_page(call, command, workplace):
    """All options that decide plans go into the command; those of the page do not."""
    constraints = ("--pin", "token_embd=Q6_K", "--max-types", 3, "--sensitivity", "prior", "--types", "k,Q8_0")
    ended = call(*constraints, "--points", 3, "--budget", "6.6bpw", "--json", "--out", "page.html", "--figures")
    assert ended.code == 0, ended.err
    data = json.loads(ended.out)
    assert sorted(each.name for each in workplace.iterdir() if each.is_file()) == [
        "frontier.png",
        "frontier.svg",
        "heat-map.png",
        "heat-map.svg",
        "page.html",
    ]
    assert data["plans"][data["opens_at"]]["asked"] == "6.6bpw"
    for shown in (data["plans"][0], data["plans"][data["opens_at"]]):
        solve, build = (shlex.split(line) for line in shown["commands"]["quantplan"].splitlines())
        assert solve[:2] == ["quantplan", "solve"] and build[:2] == ["quantplan", "quantize"]
        assert not {"--points", "--json", "--figures", "page.html"} & set(solve)
        made = command(*solve[1:], "--json")
        assert json.loads(made.out)["file_bytes"] == shown["bytes"]
        plan = json.loads((workplace / build[2]).read_text())
        types = {each["name"]: each["type"] for each in plan["tensors"] if each["rule"]}
        assert types == types_of(data, shown) and types["token_embd.weight"] == "Q6_K" and len(set(types.values())) <= 3


def test_layer_mode(call):
    ended = call("--per", "layer", "--sensitivity", "prior", "--points", 3, "--json")
    plan = json.loads(ended.out)["plans"][-1]
    assert "--per layer" in plan["commands"]["quantplan"]


def test_dry_run_writes_nothing(call, files):
    ended = call("--sensitivity", "prior", "--dry-run")
    assert ended.code == 0 and "would write reports/index.html: 100 budgets" in ended.out
    assert files() == []


def test_a_budget_below_every_plan_is_refused(call, files):
    ended = call("--sensitivity", "prior", "--budget", "1bpw")
    assert ended.code == 6 and "no file of 1bpw" in ended.error
    assert files() == []


def test_open_shows_the_page(call, workplace, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert call(*SMALL, "--sensitivity", "prior", "--open").code == 0
    assert opened == [(workplace / "reports/index.html").as_uri()]
