"""Where llama.cpp's converter comes from, and the Python that runs it."""

import io
import sys
import tarfile

import pytest
from checkpoints import python_with, stand_in

from quantplan.convert import converter
from quantplan.convert.converter import NEEDED, SCRIPT, extract, find_converter, kept_script, missing_packages
from quantplan.errors import BadFile, ToolFailed, ToolMissing

STUBS = [name for name in NEEDED if name != "numpy"]


def package(path, *names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return path


def test_only_the_converter_leaves_the_source_package(tmp_path):
    top = "llama_cpp_python-1.2.3/vendor/llama.cpp"
    inside = [SCRIPT, "conversion/base.py", "gguf-py/gguf/constants.py"]
    others = ["src/llama.cpp", "gguf-py/gguf/../../../evil.py", "conversion/../../evil.py"]
    extract(package(tmp_path / "p.tar.gz", *(f"{top}/{name}" for name in [*inside, *others])), tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py"))
    assert found == sorted(f"out/{name}" for name in inside)


def test_a_source_package_without_it_and_a_damaged_one(tmp_path):
    with pytest.raises(BadFile, match=f"has no {SCRIPT}; name a checkout of llama.cpp with --converter"):
        extract(package(tmp_path / "p.tar.gz", "a/vendor/llama.cpp/LICENSE"), tmp_path / "out")
    (tmp_path / "q.tar.gz").write_bytes(b"\x1f\x8b no archive")
    with pytest.raises(BadFile, match="damaged source package"):
        extract(tmp_path / "q.tar.gz", tmp_path / "out")


def test_the_converter_of_a_checkout(tmp_path):
    python, checkout = str(python_with(tmp_path / "p", *STUBS)), stand_in(tmp_path / "llama.cpp", None)
    found = find_converter(checkout, python, tmp_path)
    assert (found.script, found.origin, found.python) == (checkout / SCRIPT, str(checkout), python)
    assert find_converter(checkout / SCRIPT, python, tmp_path) == found
    with pytest.raises(ToolMissing, match=f"no {SCRIPT} there; name a checkout of llama.cpp"):
        find_converter(tmp_path, python, tmp_path)


def test_the_installed_version_is_downloaded_once(tmp_path, monkeypatch):
    python = str(python_with(tmp_path / "p", *STUBS))
    monkeypatch.setattr(converter, "installed_version", lambda: "1.2.3")
    asked = []

    def pip(argv, *_):
        asked.append(argv)
        package(tmp_path / "llama_cpp_python-1.2.3.tar.gz", f"llama_cpp_python-1.2.3/vendor/llama.cpp/{SCRIPT}").rename(
            f"{argv[-1]}/llama_cpp_python-1.2.3.tar.gz"
        )
        return converter.Finished("pip download", 0, "")

    monkeypatch.setattr(converter, "run_program", pip)
    found = find_converter(None, python, tmp_path / "cache")
    assert found.script == kept_script(tmp_path / "cache", "1.2.3") and found.script.is_file()
    assert (
        found.origin == "llama-cpp-python 1.2.3" and "llama-cpp-python==1.2.3" in asked[0] and "--no-deps" in asked[0]
    )
    assert find_converter(None, python, tmp_path / "cache") == found and len(asked) == 1
    monkeypatch.setattr(converter, "run_program", lambda *_: converter.Finished("pip download", 1, "ERROR: no network"))
    with pytest.raises(
        ToolFailed, match="name a checkout of llama.cpp with --converter instead\n.*\n.*\n  ERROR: no network"
    ):
        find_converter(None, python, tmp_path / "other")
    assert not (tmp_path / "other" / "converter-1.2.3").exists()


def test_what_is_missing_is_said_with_the_command(tmp_path):
    python = str(python_with(tmp_path, *(name for name in STUBS if name not in ("torch", "yaml"))))
    assert set(missing_packages(python)) <= {"torch", "pyyaml"}
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(
        ToolMissing, match=f"needs torch, transformers, .*; run: {bare} -m pip install torch transformers"
    ):
        find_converter(None, str(bare), tmp_path)
    with pytest.raises(ToolMissing, match="is not a Python that runs .*--converter-python"):
        find_converter(None, str(tmp_path / "nothing"), tmp_path)
