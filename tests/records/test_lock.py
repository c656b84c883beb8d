"""One process at a time: who holds a folder is said in a sentence, and a process that was killed holds nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from quantplan.errors import InUse
from quantplan.records.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from quantplan.records.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a folder until it is told to end."""

    def __init__(self, folder):
        words = [sys.executable, "-c", HOLD, str(folder), "solve", "--budget", "5 bpw"]
        environment = {name: value for name, value in os.environ.items() if name != "QUANTPLAN_LOCKED"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout.readline() == "held\n"

    def end(self, signal_number=None):
        if signal_number:
            self.process.send_signal(signal_number)
        self.process.communicate()


@pytest.fixture
def holder(tmp_path):
    made = Holder(tmp_path)
    yield made
    made.end()


def test_who_holds_it(holder, tmp_path):
    with pytest.raises(InUse) as refused, locked(tmp_path):
        pass
    sentence = re.compile(
        rf"{re.escape(str(tmp_path))} is in use by process {holder.process.pid} on \S+ \(`quantplan .*'5 bpw'`, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*\); wait until it has ended, stop it, or work in another folder"
    )
    assert sentence.fullmatch(str(refused.value))
    with locked(tmp_path / "other"):  # another folder is free
        pass


def test_it_is_free_when_its_holder_ends(holder, tmp_path):
    holder.end()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".quantplan/lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".quantplan/lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
def test_a_killed_holder_holds_nothing(holder, tmp_path):
    holder.end(signal.SIGKILL)
    assert (tmp_path / ".quantplan/lock").exists()
    with locked(tmp_path):
        pass


def test_an_error_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    with locked(tmp_path):
        pass


def test_a_process_has_it_once_for_all_that_it_does(tmp_path):
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / ".quantplan/lock").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="inherited descriptors are of POSIX")
def test_a_step_keeps_the_folder_of_its_command(tmp_path):
    """Where the command is killed and its step is not: the folder is not free until that has ended too."""
    code = (
        "import os, subprocess, sys; from pathlib import Path; from quantplan.records.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    step = subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]], close_fds=False)\n"
        "    print(step.pid, flush=True)\n"
        "    step.wait()"
    )
    words = [sys.executable, "-c", code, str(tmp_path), HOLD]  # the step takes the lock of its command for its own
    command = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines = {command.stdout.readline().strip(), command.stdout.readline().strip()}
    (step,) = (psutil.Process(int(pid)) for pid in lines - {"held"})
    command.kill()
    command.wait()
    with pytest.raises(InUse, match="which has ended, but not what it started"), locked(tmp_path):
        pass
    command.stdin.close()
    step.wait()
    with locked(Path(tmp_path)):
        pass
