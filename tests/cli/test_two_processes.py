"""Two processes in one project: one measures, the other says who does; what only reads or writes whole files goes on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from quantplan.records.lock import locked

HOLD = (
    "import sys; from pathlib import Path; from quantplan.records.lock import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.read()"
)
FEW = ("--chunks", "2", "--threads", "1", "--types", "Q4_K,Q8_0", "--sample", "32k")


@pytest.fixture
def project(command, workplace, small_model, small_text, calibration_text, monkeypatch):
    evaluation = workplace / "evaluation.txt"
    evaluation.write_text(calibration_text.read_text(encoding="utf-8")[50_000:58_000], encoding="utf-8")
    words = ("--calibration", small_text, "--text", evaluation, "--ctx", "64")
    assert command("init", small_model, "--folder", "p", *words).code == 0
    monkeypatch.chdir(workplace / "p")
    return workplace / "p"


@pytest.fixture
def other(project):
    """Another process that works in the project."""
    words = [sys.executable, "-c", HOLD, str(project)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "words",
    [
        ("run", "--budget", "5bpw", *FEW),
        ("probe", *FEW),
        ("solve", "--budget", "5bpw", *FEW),
        ("frontier", "--points", "3", *FEW),
        ("report", *FEW),
        ("surgery", "search", "--family", "swap:1", "--threads", "1"),
        ("surgery", "publish", "MODEL", "swap 0 1", "--out", ".", "--name", "tied", "--no-score"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_the_second_is_told_of_the_first(command, other, project, small_model, words):
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    words = [small_model if word == "MODEL" else word for word in words]
    if "publish" in words:
        (project / "quantplan.toml").unlink()  # publish makes its own
        before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
        words += ["--calibration", project.parent / "evaluation.txt", "--text", project.parent / "evaluation.txt"]
    done = command(*words)
    assert done.code == 14
    assert f"is in use by process {other.pid} on " in done.error and "since 20" in done.error
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "words",
    [
        ("solve", "--budget", "5bpw", "--sensitivity", "prior"),
        ("report", "--sensitivity", "prior"),
        ("measure", "MODEL", "--chunks", "2", "--threads", "1"),
        ("run", "--budget", "5bpw", "--dry-run"),
        ("quantize", "Q4_K_M", "--threads", "1"),
    ],
    ids=lambda words: words[0],
)
def test_what_needs_no_lock_goes_on(command, other, small_model, words):
    done = command(*(small_model if word == "MODEL" else word for word in words))
    assert done.code == 0, done.err


@pytest.mark.llamacpp
def test_two_real_commands_and_one_that_was_killed(command, project):
    """Of two probes one works and one is refused; killed, it leaves nothing in the way."""
    line = [sys.executable, "-m", "quantplan.cli.main", "probe", *FEW]
    first = subprocess.Popen(line, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (project / ".quantplan" / "lock").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it is still at work
    second = command("probe", *FEW)
    assert (
        second.code == 14 and f"process {first.pid} on " in second.error and "`quantplan probe --chunks" in second.error
    )
    first.kill()
    first.wait()
    with locked(project):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is told by Linux")
def test_a_step_ends_with_its_command(tmp_path):
    step = "import sys, time; from quantplan.cli import steps; steps.end_with_parent(); print('up', flush=True); time.sleep(99)"
    code = (
        "import os, subprocess, sys\n"
        "step = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=os.environ | {'QUANTPLAN_STEP_OF': str(os.getpid())})\n"
        "print(step.pid, flush=True)\n"
        "step.wait()"
    )
    command = subprocess.Popen([sys.executable, "-c", code, step], stdout=subprocess.PIPE, text=True, env=os.environ)
    lines = {command.stdout.readline().strip(), command.stdout.readline().strip()}
    (pid,) = lines - {"up"}
    running = psutil.Process(int(pid))
    command.kill()
    command.communicate()
    assert running.wait(10) is None or not running.is_running()
