"""The public Python API: complete, lazy, and as docs/python.md shows it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import quantplan
from quantplan.gguf.imatrix_files import write_imatrix

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists():
    assert list(quantplan.__all__) == sorted(quantplan.__all__)
    missing = [name for name in quantplan.__all__ if not hasattr(quantplan, name)]
    assert not missing
    assert set(quantplan.__all__) <= set(dir(quantplan))
    with pytest.raises(AttributeError, match="no attribute 'sovle'"):
        _ = quantplan.sovle


def test_public_functions_are_documented():
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    for name in quantplan.__all__:
        if name.islower():
            assert f"{name}(" in page, f"docs/python.md does not mention {name}"
            assert getattr(quantplan, name).__doc__


def test_importing_the_package_imports_nothing_large():
    code = "import sys, json, quantplan; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"numpy", "scipy", "typer", "quantplan.plan"} & set(modules)


def test_the_package_is_typed():
    assert (ROOT / "quantplan/py.typed").is_file()


@pytest.mark.llamacpp
def test_the_example_of_the_documentation(tmp_path, monkeypatch, capsys, case, calibration_text):
    """Every line of it, on a model that is probed in seconds."""
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    text = calibration_text.read_text(encoding="utf-8")
    shutil.copy(case.model.path, tmp_path / "prose-10m-f16.gguf")
    write_imatrix(case.imatrix, tmp_path / "prose-10m-imatrix.gguf")
    (tmp_path / "calibration.txt").write_text(case.text, encoding="utf-8")
    (tmp_path / "evaluation.txt").write_text(text[-20_000:], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTPLAN_CACHE", str(tmp_path / "cache"))
    values = {}
    exec(compile(example, "docs/python.md", "exec"), values)
    plan, comparison = values["plan"], values["comparison"]
    assert plan.calibrated and (tmp_path / "plan.gguf").stat().st_size == plan.file_bytes
    assert [row.name for row in comparison.rows] == ["plan", "Q4_K_S"]
    assert comparison.verdict in capsys.readouterr().out
