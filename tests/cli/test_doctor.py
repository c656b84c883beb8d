import importlib.metadata
import json
import shutil

import pytest

from quantplan.errors import ToolFailed
from quantplan.llamacpp import doctor as doctor_checks
from quantplan.llamacpp import tools
from quantplan.quant_type import BY_NAME

pytestmark = pytest.mark.llamacpp


def test_all_is_well_here(command):
    done = command("doctor", "--json")
    report_data = {each["what"]: each for each in json.loads(done.out)}
    assert done.code == 0
    assert {each["state"] for each in report_data.values()} == {"ok"}
    assert report_data["numpy"]["detail"] == importlib.metadata.version("numpy")
    assert report_data["llama-quantize"]["detail"] == str(tools.find("llama-quantize"))
    assert report_data["llama.cpp build"]["detail"] == tools.build()
    assert "33 types" in report_data["ggml library"]["detail"]
    assert "hit wins" in report_data["rules of llama-quantize"]["detail"]
    assert "runs" in report_data["kernels for quantized weights"]["detail"]


def test_the_table_is_on_stdout(command):
    done = command("doctor")
    assert done.code == 0 and "llama-imatrix" in done.out and done.err == ""


def test_tools_are_missing(command, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_TOOLS", "/nonexistent")
    done = command("doctor", "--json")
    report_data = {each["what"]: each for each in json.loads(done.out)}
    assert done.code == 7
    missing = {name for name, each in report_data.items() if each["state"] == "missing"}
    assert missing == set(tools.REQUIRED)
    assert (
        "pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python"
        in report_data["llama-quantize"]["mend"]
    )
    assert "QUANTPLAN_TOOLS" in report_data["llama-quantize"]["mend"]
    for_people = command("doctor")
    assert for_people.code == 7 and "missing" in for_people.out and "CMAKE_ARGS=" in for_people.err


def test_one_tool_is_missing(command, monkeypatch, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in tools.REQUIRED[:-1]:
        shutil.copy(tools.find(name), folder / name)
    monkeypatch.setenv("QUANTPLAN_TOOLS", str(folder))
    done = command("doctor", "--json")
    assert done.code == 7
    assert [each["what"] for each in json.loads(done.out) if each["state"] == "missing"] == [tools.REQUIRED[-1]]


def test_a_package_is_missing(monkeypatch):
    monkeypatch.setattr(doctor_checks, "PACKAGES", ("numpy", "surely-not-installed"))
    found = {finding.what: finding for finding in doctor_checks.doctor_checks()}
    assert found["surely-not-installed"].state == "missing"
    assert found["surely-not-installed"].mend == "run: pip install surely-not-installed"
    assert "rules of llama-quantize" not in found  # nothing is run on a broken installation


def test_other_block_sizes_are_a_warning(monkeypatch):
    from dataclasses import replace

    wrong = {12: replace(BY_NAME["Q4_K"], block_bytes=145), 8: BY_NAME["Q8_0"]}
    monkeypatch.setattr(doctor_checks, "BY_ID", wrong)
    finding = next(each for each in doctor_checks.doctor_checks() if each.what == "ggml library")
    assert finding.state == "warning" and "Q4_K" in finding.detail and "Q8_0" not in finding.detail


@pytest.mark.parametrize(
    "down_0, down_1, state, words",
    [
        ("Q4_K", "Q6_K", "ok", "the first hit wins"),
        ("Q4_K", "Q2_K", "ok", "the last hit wins"),
        ("Q6_K", "Q6_K", "warning", "a rule equal to the default type is ignored"),
        ("Q4_K", "Q5_K", "warning", "rules are ignored"),
    ],
)
def test_bad_builds_are_told_by_what_they_do(monkeypatch, down_0, down_1, state, words):
    types = {"blk.0.ffn_down.weight": BY_NAME[down_0], "blk.1.ffn_down.weight": BY_NAME[down_1]}
    monkeypatch.setattr(doctor_checks.quantize, "dry_run", lambda *_, **__: types)
    finding = next(each for each in doctor_checks.doctor_checks() if each.what == "rules of llama-quantize")
    assert (finding.state, words in finding.detail) == (state, True)


def test_kernels_that_crash(monkeypatch):
    def crash(argv, **_):
        raise ToolFailed(f"{argv[0]} ended with exit code -11")

    monkeypatch.setattr(doctor_checks.tools, "run", crash)
    monkeypatch.setattr(doctor_checks.quantize, "quantize", lambda *_: None)
    found = doctor_checks.kernels_check()
    assert found.state == "missing" and "AMX" in found.mend and "CMAKE_ARGS" in found.mend
