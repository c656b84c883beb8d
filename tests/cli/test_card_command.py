"""quantplan card in a small project: planned, built, measured and compared by the tools."""

import json
import re
import shutil

import pytest
from card_parts import rows as table

from quantplan.gguf.reader import read_model
from quantplan.recipes.import_plan import import_file
from quantplan.records.formats import PLANS

pytestmark = pytest.mark.llamacpp
FEW = ("--ctx", 64, "--chunks", 4, "--threads", 1)


@pytest.fixture
def project(command, workplace, small_model, small_text):
    """Two plans, of which ``small`` is built, measured and compared with a stock mix."""
    shutil.copy(small_model, workplace / "tied-F16.gguf")
    assert command("init", "tied-F16.gguf", "--text", small_text, "--ctx", 64).code == 0
    for name, budget in (("small", "40%"), ("large", "60%")):
        words = ("--sensitivity", "prior", "--types", "k,Q8_0", "--out", f"plans/{name}.json")
        assert command("solve", "-b", budget, *words).code == 0
    assert command("compare", "plans/small.json", "--with", "Q8_0", *FEW).code == 0
    return workplace


def card_of(project, name="reports/card"):
    return (project / name / "README.md").read_text(encoding="utf-8")


def test_a_card_of_a_project(command, project):
    done = command("card", "--repo", "me/tied-GGUF", "--license", "mit", "--ctx", "256,512,4096")
    assert done.code == 0
    written = ["README.md", "Modelfile", "tied-small.tensor-types.txt", "tied-large.tensor-types.txt"]
    assert done.out.split() == [f"reports/card/{name}" for name in written]
    assert "tied-large.gguf is not built" in done.err and "tied-small.gguf is not built" not in done.err
    text = card_of(project)
    row = r"^\| `(tied-\w+.gguf)` \| [^|]* \| ([\d.]+) \| [\d.]+ \| [\d.]+ \w+ \| (?=[^|]* \| [^|]*\|$)"
    files = dict(re.findall(row, text, re.MULTILINE))
    plans = {name: PLANS.read(project / f"plans/{name}.json") for name in ("small", "large")}
    assert files == {f"tied-{name}.gguf": f"{plan.file_bytes / 1e9:.4f}" for name, plan in plans.items()}
    (record,) = (project / "reports").glob("*.comparison.json")
    kld = json.loads(record.read_text())["rows"][0]["kld"]
    shown = re.search(r"^\| `tied-small.gguf` .* \| ([\d.]+) ± [\d.]+ \| [^|]* \|$", text, re.MULTILINE)
    assert float(shown[1]) == pytest.approx(kld, rel=0.05)
    assert (
        "Not measured under these conditions: `tied-large.gguf`" in text and "Not built yet: `tied-large.gguf`." in text
    )
    assert "> " + json.loads(record.read_text())["verdict"].split(" (")[0].split("_")[0] in text
    assert {
        line.split(" | ")[1] for line in text.splitlines() if re.match(r"\| `tied-\w+.gguf` \| [\d,]+ \|", line)
    } == {"256", "512"}
    assert "-hf me/tied-GGUF:large -c 256" in text and "license: mit" in text
    for name in ("small", "large"):
        command = next(line for line in text.splitlines() if line.startswith("quantplan solve") and name in line)
        assert (
            command == f"quantplan solve -b {'40%' if name == 'small' else '60%'} --sensitivity prior --types k,Q8_0 "
            f"--out plans/{name}.json"
        )
    assert str(project) not in text
    assert "FROM ./tied-large.gguf\n# FROM ./tied-small.gguf\n" in (project / "reports/card/Modelfile").read_text()


def test_the_rules_beside_the_card_make_the_plan(command, project):
    command("card", "plans/small.json", "--out", "mine")
    model, plan = read_model(project / "tied-F16.gguf"), PLANS.read(project / "plans/small.json")
    again = import_file(project / "mine" / "tied-small.tensor-types.txt", model, None, plan.base_ftype)
    assert again.plan.types == plan.types
    assert "LAYER_TYPES" not in card_of(project, "mine")


