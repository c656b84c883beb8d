"""Tasks and speed through llama.cpp's own tools, by library and as typed."""

import json
import re
from pathlib import Path

import pytest

from quantplan.devices.speed.llama_bench import measure_speed
from quantplan.errors import BadUsage
from quantplan.evaluate import tasks
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.task_files import Question, encode, read_task_file
from quantplan.evaluate.tasks import score_tasks
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.bench import BenchTests
from quantplan.llamacpp.tools import run
from quantplan.records.formats import TASK_SCORES

pytestmark = pytest.mark.llamacpp
DATA = Path(__file__).parents[1] / "data"
OPTIONS = MeasureOptions(n_ctx=256, execution=Execution(1))
NAMES = {"hellaswag": "hellaswag.txt", "winogrande": "winogrande.csv", "arc": "arc.jsonl"}


@pytest.fixture(scope="module")
def data():
    return {name: read_task_file(DATA / file) for name, file in NAMES.items()}


@pytest.fixture(scope="module")
def scores(reference_model, data):
    (found,) = score_tasks([reference_model], data, None, OPTIONS)
    return {score.task: score for score in found}


def by_hand(model, mode, file, *more):
    words = ["llama-perplexity", "-m", model, f"--{mode}", *file, "-c", "256", "-t", "1", "-ngl", "0", *more]
    return run([str(word) for word in words]).log


def test_every_task_is_run(scores, data):
    for name, score in scores.items():
        assert len(score.outcomes) == len(data[name].questions) == 12, name
        assert score.conditions.mode == data[name].mode and score.notes == ()
        assert 0 < score.score.value < 100


def test_winogrande_outcomes_are_those_that_the_tool_prints_beside_its_shares(scores, reference_model):
    """Choice and right answer of each task stand in columns of their own, which are not read here."""
    for _ in range(5):  # its output is cut off now and then
        log = by_hand(reference_model, "winogrande", ["-f", DATA / "winogrande.csv"])
        chosen = re.findall(r"^\d+\t.* ([12])  ([12])$", log, re.MULTILINE)
        if len(chosen) == 12:
            break
    assert tuple(mine == right for mine, right in chosen) == scores["winogrande"].outcomes


def test_the_tools_own_summary_agrees(scores, data, reference_model, tmp_path):
    (tmp_path / "arc.bin").write_bytes(data["arc"].data)
    for _ in range(5):
        log = by_hand(reference_model, "multiple-choice", ["-bf", tmp_path / "arc.bin"], "-np", "5")
        final = re.search(r"Final result: ([\d.]+) \+/- ([\d.]+)", log)
        if final:
            break
    assert float(final[1]) == pytest.approx(scores["arc"].score.value, abs=1e-4)
    assert float(final[2]) == pytest.approx(scores["arc"].score.stderr, abs=1e-4)


def test_fewer_tasks_are_drawn_alike_for_all(reference_model, data):
    few, again = (score_tasks([reference_model], data, 5, OPTIONS)[0] for _ in range(2))
    assert few == again and {len(score.outcomes) for score in few} == {5}
    assert few[0].conditions.tasks == 5 and few[0].conditions.seed == 1


def test_finished_scores_are_kept(reference_model, data, tmp_path, monkeypatch):
    shares = []
    first = score_tasks([reference_model], data, 4, OPTIONS, shares.append, cache=tmp_path)
    assert sum(shares) == pytest.approx(1)
    monkeypatch.setattr("quantplan.llamacpp.tasks.run", lambda *_, **__: pytest.fail("was run again"))
    renamed = {f"my-{name}": given for name, given in data.items()}
    again = score_tasks([reference_model], renamed, 4, OPTIONS, cache=tmp_path)
    assert [score.outcomes for score in again[0]] == [score.outcomes for score in first[0]]
    assert [score.task for score in again[0]] == ["my-hellaswag", "my-winogrande", "my-arc"]


def test_answers_that_begin_alike_are_told(reference_model, data, tmp_path):
    """The tool reads a token behind the shorter answer, which is not there: it is not run on such a task here."""
    questions = [Question("Two and two are", ("4", "4 4"), 0), Question("Ice is", ("cold", "hot"), 0)]
    (tmp_path / "sums.bin").write_bytes(encode(questions))
    model = read_model(reference_model)
    (note,) = tasks.ambiguity_notes(model, read_task_file(tmp_path / "sums.bin"))
    assert "in 1 of the 2 tasks of sums.bin an answer is the beginning of all others" in note
    assert tasks.ambiguity_notes(model, data["arc"]) == ()


def test_a_task_longer_than_the_chunk(reference_model, tmp_path):
    line = {"question": "long " * 2000, "answers": ["yes", "no"], "correct": 0}
    (tmp_path / "long.jsonl").write_text(json.dumps(line))
    with pytest.raises(BadUsage, match=r"task 0 of this data needs \d+ tokens, more than --ctx 256"):
        score_tasks([reference_model], {"long": read_task_file(tmp_path / "long.jsonl")}, None, OPTIONS)


