"""Each command's help has an example; here all of them run as printed, in a project like that of the demo."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from all_commands import all_commands

from quantplan.cli.demo import MODEL, PLAN, STOCK_QUANT
from quantplan.run.demo_text import demo_texts

pytestmark = pytest.mark.llamacpp
# fewer types: in each process ggml needs 20 s to make the codebooks of IQ1 and IQ2; chunks as in the example of probe
FEW = {
    "QUANTPLAN_TYPES": "k,IQ4_XS,Q8_0",
    "QUANTPLAN_CHUNKS": "8",
    "QUANTPLAN_REPETITIONS": "1",
    "QUANTPLAN_THREADS": "1",
}
DATA = Path(__file__).parents[2] / "quantplan" / "data" / MODEL


def examples():
    found = {}
    for name, command in all_commands().items():
        paragraph = next(part for part in command.help.split("\n\n") if part.startswith("Example"))
        found[name] = " ".join(paragraph.partition(": ")[2].split())
    return found


def run(command, folder):
    """Runs a command line of quantplan commands joined by &&; the last one's result."""
    for part in command.split(" && "):
        program, *words = shlex.split(part)
        assert program == "quantplan"
        line = [sys.executable, "-m", "quantplan.cli.main", *words]
        environment = os.environ | FEW
        result = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{part}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
        assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(DATA, folder / MODEL)
    run(f"quantplan init {MODEL} --ctx 128", folder)
    for name, text in zip(("calibration", "evaluation"), demo_texts(), strict=True):
        (folder / "calibration" / f"{name}.txt").write_text(
            text[: 9_000 if name == "calibration" else 30_000], encoding="utf-8"
        )
    run("quantplan imatrix", folder)
    run(f"quantplan solve --budget {STOCK_QUANT} --out {PLAN}", folder)
    return folder


@pytest.mark.parametrize("name", [name for name in examples() if name != "demo"])
def test_example_runs_as_printed(name, project):
    command = examples()[name]
    assert re.match(r"quantplan \S", command)
    run(command, project)


def test_demo_example_and_its_steps(tmp_path):
    """The whole demo takes minutes; its steps are the commands above, here only listed."""
    printed = run(examples()["demo"] + " --dry-run", tmp_path).stdout.splitlines()
    known = set(examples())
    assert [line.split()[1] for line in printed] == [
        "init",
        "imatrix",
        "analyze",
        "probe",
        "solve",
        "quantize",
        "compare",
    ]
    assert {line.split()[1] for line in printed} <= known
    assert not any(tmp_path.iterdir())