def test_a_file_that_was_built_anew_takes_no_old_figures(command, project):
    for each in (project / "reports" / "builds").glob("*.gguf"):
        each.unlink()
    done = command("card", "plans/small.json")
    assert "small.comparison.json is of a file that is not among these (or was built again since): left out" in done.err
    assert "Nothing was measured" in card_of(project) and "not measured" in card_of(project)


def test_a_gguf_finds_its_plan(command, project):
    (built,) = (project / "reports" / "builds").glob("small-*.gguf")
    built.rename(project / "published.gguf")
    done = command("card", "published.gguf", "--json")
    (file,) = json.loads(done.out)["files"]
    assert file["name"] == "published.gguf" and len(file["measured"]) == 1 and file["digest"]
    assert "quantplan solve -b 40%" in card_of(project) and "### published.gguf" in card_of(project)


def test_measurements_alone(command, project):
    command("quantize", "plans/large.json", "--threads", 1)
    assert command("measure", "tied-large.gguf", *FEW).code == 0
    command("card", "tied-large.gguf", "plans/small.json")
    text = card_of(project)
    assert "Not measured under" not in text and "the lowest KLD of those measured" in text
    command("card", "tied-large.gguf", "tied-F16.gguf", "--force")
    text = card_of(project)
    assert "`tied-F16.gguf` | F16" in text and "Published as it is" in text


def test_a_stock_mix_is_told_by_its_bytes(command, project):
    command("quantize", "Q5_K_M", "--threads", 1)
    command("quantize", "plans/small.json", "--out", "mine.gguf", "--threads", 1)
    (project / "plans" / "small.json").unlink()
    command("card", "tied-Q5_K_M.gguf", "mine.gguf")
    text = card_of(project)
    assert "The stock quant `Q5_K_M` of llama.cpp, without an imatrix." in text
    assert "llama-quantize tied-F16.gguf tied-Q5_K_M.gguf Q5_K_M" in text
    assert text.count("Published as it is") == 1  # mine.gguf


def test_layer_types_stand_on_the_card(command, project):
    words = ("--per", "layer", "--sensitivity", "prior", "--types", "k,Q8_0", "--out", "plans/layers.json")
    assert command("solve", "-b", "60%", *words).code == 0
    command("card", "plans/layers.json")
    assert re.search(
        r"LAYER_TYPES='\[\n\[0,\"\w+\" *\],\[1,\"\w+\" *\]\n\]'\nFLAGS=\"--token-embedding-type \w+\"", card_of(project)
    )


def test_dry_run_and_what_is_there_already(command, project, files):
    before = files()
    done = command("card", "--dry-run")
    assert done.code == 0 and "reports/card/README.md" in done.out and files() == before
    command("card", "plans/small.json")
    (project / "reports/card/README.md").write_text("mine")
    again = command("card", "plans/small.json")
    assert again.code == 2 and "README.md already exists; --force overwrites it" in again.error
    assert card_of(project) == "mine"
    assert command("card", "plans/small.json", "--force").code == 0 and card_of(project) != "mine"


@pytest.mark.parametrize(
    "words, code, message",
    [
        ([], 2, "a card of what?"),
        (["gone.gguf"], 3, "gone.gguf: No such file"),
        (["gone.json"], 3, "cannot read gone.json"),
        (["x.gguf", "--repo", "me"], 2, "--repo me: write OWNER/REPO"),
        (["x.gguf", "--base-model", "a/b/c"], 2, "--base-model a/b/c: write OWNER/REPO"),
        (["x.gguf", "--reports", "nowhere"], 2, "--reports nowhere: no such folder"),
        (["x.gguf", "--ctx", "many"], 2, "cannot read the context 'many'"),
    ],
)
def test_mistakes(command, files, words, code, message):
    done = command("card", *words)
    assert done.code == code and message in done.error and files() == []


