"""Where values come from: command line, environment, quantplan.toml, default."""

import json

import pytest


@pytest.fixture
def project(command, workplace, small_model, small_text, small_imatrix):
    (workplace / "quantplan.toml").write_text(
        f'model = "{small_model}"\nimatrix = "{small_imatrix}"\ncalibration = "{small_text}"\n'
        '[plan]\nbudget = "45%"\ntypes = "k"\npin = ["attn_output=Q8_0", "attn_v=Q6_K"]\nmax-types = 3\n'
        'sensitivity = "prior"\n[memory]\nserve-ctx = 256\n[evaluate]\nctx = 128\nchunks = 7\n',
        encoding="utf-8",
    )
    return workplace


def shown(command, *words):
    done = command(*words, "--show-config", "--json")
    assert done.code == 0, done.err
    return {name: (entry["value"], entry["source"]) for name, entry in json.loads(done.out).items()}


def test_each_source_beats_the_next(command, project, monkeypatch):
    values = shown(command, "solve", "--types", "legacy")
    assert values["budget"] == ("45%", "[plan] budget in quantplan.toml")
    assert values["types"] == ("legacy", "command line")
    assert values["pin"] == (["attn_output=Q8_0", "attn_v=Q6_K"], "[plan] pin in quantplan.toml")
    assert values["per"] == ("tensor", "default")
    assert values["ctx"] == (128, "quantplan.toml") and values["model"][1] == "quantplan.toml"
    monkeypatch.setenv("QUANTPLAN_BUDGET", "50%")
    monkeypatch.setenv("QUANTPLAN_THREADS", "1")
    values = shown(command, "solve")
    assert values["budget"] == ("50%", "QUANTPLAN_BUDGET") and values["threads"] == (1, "QUANTPLAN_THREADS")
    assert shown(command, "solve", "-b", "60%")["budget"] == ("60%", "command line")


def test_measuring_commands_take_evaluate(command, project, small_model):
    assert shown(command, "measure", small_model)["eval_chunks"] == (7, "[evaluate] chunks in quantplan.toml")
    assert shown(command, "memory")["serve_ctx"] == (["256"], "[memory] serve-ctx in quantplan.toml")


def test_a_table_for_people(command, project):
    done = command("run", "--show-config")
    row = next(line for line in done.out.splitlines() if line.strip().startswith("--budget"))
    assert done.code == 0 and row.split()[1:] == ["['45%']", "[plan]", "budget", "in", "quantplan.toml"]


def test_the_plan_follows_the_settings(command, project):
    done = command("solve", "--json", "--out", "plan.json")
    assert done.code == 0, done.err
    plan = json.loads((project / "plan.json").read_text(encoding="utf-8"))
    types = {tensor["name"]: tensor["type"] for tensor in plan["tensors"]}
    assert types["blk.0.attn_v.weight"] == "Q6_K"


@pytest.mark.parametrize(
    "line, message",
    [
        ('[plan]\nper = "block"', "[plan] per in quantplan.toml"),
        ('[plan]\nbudget = "much"', "cannot read the budget 'much'"),
        ('[plan]\nbudget = "much"', "(from [plan] budget in quantplan.toml)"),
        ('[plan]\nbudgte = "5bpw"', "unknown key [plan] 'budgte'; did you mean budget?"),
        ("[plan]\nmax-types = 'three'", "[plan] max-types must be a whole number, not 'three'"),
        ("[plan]\npin = [3]", "[plan] pin must be a text in quotes or a list of them"),
        ('heldout = "a"\n[evaluate]\ntext = "b"', "heldout and [evaluate] text differ"),
    ],
)
def test_mistakes_name_file_and_key(command, workplace, small_model, line, message):
    (workplace / "quantplan.toml").write_text(f'model = "{small_model}"\n{line}\n', encoding="utf-8")
    done = command("solve", "--sensitivity", "prior", "--dry-run", *([] if "budget" in line else ["-b", "45%"]))
    assert done.code in (2, 3) and message in " ".join(done.error.split())


def test_a_number_is_not_named_for_standing_in_a_message(command, workplace, small_model, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_THREADS", "1")
    done = command("solve", "--sensitivity", "prior", "-m", small_model, "-b", "1GG")
    assert done.code == 2 and "1GG" in done.error and "QUANTPLAN_THREADS" not in done.error


def test_files_are_taken_from_the_folder_of_quantplan_toml(command, workplace, small_model, monkeypatch):
    (workplace / "quantplan.toml").write_text(
        f'model = "{small_model}"\n[plan]\nsensitivity = "tables/t.json"\nbudget = ["=other.gguf", "5bpw"]\n',
        encoding="utf-8",
    )
    (workplace / "plans").mkdir()
    monkeypatch.chdir(workplace / "plans")
    values = shown(command, "run")
    assert values["sensitivity"][0] == "../tables/t.json" and values["budget"][0] == ["=../other.gguf", "5bpw"]
    assert shown(command, "run", "--sensitivity", "t.json")["sensitivity"][0] == "t.json"
    toml = workplace / "quantplan.toml"
    toml.write_text(toml.read_text().replace("tables/t.json", "hf://o/r/t.json"))
    assert shown(command, "run")["sensitivity"][0] == "hf://o/r/t.json"


def test_heldout_is_still_read(command, workplace, small_model, small_text):
    (workplace / "quantplan.toml").write_text(f'model = "{small_model}"\nheldout = "{small_text}"\n', encoding="utf-8")
    done = command("measure", small_model, "--show-config", "--json")
    assert "heldout is now [evaluate] text" in done.err
    assert json.loads(done.out)["text"] == {"value": str(small_text), "source": "quantplan.toml"}


def test_commas_and_repetition_say_the_same(command, project):
    once = shown(command, "solve", "--pin", "attn_output=Q8_0,attn_v=Q6_K")
    assert once["pin"][1] == "command line"
    words = ("solve", "-b", "45%", "--sensitivity", "prior", "--json")
    both = ("--pin", "attn_output=Q8_0,attn_q=Q4_K"), ("--pin", "attn_output=Q8_0", "--pin", "attn_q=Q4_K")
    plans = [command(*words, *pins).out for pins in both]
    assert plans[0] == plans[1] != ""
