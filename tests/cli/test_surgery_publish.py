"""`quantplan surgery publish` as typed: from edits to a folder with card, Modelfile and files that are what they say."""

import json

import pytest

from quantplan.gguf.reader import read_model
from quantplan.surgery.layer_map_files import LAYER_MAPS

pytestmark = pytest.mark.llamacpp
FEW = "--windows 4 --sample 32k --refine-windows 8 --judge-windows 8 --types k,Q8_0 --no-refine"


@pytest.fixture
def texts(workplace, small_text, calibration_text):
    heldout = workplace / "evaluation.txt"
    heldout.write_text(calibration_text.read_text(encoding="utf-8")[50_000:58_000], encoding="utf-8")
    return ("--calibration", small_text, "--text", heldout, "--ctx", "64")


def words(model, texts, *more):
    return ("surgery", "publish", model, "bridge 0 after 0", "--name", "three", *texts, "--threads", "1", *more)


def test_a_dry_run_lists_the_commands_and_makes_nothing(command, small_model, texts, files):
    before = files()
    of_card = ("--repo", "me/three", "--system", "Be kind.", "--parameter", "top_k=20", "-pg", "64,16")
    done = command(*words(small_model, texts, "--dry-run", "-b", "5bpw", "--run-options", FEW, *of_card))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "surgery",
        "init",
        "measure",
        "score",
        "run",
        *["quantize"] * 5,
        "measure",
        "card",
    ]
    assert "'bridge 0 after 0' --name three --out three-F16.gguf" in lines[0]
    assert lines[4] == f"quantplan run --budget 5bpw {FEW} --threads 1"
    assert lines[5] == "quantplan quantize Q8_0 --out publish/three-Q8_0.gguf --threads 1"
    card_words = "--out publish --force --repo me/three --system 'Be kind.' --parameter top_k=20"
    assert (
        lines[-1].endswith(f"{card_words} --speed --pg 64,16 --repetitions 5 --threads 1")
        and "publish/three-plan-5bpw.gguf" in lines[-1]
    )
    assert files() == before


