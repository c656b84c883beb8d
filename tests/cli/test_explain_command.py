import json
from dataclasses import replace

import pytest

from quantplan.records.formats import PLANS, SENSITIVITY_TABLES

pytestmark = pytest.mark.llamacpp
PRIOR = ("--sensitivity", "prior", "--types", "k,Q8_0,IQ2_XXS")


@pytest.fixture
def solved(command, small_model, workplace):
    """A plan of the small model, made with these wishes."""

    def make(*words, out="plan.json", budget="45%"):
        done = command("solve", "-m", small_model, "-b", budget, *PRIOR, *words, "--out", out)
        assert done.code == 0, done.err
        return workplace / out

    return make


def test_a_plan(command, solved):
    path = solved("--pin", "attn_v=Q3_K", "--min-type", "ffn_gate=Q2_K")
    done = command("explain", path)
    plan = PLANS.read(path)
    assert (
        done.code == 0
        and f"{plan.budget_bytes - plan.file_bytes:,} of {plan.budget_bytes:,} bytes are left" in done.out
    )
    assert "constraint  --pin attn_v=Q3_K binds for" in done.out and "--min-type ffn_gate" not in done.out
    assert all(title in done.out for title in ("most damage left", "gained most from their bytes", "upgraded next"))
    found = json.loads(command("explain", path, "--json").out)
    assert found["price_per_100_mb"] == pytest.approx(plan.outcome.prices["bytes"] * 1e8)
    assert {each["name"]: each["type"] for each in found["tensors"]} == {
        each.name: each.type.name for each in plan.tensors if each.rule
    }
    (constraint,) = found["wishes"]
    assert constraint["wish"] == "--pin attn_v=Q3_K" and constraint["nats"] > 0


@pytest.mark.parametrize("words", [("--max-types", "2"), ("--tie", "blocks=0-1")], ids=lambda words: words[0])
def test_what_a_constraint_on_the_whole_plan_costs(command, solved, words):
    free = PLANS.read(solved(out="free.json", budget="32%"))
    path = solved(*words, budget="32%")
    plan = PLANS.read(path)
    done = command("explain", path)
    more = plan.predicted_kld / free.predicted_kld - 1
    line = f"constraint  {' '.join(words)} binds: it costs {more:.1%} more KLD; {free.predicted_kld:.5g} nats/token"
    assert more > 0.001 and line in done.out
    (cost,) = json.loads(command("explain", path, "--json").out)["whole_plan"]
    assert cost["constraint"] == " ".join(words)
    assert (cost["kld"], cost["kld_without"]) == pytest.approx((plan.predicted_kld, free.predicted_kld))


def test_a_constraint_that_does_not_bind(command, solved):
    assert "--max-types" not in command("explain", solved("--max-types", "9")).out


def test_a_tensor(command, solved):
    path = solved("--max-type", "attn_v=Q5_K")
    done = command("explain", path, "blk.0.attn_v")
    kind = PLANS.read(path).types["blk.0.attn_v.weight"].name
    assert done.code == 0 and done.out.splitlines()[-1].startswith(f"{kind}: ")
    excluded = [line.partition(": ") for line in done.out.splitlines() if line.startswith("  ")]
    reasons = {name: reason for names, _, reason in excluded for name in names.strip().split(", ")}
    assert reasons["Q8_0"] == "--max-type attn_v=Q5_K" and reasons["IQ2_XXS"] == "needs imatrix data"
    (chosen,) = (line for line in done.out.splitlines() if "<- chosen" in line)
    assert chosen.split()[0] == kind


def test_the_curve_and_the_price_agree(command, solved):
    """Of one price: where a step up is worth more than it, the bytes for it are lacking."""
    path = solved()
    found = json.loads(command("explain", path, "*", "--json").out)
    assert len(found) == 15
    for each in found:
        chosen = next(rung for rung in each["curve"] if rung["chosen"])
        for rung in each["curve"]:
            if rung["bytes"] > chosen["bytes"]:
                rate = (chosen["damage"] - rung["damage"]) / (rung["bytes"] - chosen["bytes"]) * 1e6
                assert rung["saves_per_mb"] == pytest.approx(rate)
        assert each["verdict"].startswith(chosen["type"]) and each["source"] == "prior"
    within = [each for each in found if "not above the price" in each["verdict"]]
    assert len(within) >= len(found) / 2