def test_the_card_of_quantplan_toml(command, project):
    with (project / "quantplan.toml").open("a", encoding="utf-8") as file:
        file.write('[card]\nrepo = "me/x"\nsystem = "Be kind."\nparameter = ["temperature=0.5", "top_k=7"]\n')
    assert command("card", "plans/small.json", "--parameter", "top_k=9").code == 0
    assert "-hf me/x:small" in card_of(project)
    text = (project / "reports/card/Modelfile").read_text()
    assert text.endswith('PARAMETER top_k 9\nSYSTEM """Be kind."""\n') and "temperature" not in text
    wrong = command("card", "plans/small.json", "--force", "--parameter", "top_q=9")
    assert wrong.code == 2 and "did you mean top_" in wrong.error


def test_the_table_of_sizes(command, project):
    (project / "bob").mkdir()
    assert command("quantize", "Q5_K_M", "--out", "bob/tied-Q5_K_M.gguf", "--threads", 1).code == 0
    with (project / "quantplan.toml").open("a", encoding="utf-8") as file:
        file.write('[card]\npublisher = ["bob=bob", "carol=bob/tied-Q5_K_M.gguf"]\n')
    done = command("card", "plans/small.json", "--json")
    assert done.code == 0, done.err
    assert [file["publisher"] for file in json.loads(done.out)["others"]] == ["bob", "carol"]
    heading, _, own, stock, further = table(card_of(project), "File or quant")
    assert heading[1:5] == ["bob", "carol", "llama.cpp", "This repository"]
    assert own[0] == "`tied-small.gguf`" and "(KLD " in own[4] and own[-1] != "-"
    assert stock[0] == "Q5\\_K\\_M" and stock[1] == stock[2] != "-" and further[0] == "Q8\\_0" and "(KLD " in further[3]


@pytest.mark.parametrize(
    "word, code, message",
    [
        ("bob", 2, "--publisher bob: write NAME=WHERE"),
        ("=x.gguf", 2, "write NAME=WHERE"),
        ("bob=gone.gguf", 3, "gone.gguf"),
        ("bob=.", 5, "no GGUF in this folder"),
    ],
)
def test_publishers_that_cannot_be_read(command, workplace, small_model, files, word, code, message):
    done = command("card", small_model, "--publisher", word)
    assert done.code == code and message in done.error and files() == []


def test_two_files_of_one_name(command, small_model, workplace):
    for folder in ("a", "b"):
        (workplace / folder).mkdir()
        shutil.copy(small_model, workplace / folder / "m.gguf")
    done = command("card", "a/m.gguf", "b/m.gguf")
    assert done.code == 2 and "two files are called m.gguf" in done.error


def test_a_damaged_record(command, project):
    (project / "reports" / "bad.comparison.json").write_text(
        '{"format": "quantplan-comparison", "version": 1, "rows": [{}]}'
    )
    done = command("card")
    assert done.code == 3 and "bad.comparison.json: damaged comparison" in done.error


def test_speeds_measured_for_the_card(command, workplace, small_model):
    shutil.copy(small_model, workplace / "m.gguf")
    words = ("card", "m.gguf", "--reports", "records", "-p", "8", "--n-gen", "0", "-pg", "8,4", "-r", "2", "-t", "1")
    (workplace / "records").mkdir()
    dry = command(*words, "--dry-run")
    assert "would measure with llama-bench: pp8, pp8+tg4" in dry.err and not list((workplace / "records").iterdir())
    done = command(*words, "--serve-ctx", "64", "--json")
    assert done.code == 0, done.err
    (speeds,) = json.loads(done.out)["files"][0]["speed"]
    assert [test["name"] for test in speeds["tests"]] == ["pp8", "pp8+tg4"]
    heading, _, row = table(card_of(workplace, "card"), "Tokens/s")
    assert heading[1:] == ["pp8", "pp8+tg4"] and row[0] == "`m.gguf`" and float(row[1].split(" ")[0]) > 0
    again = command("card", "m.gguf", "--reports", "records", "--force", "--serve-ctx", "64")
    assert "llama-bench" not in again.err and table(card_of(workplace, "card"), "Tokens/s")[0][1] == "pp8"
