import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import fine_tuned

from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import quantizable
from quantplan.quant_type import parse_types
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.sensitivity.rows import prior_table

pytestmark = pytest.mark.llamacpp
ROOT = Path(__file__).parents[2]
SHORT = ("--ctx", "128", "--chunks", "8", "--threads", "1", "--types", "Q4_0,Q8_0")


def test_probe_and_solve_from_its_table(command, workplace, small_model, small_text, small_imatrix):
    words = [
        "probe",
        "-m",
        small_model,
        "--imatrix",
        small_imatrix,
        "--calibration",
        small_text,
        *SHORT,
        "--out",
        "d.json",
    ]
    done = command(*words)
    assert done.code == 0
    assert "noise floor of the forward pass" in done.err and "sensitivity table written to d.json" in done.err
    assert "token_embd.weight" in done.out
    table = SENSITIVITY_TABLES.read(workplace / "d.json")
    assert table.calibrated and len(table.rows) == 15

    again = command(*words, "--json")
    figures = json.loads(again.out)
    assert set(figures) == {
        "model",
        "tensors",
        "noise_floor",
        "not_found",
        "encodings",
        "domains",
        "overhead",
        "forward_passes",
        "seconds",
    }
    assert (figures["forward_passes"], figures["overhead"], figures["not_found"]) == (0, None, [])
    assert len(figures["tensors"]) == 15
    for tensor in figures["tensors"]:
        assert set(tensor) == {"name", "scale", "scale_err", "kld", "error", "windows"}
        assert tensor["windows"] == 8 and 0 < tensor["scale_err"] < tensor["scale"]

    plan = command(
        "solve",
        "-m",
        small_model,
        "--imatrix",
        small_imatrix,
        "--sensitivity",
        "d.json",
        "-b",
        "45%",
        "--types",
        "Q4_0,Q8_0",
        "--json",
    )
    assert plan.code == 0 and "uncalibrated" not in plan.err
    assert json.loads(plan.out)["predicted_kld"] > 0


def test_without_imatrix_there_is_a_warning(command, small_model, small_text):
    done = command("probe", "-m", small_model, "--calibration", small_text, *SHORT, "--dry-run")
    assert "warning: no imatrix" in done.err


def test_dry_run_says_how_much_it_would_do(command, workplace, small_model, small_text):
    done = command("probe", "-m", small_model, "--calibration", small_text, *SHORT, "--dry-run")
    first, expected, *stages = done.out.splitlines()
    assert (done.code, first) == (0, "15 tensors, 8 chunks of 128 tokens each, one swap per tensor")
    assert expected.startswith("expected: about ")
    assert [stage.split(": ")[0] for stage in stages] == ["  second moments", "  rounding errors", "  probe"]
    done = command("probe", "-m", small_model, "--calibration", small_text, "--ctx", "1024", "--dry-run")
    assert done.out.startswith("15 tensors, 4 chunks of 1024 tokens each, one swap per tensor\n")
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["-m", "MODEL"], 2, "no calibration text"),
        (["--calibration", "TEXT"], 2, "which model?"),
        (["-m", "MODEL", "--calibration", "few.txt"], 10, "the text has 4 tokens, at least 256 are needed"),
        (["-m", "MODEL", "--calibration", "empty.txt"], 3, "the text is empty"),
        (["-m", "MODEL", "--calibration", "nofile.txt"], 3, "cannot read the text nofile.txt"),
        (["-m", "MODEL", "--calibration", "TEXT", "--chunks", "-1"], 2, "--chunks"),
        (
            ["-m", "MODEL", "--calibration", "TEXT", "--sample", "much"],
            2,
            "--sample much: write a number of weights",
        ),
        (["-m", "MODEL", "--calibration", "TEXT", "--types", "Q9"], 5, "no quantization type 'Q9'"),
        (["-m", "MODEL", "--calibration", "TEXT", "--types", "F32"], 5, "cannot be stored as F32"),
        (["-m", "hole.gguf", "--calibration", "TEXT"], 2, "holds a header without weights"),
        (
            ["-m", "MODEL", "--imatrix", "other.gguf", "--calibration", "TEXT"],
            4,
            "it was made from another model",
        ),
    ],
)
def test_refused(command, workplace, small_model, small_text, reference_imatrix, words, code, message):
    from model_shapes import QWEN3_8B

    (workplace / "few.txt").write_text("only a few words")
    (workplace / "empty.txt").write_text("")
    if "hole.gguf" in words:
        QWEN3_8B.write(workplace / "hole.gguf")
    if "other.gguf" in words:
        (workplace / "other.gguf").write_bytes(reference_imatrix.read_bytes())
    named = {"MODEL": small_model, "TEXT": small_text}
    done = command(
        "probe",
        *(named.get(word, word) for word in words),
        *(SHORT[:2] if "--types" in words else (*SHORT[:2], *SHORT[6:])),
    )
    assert done.code == code and message in done.error and done.out == ""
    assert not (workplace / "cache").exists()


