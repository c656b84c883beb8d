import csv
import json

import pytest

from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS

pytestmark = pytest.mark.llamacpp
PRIOR = ("--sensitivity", "prior", "--types", "k,Q8_0")


@pytest.fixture
def frontier(command, small_model):
    """frontier on the small model with the given words."""
    return lambda *words: command("frontier", "-m", small_model, *words)


def test_json(frontier, command, small_model, workplace):
    done = frontier(*PRIOR, "--points", "6", "--with", "Q4_K_M,q6_k", "--step", "100kB", "--json")
    assert done.code == 0 and "not calibrated" in done.err
    found = json.loads(done.out)
    points = found["points"]
    assert len(points) == 6 and found["step_bytes"] == 100_000 and found["calibrated"] is False
    assert all(each["file_bytes"] <= each["budget_bytes"] and each["gap"] <= 1e-6 for each in points)
    assert sum(each["knee"] for each in points) <= 1
    klds = [each["predicted_kld"] for each in points]
    assert klds == sorted(klds, reverse=True) and points[0]["price_per_100_mb"] > points[-2]["price_per_100_mb"] > 0
    assert [each["name"] for each in found["mixes"]] == ["Q4_K_M", "Q6_K"]
    # a point is the plan that solve makes of that size
    command("solve", "-m", small_model, "-b", f"{points[2]['budget_bytes']}B", *PRIOR, "--out", "p.json")
    plan = PLANS.read(workplace / "p.json")
    assert points[2]["file_bytes"] == plan.file_bytes and points[2]["predicted_kld"] == plan.predicted_kld
    model = read_model(small_model)
    assert points[2]["bpw"] == plan.bits_per_weight(model)
    assert points[2]["bytes_per_token"] == plan.bytes_per_token(model)
    # and what 100 kB more save is the difference to another plan
    command("solve", "-m", small_model, "-b", f"{points[2]['budget_bytes'] + 100_000}B", *PRIOR, "--out", "q.json")
    saved = plan.predicted_kld - PLANS.read(workplace / "q.json").predicted_kld
    assert points[2]["saved_by_next"] == pytest.approx(saved) and saved > 0


def test_a_mix_against_the_plan_of_its_size(frontier, command, small_model, workplace):
    stock_quant = json.loads(frontier(*PRIOR, "--points", "2", "--with", "Q4_K_M", "--json").out)["mixes"][0]
    command("solve", "-m", small_model, "-b", "Q4_K_M", *PRIOR, "--out", "p.json")
    plan = PLANS.read(workplace / "p.json")
    assert stock_quant["file_bytes"] == plan.budget_bytes and stock_quant["plan_kld"] == plan.predicted_kld
    assert (
        stock_quant["ratio"] == pytest.approx(plan.predicted_kld / stock_quant["predicted_kld"])
        and stock_quant["ratio"] <= 1
    )


def test_for_people_and_into_files(frontier, workplace):
    done = frontier(*PRIOR, "--points", "8", "--plot", "curve.svg", "--out", "points.csv")
    assert done.code == 0 and "Q4_K_M" in done.out and "next 100.00 kB saves" in done.out
    assert "stock quant left out: IQ3_XXS" in done.err
    drawn = (workplace / "curve.svg").read_text()
    assert "<svg" in drawn
    with (workplace / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and sum(int(row["knee"]) for row in rows) == done.out.count("knee")


def test_alternatives(frontier):
    done = frontier(*PRIOR, "--budget", "45%", "--alternatives", "3", "--differ", "2", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and [len(each["instead"]) >= 2 for each in found] == [False, True, True]
    assert found[0]["damage"] <= found[1]["damage"] <= found[2]["damage"]
    table = frontier(*PRIOR, "--budget", "45%", "--alternatives", "3", "--differ", "2")
    assert table.code == 0 and len(table.out.splitlines()) == 4


def test_stability(frontier):
    done = frontier(*PRIOR, "--budget", "45%", "--stability", "20", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["draws"] == 20 and 0 < found["changed_mean"] <= found["groups"] == 15
    assert found["regret_mean"] > 0 and found["instead"]
    assert "change on average" in frontier(*PRIOR, "--budget", "45%", "--stability", "5").out


def test_layers_and_wishes(frontier):
    assert frontier("--sensitivity", "prior", "--per", "layer", "--points", "3", "--with", "").code == 0
    words = ("--pin", "attn_v=Q8_0", "--min-type", "ffn_down=Q4_K", "--max-types", "2")
    assert frontier(*PRIOR, *words, "--points", "3", "--with", "").code == 0


def test_dry_run(frontier, files):
    done = frontier(*PRIOR, "--points", "7", "--dry-run")
    assert done.code == 0 and done.out.startswith(
        "would solve 7 sizes for 15 tensors and 6 types; sensitivities from: a prior"
    )
    assert "3 best plans of" in frontier(*PRIOR, "--budget", "45%", "--alternatives", "3", "--dry-run").out
    assert files() == []


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--alternatives", "3"], 2, "give --budget"),
        (["--stability", "3"], 2, "give --budget"),
        (["--budget", "45%"], 2, "give --alternatives N or --stability N"),
        (["--budget", "45%", "--stability", "3", "--alternatives", "2"], 2, "one at a time"),
        (["--budget", "45%", "--stability", "3", "--out", "a.csv"], 2, "leave --budget out"),
        (["--differ", "3"], 2, "--differ belongs to --alternatives"),
        (["--budget", "45%", "--alternatives", "2", "--differ", "16"], 2, "there are only 15 tensors"),
        (["--budget", "5%", "--stability", "3"], 6, "no file of 5%"),
        (["--with", "Q9_K_M"], 5, "Q9_K_M"),
        (["--with", "IQ2_XS"], 2, "without imatrix data"),
        (["--with", "Q4_0"], 2, "Q4_0: the sensitivity table has no value for"),
        (["--step", "much"], 2, "cannot read the --step"),
        (["--plot", "curve.txt"], 2, "must end in"),
        (["--per", "block"], 2, "--per"),
        (["--out", "."], 3, "it is a folder"),
    ],
)
def test_refused(frontier, files, words, code, message):
    done = frontier(*PRIOR, "--points", "3", *words)
    assert done.code == code and message in done.error
    assert files() == []