def test_layers_and_ties(command, small_model, workplace):
    command("solve", "-m", small_model, "-b", "33%", "--per", "layer", "--sensitivity", "prior", "--out", "l.json")
    done = command("explain", "l.json", "blk.0.attn_v")
    assert done.code == 0 and "block 0" in done.out
    command("solve", "-m", small_model, "-b", "45%", *PRIOR, "--tie", "qkv", "--out", "t.json")
    done = command("explain", "t.json", "blk.0.attn_v")
    assert done.code == 0 and "tied to it" in done.out
    assert "constraint  --tie qkv binds: it costs" in command("explain", "t.json").out


def test_an_objective_without_a_price(command, solved):
    path = solved("--objective", "max")
    assert "price       none: the plan minimises the max of damages" in command("explain", path).out
    assert command("explain", path, "output").code in (0, 5)
    assert "of the price" not in command("explain", path, "attn_v").out


def test_an_imported_plan_with_a_table(command, small_model, workplace):
    (workplace / "rules.txt").write_text("attn_v=q6_k")
    command("import", "rules.txt", "-m", small_model, "--base", "q4_k_s", "--out", "i.json")
    refused = command("explain", "i.json")
    assert refused.code == 3 and "give one with --sensitivity FILE" in refused.error
    from quantplan.gguf.reader import read_model
    from quantplan.planning.request import quantizable
    from quantplan.quant_type import parse_types
    from quantplan.sensitivity.rows import prior_table

    model = read_model(small_model)
    SENSITIVITY_TABLES.write(
        prior_table(model, quantizable(model), parse_types("k,legacy"), None), workplace / "table.json"
    )
    done = command("explain", "i.json", "--sensitivity", "table.json", "--json")
    assert done.code == 0 and json.loads(done.out)["price_per_100_mb"] > 0
    SENSITIVITY_TABLES.write(prior_table(model, quantizable(model), parse_types("Q3_K"), None), workplace / "few.json")
    refused = command("explain", "i.json", "--sensitivity", "few.json")
    assert refused.code == 2 and "sensitivity table and constraints do not" in refused.error


def test_refused(command, solved, workplace, reference_model):
    path = solved()
    assert command("explain", path, "attn_w").code == 5
    assert command("explain", "nofile.json").code == 3
    assert command("explain", path, "-m", reference_model).code == 4
    plan = PLANS.read(path)
    PLANS.write(replace(plan, made_from=plan.made_from | {"damage_table": "0" * 64}), workplace / "lost.json")
    lost = command("explain", "lost.json")
    assert lost.code == 3 and "no longer in the cache" in lost.error


# -- diff


def test_diff_of_two_plans(command, solved):
    one, other = solved(out="one.json"), solved(out="other.json", budget="35%")
    done = command("diff", one, other, "--json")
    found = json.loads(done.out)
    plans = PLANS.read(one), PLANS.read(other)
    changed = {name for name, kind in plans[0].types.items() if plans[1].types[name] != kind}
    assert (
        done.code == 0 and {each["name"] for each in found["tensors"]} == changed and found["differing"] == len(changed)
    )
    assert found["file_bytes"] == [plan.file_bytes for plan in plans]
    assert found["predicted_kld"] == pytest.approx([plan.predicted_kld for plan in plans])
    table = command("diff", one, other)
    assert f"{len(changed)} of {len(plans[0].tensors)} tensors differ" in table.out
    every = json.loads(command("diff", one, other, "--all", "--json").out)["tensors"]
    assert len(every) == len(plans[0].tensors)


def test_diff_with_a_built_file(command, solved, workplace):
    path = solved()
    assert command("quantize", path, "--out", "built.gguf", "--threads", "1").code == 0
    found = json.loads(command("diff", path, "built.gguf", "--json").out)
    assert found["differing"] == 0 and found["file_bytes"][0] == found["file_bytes"][1]
    assert found["predicted_kld"][0] == found["predicted_kld"][1] > 0


def test_diff_of_files_without_a_table(command, small_model):
    done = command("diff", small_model, small_model, "--json")
    assert done.code == 0 and json.loads(done.out)["predicted_kld"] == [None, None]


def test_diff_of_different_models(command, solved, reference_model, small_model):
    path = solved()
    assert command("diff", path, reference_model).code == 4
    refused = command("diff", small_model, reference_model)
    assert refused.code == 4 and "different models" in refused.error
    assert command("diff", path, "nofile").code == 3
