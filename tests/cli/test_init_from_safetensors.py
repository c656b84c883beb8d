"""`quantplan init FOLDER`: a stand-in for llama.cpp's converter shows all that is around it; the real one where torch is."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
from checkpoints import checkpoint, python_with, stand_in

from quantplan.convert.conversion import CONVERSIONS
from quantplan.convert.converter import NEEDED
from quantplan.gguf.reader import read_model
from quantplan.project import read_project

ELEMENTS = 2_880_000  # about those of the small model


@pytest.fixture
def checkout(small_model, tmp_path):
    return stand_in(tmp_path / "llama.cpp", small_model)


@pytest.fixture
def words(tmp_path, checkout):
    python = python_with(tmp_path / "p", *(name for name in NEEDED if name != "numpy"))
    model = checkpoint(tmp_path / "Tuned", read_model(checkout / "model.gguf").elements)
    return ("init", model, "--converter", checkout, "--converter-python", python, "--ctx", 128)


def runs(checkout):
    path = checkout / "runs.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_a_project_of_a_folder_with_safetensors(command, words, workplace, checkout, files):
    done = command(*words, "--folder", "mine")
    assert (done.code, done.out) == (0, "mine/quantplan.toml\n"), done.err
    assert "convert_hf_to_gguf.py" in done.err and "24 tensors" in done.err and "warning" not in done.err
    project = read_project(workplace / "mine" / "quantplan.toml")
    assert project.model == workplace / "mine" / "Tuned-F16.gguf"
    made, record = read_model(project.model), CONVERSIONS.read(workplace / "mine" / "Tuned.conversion.json")
    assert (record.file, record.model_digest, record.tensors) == ("Tuned-F16.gguf", made.digest, 24)
    assert (record.architecture, record.converter, record.outtype) == ("Qwen3ForCausalLM", str(checkout), "auto")
    assert runs(checkout) == [f"{words[1]} auto Tuned"]
    assert files() == ["mine/Tuned-F16.gguf", "mine/Tuned.conversion.json", "mine/quantplan.toml"]


def test_a_finished_conversion_is_reused(command, words, workplace, checkout):
    assert command(*words).code == 0
    again = command(*words, "--force")
    assert again.code == 0 and "converted before: Tuned-F16.gguf" in again.err and len(runs(checkout)) == 1
    announced = command(*words, "--dry-run", "--force")
    assert announced.out == "takes     Tuned-F16.gguf, which was converted before\nwrites    quantplan.toml\n"
    (words[1] / "tokenizer.json").write_text("[]")
    assert command(*words, "--force").code == 0 and len(runs(checkout)) == 2
    with (workplace / "Tuned-F16.gguf").open("r+b") as file:
        file.truncate(1000)
    assert command(*words, "--force").code == 0 and len(runs(checkout)) == 3


def test_dry_run(command, words, checkout, files, tmp_path):
    done = command(*words, "--dry-run", "--outtype", "bf16")
    assert done.code == 0 and files() == [] and runs(checkout) == []
    lines = done.out.splitlines()
    assert lines[0].startswith(f"converts  {words[1]} (Qwen3ForCausalLM, ") and lines[2].startswith(
        "writes    Tuned-BF16.gguf"
    )
    assert lines[1] == f"with      convert_hf_to_gguf.py of {checkout}" and lines[3] == "writes    quantplan.toml"
    (tmp_path / "p" / "modules" / "torch.py").unlink()
    if importlib.util.find_spec("torch") is None:
        assert "missing   torch: run: " in command(*words, "--dry-run").out
        refused = command(*words)
        assert refused.code == 7 and "needs torch, which" in refused.error and "-m pip install torch" in refused.error
    assert json.loads(command(*words, "--dry-run", "--json").out)["converts"] is True


def test_somebody_elses_file_is_kept(command, words, workplace, checkout, files):
    (workplace / "Tuned-F16.gguf").write_bytes(b"mine")
    for more in ((), ("--force",), ("--dry-run",)):
        done = command(*words, *more)
        assert done.code == 2 and "Tuned-F16.gguf is there already and was not made by a conversion" in done.error
    assert (files(), (workplace / "Tuned-F16.gguf").read_bytes()) == (["Tuned-F16.gguf"], b"mine")
    assert runs(checkout) == []
    assert command(*words, "--outtype", "bf16").code == 0  # another name


def test_a_converter_that_fails(command, words, checkout, files):
    (checkout / "code.txt").write_text("1")
    (checkout / "said.txt").write_text("ERROR:hf-to-gguf:Model FooForCausalLM is not supported")
    done = command(*words)
    assert done.code == 8 and "convert_hf_to_gguf.py failed: Model FooForCausalLM is not supported; is the" in done.err
    (checkout / "code.txt").unlink()
    (checkout / "model.gguf").unlink()
    done = command(*words)
    assert done.code == 8 and "failed: it ended without a file" in done.err
    assert files() == []


def test_what_was_written_is_read_back(command, words, checkout, files):
    (checkout / "said.txt").write_text("gguf: n_tensors = 25, total_size = 5.8M")
    done = command(*words)
    assert done.code == 9 and "said that it wrote 25 tensors, the file has 24" in done.error
    (checkout / "said.txt").unlink()
    data = (checkout / "model.gguf").read_bytes()
    (checkout / "model.gguf").write_bytes(data[: len(data) // 2])
    done = command(*words)
    assert done.code == 9 and "wrote a file that cannot be read" in done.error
    assert files() == []


def test_parts_that_are_left_out_are_said(command, words):
    shutil.rmtree(words[1])
    checkpoint(words[1], 4 * ELEMENTS)
    (words[1] / "config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": 3}}))
    done = command(*words)
    assert done.code == 0 and "of the checkpoint's weights are in the GGUF" in done.err
    assert "config.json says 3 layers, the GGUF runs 2" in done.err


def test_a_full_disk(command, words, files, checkout, monkeypatch, workplace):
    usage = shutil.disk_usage(workplace)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    done = command(*words)
    assert done.code == 11 and "free some or choose another --folder" in done.error
    assert files() == [] and runs(checkout) == []


def test_other_folders(command, tmp_path, words):
    (tmp_path / "empty").mkdir()
    assert command("init", tmp_path / "empty").code == 3
    other = command("memory", "-m", words[1] / "model.safetensors")
    assert (
        other.code == 3
        and "a safetensors file: convert the model to GGUF first: `quantplan init FOLDER`" in other.error
    )


# --- the real one

_TINY = """
import sys, sentencepiece, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
folder, text = map(Path, sys.argv[1:])
folder.mkdir()
vocabulary = {"vocab_size": 600, "model_type": "bpe", "byte_fallback": True, "minloglevel": 2}
sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / "tokenizer"), **vocabulary)
(folder / "tokenizer.vocab").unlink()
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
config = LlamaConfig(vocab_size=600, num_key_value_heads=2, max_position_embeddings=256, **sizes)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
"""
_PYTHON = os.environ.get("QUANTPLAN_CONVERTER_PYTHON", sys.executable)


def _has_torch():
    names = ("torch", "transformers", "sentencepiece")
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in {names}))"
    return subprocess.run([_PYTHON, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.skipif(
    not _has_torch(), reason="no torch and transformers: install the extra hf, or set QUANTPLAN_CONVERTER_PYTHON"
)
def test_a_tiny_model_of_transformers_by_llama_cpps_own_converter(command, workplace, small_text, monkeypatch):
    """The script comes from the source package of the installed llama-cpp-python, by the network."""
    subprocess.run([_PYTHON, "-c", _TINY, workplace / "tiny", small_text], check=True, capture_output=True)
    done = command("init", "tiny", "--converter-python", _PYTHON, "--ctx", 64)
    assert done.code == 0 and "warning" not in done.err, done.err
    model = read_model(workplace / "tiny-BF16.gguf")
    assert (model.architecture, model.blocks, len(model.tensors), model.name.lower()) == ("llama", 2, 21, "tiny")
    (workplace / "calibration").mkdir(exist_ok=True)
    shutil.copy(small_text, workplace / "calibration" / "calibration.txt")
    assert command("solve", "-b", "60%", "--sensitivity", "weights", "--types", "legacy", "-t", 1).code == 0
