"""Models that llama.cpp ends the process for: an error in Python, a sentence and an exit code on the command line."""

import struct
import subprocess
import sys

import pytest
from mutated_gguf import GgufParts
from tiny_models import tiny_tied

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import libraries, trial
from quantplan.llamacpp.engine import Engine, EngineOptions

pytestmark = pytest.mark.llamacpp


@pytest.fixture
def broken(tmp_path):
    """A whole file, in which only llama.cpp knows that 7 rotated dimensions of heads of 64 are none."""
    parts = GgufParts.of(tiny_tied(tmp_path / "tied.gguf"))
    parts.entries.append((b"qwen3.rope.dimension_count", 4, struct.pack("<I", 7)))
    (tmp_path / "broken.gguf").write_bytes(parts.bytes)
    return tmp_path / "broken.gguf"


def test_it_is_refused_before_it_is_loaded(broken, monkeypatch):
    monkeypatch.setattr(libraries, "aborts_are_heard", lambda: False)
    with pytest.raises(BadFile, match=r"broken.gguf: llama.cpp breaks off with this model: .*n_embd_head == n_rot"):
        Engine(read_model(broken), EngineOptions(64))


def test_a_whole_model_is_tried_once(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "aborts_are_heard", lambda: False)
    tried, path = [], tiny_tied(tmp_path / "whole.gguf")
    run = trial.run
    monkeypatch.setattr(trial, "run", lambda *words, **how: (tried.append(words), run(*words, **how))[1])
    for _ in range(2):
        trial.check_survives(path)
    assert len(tried) == 1
    monkeypatch.setattr(libraries, "aborts_are_heard", lambda: True)
    trial.check_survives(tiny_tied(tmp_path / "heard.gguf"))
    assert len(tried) == 1


def test_on_the_command_line_it_is_one_sentence(broken, calibration_text):
    words = ["measure", broken, "--model", broken.with_name("tied.gguf"), "--text", calibration_text, "--chunks", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "quantplan", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 8
    assert ended.stderr.splitlines()[-1].startswith("error: llama.cpp broke off: qwen3.cpp:")