def test_all_that_is_published_and_nothing_twice(command, small_model, texts, workplace):
    wanted = words(small_model, texts, "--stock", "Q8_0,Q2_K", "-b", "Q4_K_M", "--run-options", FEW, "--no-score")
    done = command(*wanted)
    assert done.code == 0, done.err
    folder = workplace / "three"
    record = LAYER_MAPS.read(folder / "three-F16.layers.json")
    assert read_model(folder / "three-F16.gguf").digest == record.result.digest and len(record.layer_map) == 3
    names = {path.name for path in (folder / "publish").iterdir()}
    assert LAYER_MAPS.read(folder / "publish" / "three-F16.layers.json") == record
    assert {"three-plan-Q4_K_M.gguf", "three-Q8_0.gguf", "three-Q2_K.gguf", "README.md", "Modelfile"} <= names
    assert all(read_model(path).blocks == 3 for path in (folder / "publish").glob("*.gguf"))
    text = (folder / "publish" / "README.md").read_text(encoding="utf-8")
    assert "**Bridge**: a copy of layer 0 is put in after layer 0." in text and "### Against the original" in text
    assert "The stock quant `Q2_K` of llama.cpp, with an imatrix." in text
    for name in ("three-plan-Q4_K_M", "three-Q8_0", "three-Q2_K"):
        (row,) = (
            line for line in text.splitlines() if line.startswith(f"| `{name}.gguf` | ") and "Q" in line.split("|")[2]
        )
        assert "not measured" not in row
    assert "FROM ./three-" in (folder / "publish" / "Modelfile").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.gguf")}
    done = command(*wanted, "--json")
    assert done.code == 0
    fields = json.loads(done.out)
    assert fields["written"] and str(folder.relative_to(workplace) / "publish" / "README.md") in fields["files"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.gguf")} == before


def test_what_an_earlier_run_left_is_not_published_as_something_else(
    command, small_model, small_text, texts, workplace
):
    wanted = words(small_model, texts, "--run-options", "--types nonsense", "--no-score")
    assert command(*wanted).code == 5
    folder = workplace / "three"
    file, record = folder / "three-F16.gguf", folder / "three-F16.layers.json"
    other = [*wanted[:3], "bridge 1 after 1", *wanted[4:]]
    for call, message in (
        (other, "three-F16.gguf was made with other edits, 'bridge 0 after 0'; choose another --out"),
        (["32" if word == "64" else word for word in wanted], "has chunks of 64 tokens, not 32"),
        (
            [small_text if word == texts[3] else word for word in wanted],
            "three/quantplan.toml names another evaluation text, evaluation.txt, not ",
        ),
    ):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        for dry in ((), ("--dry-run",)):
            done = command(*call, *dry)
            assert done.code == 2 and message in done.error
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    record.unlink()  # as after a kill between the two
    file.write_bytes(b"half")
    assert command(*wanted).code == 5
    assert read_model(file).digest == LAYER_MAPS.read(record).result.digest


def test_edits_in_a_file_and_a_budget_by_file(command, small_model, texts, workplace):
    (workplace / "edits.txt").write_text("swap 0 1  # only this\n", encoding="utf-8")
    size = ("--budget", f"={small_model}", "--name", "s")
    done = command("surgery", "publish", small_model, "edits.txt", *texts, *size, "--dry-run", "--json")
    assert done.code == 0
    fields = json.loads(done.out)
    assert not fields["written"] and "'swap 0 1' --name s" in fields["commands"][0]
    (run,) = (line for line in fields["commands"] if line.startswith("quantplan run"))
    assert (workplace / "s" / run.split("=")[1]).resolve() == small_model.resolve()
    assert f"publish/s-plan-{small_model.stem}.gguf" in fields["commands"][-1]


def test_the_best_of_a_search_is_taken(command, small_model, texts, workplace):
    from quantplan.measurement import Conditions, Estimate
    from quantplan.surgery.apply_edits import apply_edits
    from quantplan.surgery.edits import parse_edits
    from quantplan.surgery.search.leaderboard import Leaderboard, RankedCandidate
    from quantplan.surgery.search.leaderboard_files import LEADERBOARDS

    where = Conditions("t", 64, 8, read_model(small_model).digest, "in-process", "cpu", "0.3.36")
    rows = tuple(
        RankedCandidate(
            edits=edits, layer_map=apply_edits(2, parse_edits(edits)), family="swap", phase=1, ppl=ppl, kld=ppl
        )
        for edits, ppl in (("swap 0 1", Estimate(3.0, 0.1)), ("delete 1", Estimate(4.0, 0.1)))
    )
    board = Leaderboard(
        model="tied", blocks=2, by="ppl", conditions=where, families=("swap",), original=None, standings=rows
    )
    LEADERBOARDS.write(board, workplace / "tied.surgery.json")
    done = command("surgery", "publish", small_model, "tied.surgery.json", *texts, "--dry-run")
    assert done.code == 0 and "'swap 0 1' --name tied-operated" in done.out


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("swap 0 7", 2, "there is no layer 7"),
        ("gone.layers.json", 3, "gone.layers.json"),
        ("gone.surgery.json", 3, "gone.surgery.json"),
    ],
)
def test_what_is_refused(command, small_model, texts, what, code, message, files):
    before = files()
    done = command("surgery", "publish", small_model, what, *texts)
    assert done.code == code and message in done.error
    assert files() == before


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--budget", "4bananas"), 2, "unknown unit 'bananas'"),
        (("--run-options", "'open"), 2, "No closing quotation"),
        (("--repo", "no repo"), 2, "write OWNER/REPO"),
        (("--name", "a/b"), 2, "so no slashes"),
        (("--text", "none.txt"), 2, "give --text one file or one folder"),
        (("--stock", "Q9_K"), 5, "Q9_K"),
    ],
)
def test_mistakes_cost_no_step(command, small_model, texts, more, code, message, files):
    before = files()
    done = command("surgery", "publish", small_model, "swap 0 1", *texts, *more)
    assert done.code == code and message in done.error and "\n$ " not in done.err
    assert files() == before


def test_texts_are_needed(command, small_model, texts):
    done = command("surgery", "publish", small_model, "swap 0 1")
    assert done.code == 2 and "no evaluation text: give --text" in done.error
    done = command("surgery", "publish", small_model, "swap 0 1", *texts[2:])
    assert done.code == 2 and "give --calibration one file or one folder" in done.error
    done = command("surgery", "publish", small_model, "swap 0 1", *texts[:2], "--text", "none.txt")
    assert done.code == 3 and "none.txt" in done.error


def test_a_step_that_fails_ends_it(command, small_model, texts, workplace):
    done = command(*words(small_model, texts, "--run-options", "--types nonsense", "--no-score"))
    assert done.code == 5
    assert (workplace / "three" / "three-F16.gguf").is_file() and not (workplace / "three" / "publish").exists()
    assert json.loads((workplace / "three" / "three-F16.layers.json").read_text())["edits"] == "bridge 0 after 0"
