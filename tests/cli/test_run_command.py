"""`quantplan run` as typed: a project with a tiny model, two sizes, and what is left to do when all is done."""

import json

import pytest

from quantplan.cache_types import F16_CACHE, parse_kv
from quantplan.evaluate import baselines as baselines
from quantplan.evaluate import cache_sensitivities
from quantplan.gguf.reader import read_model
from quantplan.records.formats import CACHE_SENSITIVITIES, PLANS

pytestmark = pytest.mark.llamacpp
FEW = (
    "--threads",
    "1",
    "--chunks",
    "4",
    "--sample",
    "32k",
    "--validation-chunks",
    "8",
    "--eval-chunks",
    "8",
    "--types",
    "k,Q8_0",
)


OF_TABLE = ["second moments", "rounding errors", "probe"]
OF_FILES = ["llama-quantize", "compensated rounding", "validation", "evaluation"]


def figures(command, *words):
    """What --dry-run expects."""
    done = command("run", *FEW, *words, "--dry-run", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["expected"]


def stages(command, *words):
    return [stage["name"] for stage in figures(command, *words)["stages"]]


@pytest.fixture
def project(command, workplace, small_model, small_text, calibration_text, monkeypatch):
    monkeypatch.setattr(baselines, "published_ftypes", lambda: ("Q3_K_M", "Q4_K_M", "Q5_K_M"))
    heldout = workplace / "evaluation.txt"
    heldout.write_text(calibration_text.read_text(encoding="utf-8")[50_000:58_000], encoding="utf-8")
    made = command("init", small_model, "--folder", "p", "--calibration", small_text, "--text", heldout, "--ctx", "64")
    assert made.code == 0, made.err
    monkeypatch.chdir(workplace / "p")
    return workplace / "p"


def test_two_sizes_from_nothing_and_again(command, project):
    before = command("run", "-b", "5.5bpw", "-b", "Q4_K_M", *FEW, "--dry-run")
    assert before.code == 0 and "imatrix/tied.gguf is made first" in before.out
    assert stages(command, "-b", "5.5bpw", "-b", "Q4_K_M") == ["imatrix", *OF_TABLE, *OF_FILES]

    done = command("run", "-b", "5.5bpw", "-b", "Q4_K_M", *FEW, "--json")
    assert done.code == 0, done.err
    assert "+ (cd" in done.err and "llama-imatrix -m" in done.err
    found = json.loads(done.out)
    assert [each["budget"] for each in found] == ["5.5bpw", "Q4_K_M"]
    for each, stem in zip(found, ("tied-5.5bpw", "tied-q4_k_m"), strict=True):
        built = read_model(project / f"{stem}.gguf")
        assert each["file"] == f"{stem}.gguf" and each["file_bytes"] == built.file_bytes <= each["budget_bytes"]
        PLANS.read(project / "plans" / f"{stem}.json").check_built(built)
        record = json.loads((project / "reports" / f"{stem}.run.json").read_text())
        assert record["format"] == "quantplan-run" and record["kld"] == each["kld"]
        compared = json.loads((project / "reports" / f"{stem}.comparison.json").read_text())
        assert len(compared["rows"]) == len(each["judged"]) >= 2
        assert each["handed_over"] in ("plan", "mix") and each["refinement"]["measured"]
    assert list((project / "imatrix").glob("*.gguf"))

    again = command("run", "-b", "5.5bpw", "-b", "Q4_K_M", *FEW, "--dry-run")
    assert again.code == 0, again.err
    assert "table     in the cache" in again.out and again.out.count("evaluated, the file exists") == 2
    assert "expected" not in again.out and stages(command, "-b", "Q4_K_M") == []
    assert stages(command, "-b", "6bpw") == OF_FILES


def test_an_estimate_grows_with_the_sizes_and_the_text(command, project):
    one, two = (figures(command, *words) for words in (("-b", "Q4_K_M"), ("-b", "Q4_K_M", "-b", "6bpw")))
    assert [stage["name"] for stage in two["stages"]] == ["imatrix", *OF_TABLE, *OF_FILES]
    assert all(stage["seconds"] > 0 and stage["memory_bytes"] > 0 for stage in one["stages"] + two["stages"])
    assert two["disk_bytes"] > one["disk_bytes"] > 0
    fixed = figures(command, "-b", "Q4_K_M", "--sensitivity", "prior", "--no-refine")
    assert [stage["name"] for stage in fixed["stages"]] == ["imatrix", "llama-quantize", "validation", "evaluation"]
    refined = figures(command, "-b", "Q4_K_M", "--sensitivity", "prior")
    assert refined["seconds"] > fixed["seconds"]  # refined unless rounding is compensated
    unsized = command("run", "-b", "IQ2_XXS", *FEW[:-2], "--dry-run")  # a size that depends on the imatrix
    assert unsized.code == 0 and "imatrix/tied.gguf would be made first" in unsized.out
    elsewhere = figures(command, "-b", "Q4_K_M", "-j", "2")
    assert elsewhere["seconds"] is None and elsewhere["unknown"] == "it runs in other processes"


def test_the_table_says_which_file_was_kept(command, project):
    done = command("run", "-b", "Q4_K_M", *FEW, "--no-refine")
    assert done.code == 0, done.err
    assert "tied-q4_k_m.gguf" in done.out and "Measured on 8 chunks of 64 tokens." in done.out
    assert "the plan as solved" in done.out or "keeping Q" in done.out


def test_sensitivities_of_a_table(command, project, small_imatrix):
    (project / "quantplan.toml").open("a").write('\n[plan]\nsensitivity = "table.json"\n')
    words = ("--imatrix", small_imatrix, "--threads", "1", "--chunks", "4", "--sample", "32k", "--types", "k,Q8_0")
    assert command("probe", *words, "--out", "table.json").code == 0
    done = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, *FEW, "--no-refine", "--json")
    assert done.code == 0, done.err
    assert "probed" not in done.err and json.loads(done.out)[0]["kld"] > 0
    again = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, *FEW, "--no-refine", "--dry-run")
    assert "table     in the cache" in again.out


