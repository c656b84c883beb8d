"""Commands of quantplan that a command runs in turn, each in a process of its own, as a person would type them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from quantplan.cli import console

_STEP_OF = "QUANTPLAN_STEP_OF"  # in the environment: the process whose step this is
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STDERR = 2  # the process's own, whatever stands for it in sys.stderr


def command_line(words: Sequence[str]) -> str:
    return shlex.join(["quantplan", *words])


def run_step(words: Sequence[str], folder: Path, *, quiet: bool) -> None:
    """Shows the command and runs it in ``folder``; ``quiet``: what it prints goes to stderr.

    It shares terminal and process group: Ctrl-C reaches it too. It works under the lock of the command whose step it is, and
    ends with it. Raises Exit with its exit code where it fails.
    """
    console.say(f"\n$ {command_line(words)}")
    command = [sys.executable, "-m", "quantplan.cli.main", *words]
    # the lock's file is the only one that is inherited
    finished = subprocess.run(
        command,
        cwd=folder,
        check=False,
        stdout=_STDERR if quiet else None,
        env=os.environ | {_STEP_OF: str(os.getpid())},
        close_fds=False,
    )
    if finished.returncode != 0:
        raise typer.Exit(finished.returncode)


def end_with_parent() -> None:
    """In a step: it ends with the command that started it, even by kill -9, so that the next one does not meet it."""
    parent = os.environ.pop(_STEP_OF, None)
    if parent is None or sys.platform != "linux":
        return
    import ctypes  # not for --help

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
