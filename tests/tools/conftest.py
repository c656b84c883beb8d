"""Commands as typed, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Shell:
    """Commands of quantplan typed in a folder, each a process of its own."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *words, code=0):
        """(stdout, stderr) of the command."""
        command = [sys.executable, "-m", "quantplan.cli.main", *(str(word) for word in words)]
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr


@pytest.fixture(scope="session")
def shell_in():
    """A shell in a folder: ``shell_in(folder)("measure", "model.gguf")``."""
    return Shell
