"""Commands as a person runs them, through ``main`` and with its exit codes, in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_models import tiny_tied

from quantplan.cli import config
from quantplan.cli.main import main
from quantplan.llamacpp.tools import run


@dataclass(frozen=True)
class Ended:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on stderr, for an exit that was one sentence and no traceback."""
        assert "Traceback" not in self.err
        if "─ Error ─" in self.err:  # of typer, for words that an option cannot have
            return " ".join(self.err.replace("│", " ").split())
        line = self.err.rstrip("\n").splitlines()[-1]
        assert line.startswith("error: ") and self.err.count("error: ") == 1
        return line


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny_tied: 2 blocks, 15 matrices, 6 MB."""
    return tiny_tied(tmp_path_factory.mktemp("small") / "tied.gguf")


@pytest.fixture(scope="session")
def small_text(tmp_path_factory: pytest.TempPathFactory, calibration_text: Path) -> Path:
    """Some 20 windows of 128 tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(calibration_text.read_text(encoding="utf-8")[:10_000], encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_imatrix(small_model: Path, small_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small-imatrix") / "tied.imatrix.gguf"
    run(
        [
            "llama-imatrix",
            "-m",
            str(small_model),
            "-f",
            str(small_text),
            "-o",
            str(path),
            "-c",
            "128",
            "-t",
            "1",
            "--no-ppl",
        ]
    )
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; outside projects measured values are kept in ``cache`` inside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("QUANTPLAN_CACHE", str(folder / "cache"))
    config.project.cache_clear()
    yield folder
    config.project.cache_clear()


@pytest.fixture
def command(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``command("solve", "--budget", "5bpw")`` -> exit code, stdout, stderr."""

    def call(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["quantplan", *map(str, words)])
        config.project.cache_clear()
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return call


def listing(folder: Path) -> list[str]:
    """All files below the folder."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


@pytest.fixture
def files(workplace: Path) -> Callable[[], list[str]]:
    """What lies in the working folder now, the cache left out."""
    return lambda: [name for name in listing(workplace) if not name.startswith("cache")]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write that is made durable finds the disk full."""
    import errno
    import os

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