def test_the_cache_cannot_be_written(command, workplace, small_model, small_text):
    (workplace / "cache").write_text("in the way")
    done = command("probe", "-m", small_model, "--calibration", small_text, *SHORT)
    assert done.code == 3 and "the cache" in done.error


def test_the_disk_is_full(command, small_model, small_text, full_disk):
    done = command("probe", "-m", small_model, "--calibration", small_text, *SHORT)
    assert done.code == 11 and "no space left on the disk for" in done.error and "cache" in done.error


# A real signal, sent by the process to itself in the middle of the third swap: no race with a clock
INTERRUPTING = """
import os, signal
from quantplan.cli.main import main
from quantplan.sensitivity.tensor_swap import TensorSwapper
swap, swaps = TensorSwapper.swap, []
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with SIGINT ignored

def interrupted(*arguments):
    swaps.append(swap(*arguments))
    if len(swaps) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return swaps[-1]

TensorSwapper.swap = interrupted
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to oneself on Windows")
def test_ctrl_c_keeps_what_was_finished(workplace, small_model, small_text):
    """In the middle of the swaps: exit code 130, one sentence, and the finished tensors in the journal."""
    (workplace / "quantplan.toml").write_text(f'model = "{small_model}"\ncalibration = "{small_text}"\nctx = 128\n')
    words = ["probe", "--chunks", "8", "--threads", "1", "--types", "Q4_0"]
    interrupting = [sys.executable, "-c", INTERRUPTING, *words]
    plain = [sys.executable, "-m", "quantplan.cli.main", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def finished():
        results = {}
        for path in (workplace / "cache").glob("probe-*.jsonl"):
            lines = filter(None, path.read_bytes().split(b"\n"))
            results |= dict(json.loads(line.split(b" ", 1)[1]) for line in lines)
        return {name: value for name, value in results.items() if not name.startswith("#")}

    stopped = subprocess.run(interrupting, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130
    assert stopped.stdout == "" and "Traceback" not in stopped.stderr
    assert stopped.stderr.rstrip().endswith("interrupted; finished steps are kept, the same command resumes")
    kept = finished()
    assert len(kept) == 2
    done = subprocess.run(plain, cwd=workplace, env=environment, capture_output=True, check=True)
    assert b"token_embd.weight" in done.stdout
    assert {name: finished()[name] for name in kept} == kept  # nothing was measured again


def test_a_dry_run_says_what_to_expect(command, small_model, small_text):
    words = ("probe", "-m", small_model, "--calibration", small_text, "--types", "Q4_0,Q8_0", "--dry-run", "--json")

    def stages(*more):
        done = command(*words, *more)
        assert done.code == 0, done.err
        expected = json.loads(done.out)["expected"]
        assert all(stage["seconds"] > 0 and stage["memory_bytes"] > 0 for stage in expected["stages"])
        assert expected["seconds"] == pytest.approx(sum(stage["seconds"] for stage in expected["stages"]))
        return {stage["name"]: stage for stage in expected["stages"]}

    assert list(stages()) == ["second moments", "rounding errors", "probe"] and stages()["second moments"]["disk_bytes"]
    assert list(stages("--rounding", "stock")) == ["rounding errors", "probe"]
    elsewhere = json.loads(command(*words, "-j", "2").out)["expected"]
    assert elsewhere["seconds"] is None and elsewhere["unknown"] == "it runs in other processes"
    measured = command("measure", small_model, "-m", small_model, "--text", small_text, "--ctx", "64", "--dry-run")
    assert measured.code == 0 and re.search(
        r"^expected: about \d+ (s|min), [\d.]+ MB of memory$", measured.out, re.MULTILINE
    )
    few, all_chunks = (
        json.loads(
            command("measure", small_model, "-m", small_model, "--text", small_text, *more, "--dry-run", "--json").out
        )
        for more in (("--ctx", "64", "--chunks", "2"), ("--ctx", "64"))
    )
    assert few["expected"]["memory_bytes"] < all_chunks["expected"]["memory_bytes"] and few["expected"]["seconds"] > 0


def test_a_few_probes_against_the_table_of_a_sibling(command, workplace, small_model, small_text, small_imatrix):
    """Typical figures of a prior serve as the table."""
    model, tuned = read_model(small_model), fine_tuned(small_model, workplace / "tuned.gguf")
    SENSITIVITY_TABLES.write(prior_table(model, quantizable(model), parse_types("Q4_0,Q8_0"), None), "base.json")
    given = ("--imatrix", small_imatrix, "--calibration", small_text, "-c", 128, "--chunks", 4, "-t", 1)
    words = ("probe", "-m", tuned, *given, "--rounding", "stock", "--against", "base.json", "--sibling-probes", 3)
    announced = command(*words, "--dry-run")
    assert announced.out.startswith("would probe 3 tensors: ") and announced.code == 0
    done = command(*words)
    assert done.code == 0 and "table / measured" in done.out and "3 tensors were probed: correlation" in done.out
    figures = json.loads(command(*words, "--json").out)
    assert [tensor["type"] for tensor in figures["tensors"]] == ["Q4_0"] * 3 and figures["correlation"] <= 1
