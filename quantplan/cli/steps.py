"""Commands of quantplan that a command runs in turn, each in a process of its own, as a person would type them."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from quantplan.cli import console

_STDERR = 2  # the process's own, whatever stands for it in sys.stderr


def command_line(words: Sequence[str]) -> str:
    return shlex.join(["quantplan", *words])


def run_step(words: Sequence[str], folder: Path, *, quiet: bool) -> None:
    """Shows the command and runs it in ``folder``; ``quiet``: what it prints goes to stderr.

    It shares terminal and process group: Ctrl-C reaches it too. Raises Exit with its exit code where it fails.
    """
    console.say(f"\n$ {command_line(words)}")
    command = [sys.executable, "-m", "quantplan.cli.main", *words]
    finished = subprocess.run(command, cwd=folder, check=False, stdout=_STDERR if quiet else None)
    if finished.returncode != 0:
        raise typer.Exit(finished.returncode)
