"""Models named by where they lie on a hub, ``hf://owner/repo/file.gguf`` or ``-hf owner/repo:quant``; the hub runs here."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from checkpoints import checkpoint, python_with, stand_in
from hub_server import FakeHub, serving

from quantplan.convert.converter import NEEDED
from quantplan.gguf.reader import read_model
from quantplan.project import read_project
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable


def table_of(path):
    """A sensitivity table as a file holds it."""
    model = read_model(path)
    matrices = [tensor.name for tensor in model.tensors if len(tensor.shape) > 1]
    rows = {name: SensitivityRow(name, {"Q4_0": 0.01, "Q8_0": 0.001}) for name in matrices}
    table = SensitivityTable(model.digest, rows, calibrated=True).described(model)
    with tempfile.TemporaryDirectory() as folder:
        SENSITIVITY_TABLES.write(table, f"{folder}/table.json")
        return Path(folder, "table.json").read_bytes()


def tuned():
    """A repository of safetensors."""
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place, "Tuned"))
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"README.md": b"", "picture.png": b"", "original/model.safetensors": b"", "model.onnx": b""}


@pytest.fixture(scope="module")
def hub(small_model):
    data = small_model.read_bytes()
    tied = {"README.md": b"", "tied-F16.gguf": data, "tied.sensitivity.json": table_of(small_model)}
    repos = {"owner/tied-GGUF": tied, "owner/none": {"README.md": b""}, "owner/Tuned": tuned()}
    with serving(FakeHub(repos)) as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def shell(hub, home, workplace):
    """The command in a process of its own, because huggingface_hub reads the environment once."""

    def call(*words, code=0, **environment):
        line = [sys.executable, "-m", "quantplan.cli.main", *map(str, words)]
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        done = subprocess.run(
            line, cwd=workplace, env=clean | settings | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    return call


def test_a_project_names_the_file_in_the_cache(shell, workplace, home, small_model):
    out, err = shell("init", "hf://owner/tied-GGUF/tied-F16.gguf", "--folder", "mine", "--ctx", 128)
    assert out == "mine/quantplan.toml\n"
    assert "downloading tied-F16.gguf of owner/tied-GGUF" in err and "24 tensors" in err
    model = read_project(workplace / "mine" / "quantplan.toml").model
    assert model.name == "tied-F16.gguf" and home in model.resolve().parents
    assert model.read_bytes() == small_model.read_bytes()
    again, err = shell("init", "-hf", "owner/tied-GGUF:f16", "--folder", "other")
    assert again == "other/quantplan.toml\n" and "downloading" not in err


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "words",
    [["hf://owner/tied-GGUF:F16"], ["--model", "hf://owner/tied-GGUF/tied-F16.gguf@main"], ["-hf", "owner/tied-GGUF"]],
    ids=" ".join,
)
def test_memory_of_a_model_on_the_hub(shell, words):
    out, _ = shell("memory", *words, "--ctx", 256, "--json")
    assert json.loads(out)["contexts"][0]["ctx"] == 256


@pytest.mark.llamacpp
def test_files_that_are_measured_may_lie_on_the_hub(shell, small_text):
    name = "hf://owner/tied-GGUF/tied-F16.gguf"
    out, _ = shell(
        "measure",
        name,
        "-hf",
        "owner/tied-GGUF:F16",
        "--text",
        small_text,
        "--ctx",
        64,
        "-n",
        2,
        "--threads",
        1,
        "--json",
    )
    (found,) = json.loads(out)
    assert found["file"].endswith("/tied-F16.gguf") and found["kld"] == 0


@pytest.mark.llamacpp
def test_a_sensitivity_table_on_the_hub(shell, workplace):
    model = "hf://owner/tied-GGUF/tied-F16.gguf"
    words = ("solve", "-m", model, "-b", "50%", "--types", "Q4_0,Q8_0", "--out", "p.json")
    shell(*words, "--sensitivity", "hf://owner/tied-GGUF/tied.sensitivity.json")
    assert PLANS.read(workplace / "p.json").calibrated


def test_a_repository_of_safetensors_is_converted(shell, workplace, small_model, tmp_path):
    python = python_with(tmp_path / "p", *(name for name in NEEDED if name != "numpy"))
    words = ("init", "hf://owner/Tuned", "--converter", stand_in(tmp_path / "llama.cpp", small_model))
    words += ("--converter-python", python, "--ctx", 128)
    out, _ = shell(*words, "--dry-run")
    taken = ["config.json", "README.md", "model.safetensors", "tokenizer.json"]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("takes")] == taken
    assert not list(workplace.rglob("*.gguf"))
    _, err = shell(*words)
    assert "downloading model.safetensors of owner/Tuned" in err
    assert (workplace / "Tuned-F16.gguf").read_bytes() == small_model.read_bytes()
    assert read_project(workplace / "quantplan.toml").model == workplace / "Tuned-F16.gguf"
    _, err = shell(*words, "--force", HF_HUB_OFFLINE="1")
    assert "converted before: Tuned-F16.gguf" in err and "from the cache" in err
    _, err = shell("memory", "-hf", "owner/Tuned", code=5)
    assert "has no GGUF model; look for" in err and "`quantplan init hf://owner/Tuned`" in err


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["-hf", "owner/none"], 5, "owner/none has no GGUF model"),
        (["-hf", "owner/tied-GGUF:Q4_K_M"], 5, "has no quant Q4_K_M; there are: tied-F16.gguf"),
        (["-hf", "owner/nowhere"], 5, "no repository owner/nowhere"),
        (["-hf", "owner"], 2, "cannot read 'owner'"),
        (["-hf", "owner/none", "model.gguf"], 2, "two models, model.gguf and -hf owner/none"),
    ],
)
def test_one_sentence_for_what_is_not_there(shell, words, code, message):
    out, err = shell("init", *words, code=code)
    assert out == "" and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_offline(shell, tmp_path):
    _, err = shell("init", "-hf", "owner/tied-GGUF", code=3, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "is not in the cache" in err and "HF_HUB_OFFLINE is set; unset it" in err
    shell("init", "-hf", "owner/tied-GGUF", "--folder", "a")
    _, err = shell("init", "-hf", "owner/tied-GGUF", "--folder", "b", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set: taking tied-F16.gguf of owner/tied-GGUF from the cache" in err


def test_a_dry_run_downloads_nothing(shell, small_model, tmp_path, workplace):
    out, _ = shell("init", "-hf", "owner/tied-GGUF", "--dry-run", HF_HOME=str(tmp_path))
    size = f"{small_model.stat().st_size / 1e6:.2f} MB"
    assert out == f"takes     tied-F16.gguf ({size}, {size} to download)\nwrites    quantplan.toml\n"
    assert not list(tmp_path.rglob("*.gguf")) and not list(workplace.rglob("*.toml"))


def test_an_existing_project_costs_no_download(shell, hub, workplace):
    (workplace / "quantplan.toml").write_text('model = "x.gguf"\n')
    before = len(hub.asked)
    shell("init", "-hf", "owner/tied-GGUF", code=2)
    assert len(hub.asked) == before


def test_surgery_on_a_model_of_a_hub(shell, workplace, small_model):
    out, _ = shell(
        "surgery",
        "apply",
        "hf://owner/tied-GGUF/tied-F16.gguf",
        "swap 0 1; swap 0 1",
        "-o",
        "same.gguf",
        "--threads",
        1,
    )
    assert out == "same.gguf\n"
    assert (workplace / "same.gguf").read_bytes() == small_model.read_bytes()
