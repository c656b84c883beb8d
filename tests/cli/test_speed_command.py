"""`quantplan speed`: tables, JSON, a dry run that measures nothing."""

import json

import pytest

from quantplan.devices.speed import matmul

pytestmark = pytest.mark.llamacpp


@pytest.fixture(autouse=True)
def moments(monkeypatch):
    monkeypatch.setattr(matmul, "SECONDS", 0.005)
    monkeypatch.setattr(matmul, "PASS_BYTES", 1 << 19)
    monkeypatch.setattr(matmul, "PASS_PRODUCTS", 1 << 22)


SHORT = ("--types", "Q4_0,Q8_0", "--threads", "1", "--repetitions", "1")


def test_tables_json_and_check(command, workplace, small_model, files):
    plan = command("speed", "-m", small_model, *SHORT, "--dry-run")
    assert plan.code == 0
    assert "0 are in the cache" in plan.out
    assert not (workplace / "cache").exists()

    shown = command("speed", "-m", small_model, *SHORT, "--check", small_model)
    assert shown.code == 0
    for text in ("ps per weight (GB/s)", "256x288", "Q4_0", "tokens/s of files of one type", "pp512", "tg128"):
        assert text in shown.out
    assert "+ llama-bench -m" in shown.err
    assert "1 threads, llama.cpp" in shown.err
    assert files() == []

    assert "0 measurements to make" in command("speed", "-m", small_model, *SHORT, "--dry-run").out
    found = json.loads(command("speed", "-m", small_model, *SHORT, "--check", small_model, "--json").out)
    assert {each["type"] for each in found["uniform"]} == {"Q4_0", "Q8_0"}
    assert all(each["generation_tps"] > 0 and each["prompt_tps"] > 0 for each in found["uniform"])
    assert {each["type"] for each in found["speeds"]} == {"Q4_0", "Q8_0", "F16"}
    assert all(each["generation_ns_per_weight"] > 0 for each in found["speeds"])
    assert [row["test"] for row in found["check"][small_model.name]] == ["pp512", "tg128"]


def test_mistakes_are_one_sentence(command, workplace, small_model, reference_model):
    assert "all 2 blocks" in command("speed", "-m", small_model, *SHORT, "--gpu-layers", "1").error
    assert command("speed", "-m", small_model, "--types", "Q9_9").code == 5
    other = command("speed", "-m", small_model, *SHORT, "--check", workplace / "missing.gguf")
    assert (other.code, "give the path of a GGUF file" in other.error) == (3, True)


def test_a_check_is_refused_before_anything_is_measured(command, workplace, small_model, reference_model):
    done = command("speed", "-m", small_model, *SHORT, "--check", reference_model)
    assert done.code == 4 and "so it was not made from" in done.error
    assert "llama-bench" not in done.err and not (workplace / "cache").exists()


def test_types_that_only_the_checked_file_has_are_measured(command, workplace, small_model):
    """They were missing after llama-bench had run."""
    words = ("quantize", "Q5_K_S", "-m", small_model, "--out", "q.gguf", "--threads", "1")
    assert command(*words).code == 0
    done = command("speed", "-m", small_model, *SHORT, "--check", "q.gguf", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [row["test"] for row in found["check"]["q.gguf"]] == ["pp512", "tg128"]
    assert {each["type"] for each in found["uniform"]} == {"Q4_0", "Q8_0"}
