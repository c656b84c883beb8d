"""A program that a model wrote, run in a process of its own: with limits, in a temporary folder, without network."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_GUARD = Path(__file__).with_name("guard.py")
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # of the environment: Python itself may need them
_RESULT_BYTES = 1 << 16


@dataclass(frozen=True)
class Limits:
    """``seconds`` of processor time; ``patience`` in seconds by the clock, for a program that waits; ``memory`` in bytes."""

    seconds: int = 4
    patience: float = 20.0
    memory: int = 512 << 20


@dataclass(frozen=True)
class ProgramResult:
    """``reason``: why it is not right, empty where it is."""

    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason


def can_run() -> bool:
    """Whether this system can limit a process; Windows cannot."""
    return importlib.util.find_spec("resource") is not None


def run_program(code: str, tests: tuple[str, ...], limits: Limits = Limits()) -> ProgramResult:
    """Whether each of ``tests``, expressions in Python, is true after ``code`` has run.

    The program is ended where it takes too long, and with it all that it started. What it prints is dropped.
    """
    job = {"code": code, "tests": tests, "seconds": limits.seconds, "memory": limits.memory}
    with tempfile.TemporaryDirectory(prefix="quantplan-code-") as folder, tempfile.TemporaryFile() as result:
        process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-B", "-X", "utf8", "-c", _guard()],
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0"} | {name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(job).encode(), timeout=limits.patience)
        except subprocess.TimeoutExpired:
            return ProgramResult("takes too long")
        finally:
            _end(process)
        result.seek(0)
        return _result(result.read(_RESULT_BYTES), process.returncode)


@cache
def _guard() -> str:
    return _GUARD.read_text(encoding="utf-8")


def _end(process: subprocess.Popen) -> None:
    """Kills the process and what it started, and waits for it."""
    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        with suppress(psutil.Error):
            child.kill()
    process.wait()


def _result(written: bytes, code: int) -> ProgramResult:
    with suppress(ValueError, KeyError, TypeError):
        return ProgramResult(str(json.loads(written)["reason"]))
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return ProgramResult("takes too long")
    return ProgramResult(f"ends with signal {-code}" if code < 0 else "ends before the tests")