def test_speed(reference_model):
    (found,) = measure_speed([reference_model], OPTIONS.execution, repetitions=2)
    assert [test.name for test in found.tests] == ["pp512", "tg128", "pp512+tg128"]
    assert all(len(test.samples) == 2 and test.speed.value > 0 for test in found.tests)
    assert (found.conditions.threads, found.conditions.gpu_layers, found.conditions.repetitions) == (1, 0, 2)
    other = BenchTests((), (), ((32, 8),))
    (found,) = measure_speed([reference_model], OPTIONS.execution, 1, other)
    assert [test.name for test in found.tests] == ["pp32+tg8"]
    assert found.conditions.processor and found.conditions.llama_cpp and found.conditions.devices == "CPU"


# --- as typed


@pytest.fixture(scope="module")
def shell(shell_in, tmp_path_factory, reference_model, calibration_text):
    folder = tmp_path_factory.mktemp("folder")
    (folder / "tmp").mkdir()
    (folder / "model.gguf").symlink_to(reference_model)
    run(["llama-quantize", str(reference_model), str(folder / "q4.gguf"), "Q4_K_M", "1"])
    (folder / "judge.txt").write_text(calibration_text.read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    return shell_in(folder)


TASKS = ["--task", f"arc={DATA / 'arc.jsonl'}", "--task", f"hellaswag={DATA / 'hellaswag.txt'}", "--tasks", "6"]


def test_measure_and_compare_records(shell):
    words = ["model.gguf", "q4.gguf", *TASKS, "--ctx", "128", "--threads", "1", "--out", "records"]
    words += ["--text", "judge.txt", "--base", "model.gguf", "--chunks", "4"]
    out, err = shell("measure", *words, "--json")
    first, second = json.loads(out)
    assert [task["task"] for task in second["tasks"]] == ["arc", "hellaswag"] and second["kld"] > first["kld"] == 0
    assert err.count("+ llama-perplexity") == 4
    arc = next((shell.folder / "records").glob("q4-*.arc.task.json"))
    assert TASK_SCORES.read(arc).score.value == second["tasks"][0]["score"]
    out, err = shell("measure", *words)
    assert "+ llama-perplexity" not in err and "hellaswag" in out and "Average" in out
    records = sorted(path.name for path in (shell.folder / "records").glob("*.json"))
    assert len(records) == 6
    out, err = shell("compare", *(f"records/{name}" for name in records), "--format", "markdown", "--sort", "kld")
    assert "| model.gguf | 1 |" in out and "### Tasks" in out and "model.gguf leads by kld" in out and "+ " not in err


def test_compare_with_tasks(shell):
    words = ["compare", "q4.gguf", "model.gguf", "-m", "model.gguf", "--text", "judge.txt", "--out", "builds"]
    words += [*TASKS, "--ctx", "128", "--chunks", "4", "--threads", "1", "--reference", "Q8_0", "--format", "csv"]
    out, _ = shell(*words)
    heading, *lines = out.splitlines()
    assert {"arc", "arc_err", "arc_alike", "hellaswag", "average"} <= set(heading.split(",")) and len(lines) == 2
    assert lines[0].startswith("q4.gguf,") and lines[1].startswith("model.gguf,")
    out, err = shell(*words[:-1], "html")
    assert out.startswith("<!doctype html>") and "Shrinkage" in out and "+ llama-perplexity" not in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--task", "arc"], 2, "write NAME=FILE"),
        (["--task", f"kld={DATA / 'arc.jsonl'}"], 2, "the name kld is taken"),
        (["--task", "arc=gone.bin"], 3, "cannot read the tasks gone.bin"),
        (["--tasks", "5"], 2, "--tasks 5: of what?"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_sentence(shell, words, code, said):
    _, err = shell("measure", "model.gguf", *words, code=code)
    assert said in err and "Traceback" not in err


def test_a_figure_that_will_not_be_there_is_no_order(shell):
    words = ["compare", "model.gguf", "-m", "model.gguf", "--text", "judge.txt", "--sort", "arc"]
    assert "--sort arc: will not be measured; choose from kld, ppl, size" in shell(*words, code=2)[1]


def test_dry_run_says_what_would_be_measured(shell):
    out, err = shell("measure", "model.gguf", *TASKS, "--speed", "--dry-run")
    assert (
        "arc: 6 tasks (multiple-choice)" in out
        and "llama-bench (pp512, tg128, pp512+tg128), 5 repetitions, 1 files" in out
        and "+ " not in err
    )
    words = ["compare", "q4.gguf", "-m", "model.gguf", "--text", "judge.txt", *TASKS, "--dry-run"]
    out, err = shell(*words)
    assert "q4.gguf: 6,735,744 bytes\n" in out and "bytes, built unless it exists" in out and "+ " not in err
    assert "PPL and KLD: model.gguf once, then 2 files" in out and "hellaswag: 6 tasks" in out