@pytest.mark.parametrize(
    "words, message",
    [
        (("--types", "Q99"), "there is no quantization type 'Q99'"),
        (("--validation-chunks", "3"), "at least 4, half to refine"),
        (("--with", "Q9_X"), "Q9_X"),
        (("--pin", "attn_w=Q8_0"), "no quantizable tensor matches 'attn_w'"),
        (("--text", "nowhere.txt"), "cannot read the text nowhere.txt"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(command, project, small_imatrix, files, words, message):
    before = files()
    ended = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, *words)
    assert ended.code in (2, 3, 5) and message in ended.error
    assert files() == before


def test_a_size_that_does_not_exist(command, project, small_imatrix):
    ended = command("run", "-b", "Q4_K_M", "-b", "1bpw", "--imatrix", small_imatrix)
    assert ended.code == 6 and "no file of 1bpw" in ended.error


def test_what_refines_must_not_judge(command, project, small_imatrix, workplace):
    text = workplace / "evaluation.txt"
    ended = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, "--validation", text)
    assert ended.code == 2 and "validate on another" in ended.error


def test_what_decides_about_rounding_is_used_for_nothing_else(command, project, small_imatrix, workplace, small_text):
    for text, name in ((workplace / "evaluation.txt", "evaluation"), (small_text, "calibration")):
        ended = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, "--other-domain", text)
        assert ended.code == 2 and f"of the long lines of the {name} text are also in" in ended.error


def test_without_calibration_text(command, project, small_imatrix, monkeypatch):
    (project / "quantplan.toml").write_text('model = "../nowhere.gguf"\n', encoding="utf-8")
    ended = command("run", "-b", "Q4_K_M", "--imatrix", small_imatrix, "-m", "nowhere.gguf")
    assert ended.code == 3 and "nowhere.gguf" in ended.error


def test_texts_that_are_too_short(command, project, files, workplace):
    (workplace / "short.txt").write_text("A few words that make no chunk at all.\n", encoding="utf-8")
    before = files()
    ended = command("run", "-b", "Q4_K_M", "--validation", workplace / "short.txt")
    assert ended.code == 10 and "the validation text has 0 chunks of 64 tokens, at least 4 are needed" in ended.error
    ended = command("run", "-b", "Q4_K_M", "--text", workplace / "short.txt")
    assert ended.code == 10 and "the evaluation text has 0 chunks" in ended.error
    assert files() == before


def test_a_header_without_weights(command, project, workplace):
    from quantplan.gguf.writer import write_header_only
    from quantplan.quant_type import BY_NAME

    shapes = [("blk.0.attn_q.weight", (4096, 65536), BY_NAME["F16"])]
    path = write_header_only(workplace / "header.gguf", "llama", {}, shapes)
    ended = command("run", "-b", "5bpw", "-m", path)
    assert ended.code == 3 and "a header without weights" in ended.error


def test_cache_types_are_chosen_with_the_weights(command, project, monkeypatch):
    """The plan of the file names them, whatever was refined; a second run has nothing to do."""
    monkeypatch.setattr(cache_sensitivities, "possible_caches", lambda _model: [F16_CACHE, parse_kv("q8_0,q4_0")])
    memory = json.loads(command("memory", "--serve-ctx", "8192", "--json").out)["contexts"][0]
    vram = str(memory["vram"] - memory["gpu_weights"] + 2_000_000)
    words = ("run", "--vram", vram, "--serve-ctx", "8192", "--kv", "auto", "--kv-ctx", "256", *FEW, "--no-refine")
    done = command(*words)
    assert done.code == 0, done.err
    (path,) = (project / "plans").glob("*.json")
    plan = PLANS.read(path)
    assert plan.cache.types in ("f16", "q8_0,q4_0") and (plan.cache.ctx, plan.cache.n_ctx) == (8192, 256)
    table = CACHE_SENSITIVITIES.read(project / "reports" / "tied.cache.json")
    assert plan.cache.kld == table.klds[parse_kv(plan.cache.types)]
    fixed = json.loads(command("memory", path, "--serve-ctx", "8192", "--kv", plan.cache.types, "--json").out)
    assert fixed["contexts"][0]["vram"] <= int(vram)
