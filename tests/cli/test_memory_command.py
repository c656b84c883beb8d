"""quantplan memory on real files, on plans, and on what people mistype."""

import json

import pytest

from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import make_plan
from quantplan.quant_type import BY_NAME
from quantplan.records.formats import PLANS

pytestmark = pytest.mark.llamacpp


def figures(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_figures_of_a_model(command, small_model):
    found = figures(command("memory", small_model, "--serve-ctx", "256,1000", "--kv", "q8_0,f16", "--json"))
    model = read_model(small_model)
    embeddings = model.by_name["token_embd.weight"].bytes
    assert [row["ctx"] for row in found["contexts"]] == [256, 1000]
    for row in found["contexts"]:
        assert (row["gpu_weights"], row["cpu_weights"]) == (sum(each.bytes for each in model.tensors), embeddings)
        cells = -(-row["ctx"] // 256) * 256
        assert row["kv_cache"]["bytes"] == 2 * cells * (128 // 32 * 34 + 128 * 2)
        assert row["vram"] == row["gpu_weights"] + row["kv_cache"]["bytes"] + row["compute_buffer"]["bytes"]
        assert row["ram"] == embeddings + row["host_buffer"]["bytes"]
        assert (row["compute_buffer"]["source"], row["host_buffer"]["source"]) == ("llama.cpp", "computed")
    assert found["override_tensor"] == [] and found["equivalent_option"] is None


def test_a_plan_takes_what_its_types_take(command, small_model, workplace):
    model = read_model(small_model)
    plan = make_plan(model, {"blk.0.attn_q.weight": BY_NAME["Q4_K"], "token_embd.weight": BY_NAME["Q6_K"]})
    PLANS.write(plan, workplace / "plan.json")
    (row,) = figures(command("memory", "plan.json", "--serve-ctx", 512, "--json"))["contexts"]
    (whole,) = figures(command("memory", small_model, "--serve-ctx", 512, "--json"))["contexts"]
    assert row["gpu_weights"] == plan.tensor_bytes < whole["gpu_weights"]
    assert row["cpu_weights"] == model.by_name["token_embd.weight"].bytes_as(BY_NAME["Q6_K"])
    assert row["kv_cache"] == whole["kv_cache"]


def test_a_plan_of_another_model(command, small_model, reference_model, workplace):
    model = read_model(small_model)
    PLANS.write(make_plan(model, {"blk.0.attn_q.weight": BY_NAME["Q4_K"]}), workplace / "plan.json")
    assert command("memory", "plan.json", "--model", reference_model).code == 4


def test_moved_tensors(command, small_model):
    words = ["memory", small_model, "--on-cpu", "ffn_up", "--on-cpu", "blk.0.ffn_[gd]*", "--on-cpu", "blk.1.ffn_[gd]*"]
    found = figures(command(*words, "--serve-ctx", 256, "--json"))
    moved = [each.bytes for each in read_model(small_model).tensors if each.role in ("ffn_up", "ffn_gate", "ffn_down")]
    (row,) = found["contexts"]
    assert found["override_tensor"] == [r"^blk\.[0-9]+\.ffn_(down|gate|up)\.weight$=CPU"]
    assert found["equivalent_option"] == "--n-cpu-ffn 2"
    assert row["largest_moved"] == max(moved)
    parts = row["gpu_weights"] + row["kv_cache"]["bytes"] + row["compute_buffer"]["bytes"]
    assert row["vram"] == parts + row["crossing"]["bytes"] + max(moved)


def test_the_table_marks_what_was_computed(command, small_model):
    done = command("memory", small_model, "--serve-ctx", "256,512", "--on-cpu", "ffn_up")
    assert done.code == 0
    rows = [line for line in done.out.splitlines() if line.startswith("│")]
    assert len(rows) == 2 and all(row.count("*") == 2 for row in rows)  # both buffers: tensors were moved
    assert done.out.splitlines()[-1] == r"--override-tensor '^blk\.[0-9]+\.ffn_up\.weight$=CPU'"
    assert "KV cache: llama.cpp" in done.err and "RAM buffers: computed" in done.err


def test_without_llama_cpps_tool(command, small_model, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_TOOLS", "/nonexistent")
    done = command("memory", small_model, "--serve-ctx", "256")
    assert done.code == 7 and "llama-fit-params is not in /nonexistent" in done.error and "pip install" in done.error


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--serve-ctx", "4k"], 2, "cannot read the context '4k'"),
        (["--serve-ctx", "4096,"], 2, "cannot read the context ''"),
        (["--serve-ctx", "²"], 2, "cannot read the context"),
        (["--serve-ctx", "999999999"], 2, "write 8 to 16,777,216 tokens"),
        (["--kv", "q4_k"], 2, "no KV cache as Q4_K"),
        (["--kv", "f16,q8_0", "--flash-attn", "off"], 2, "needs flash attention"),
        (["--on-cpu", "ffn_upp"], 5, "did you mean"),
        (["--model", "other.gguf"], 2, "give one of them"),
    ],
)
def test_mistakes(words, code, message, command, small_model):
    done = command("memory", small_model, *words)
    assert done.code == code and message in done.error and not done.out


def test_no_model(command):
    assert "which model?" in command("memory").error


def test_largest_contexts(command, small_model):
    """Everything of a small model fits; less VRAM leaves fewer tokens to wider caches."""
    model = read_model(small_model)
    trained = model.hyperparameter("context_length", 0)
    largest = figures(command("memory", small_model, "--vram", "1GiB", "--json"))["largest_contexts"]
    assert largest["vram"] == 1 << 30 and len(largest["pairs"]) == 36
    assert {pair["ctx"] for pair in largest["pairs"]} == {trained}
    short = figures(command("memory", small_model, "--serve-ctx", 256, "--json"))["contexts"][0]["vram"]
    done = command("memory", small_model, "--kv", "q8_0,q4_0", "--vram", str(short), "--json")
    (pair,) = figures(done)["largest_contexts"]["pairs"]
    assert pair["kv"] == ["q8_0", "q4_0"] and 0 < pair["ctx"] <= trained and pair["used"] <= short


def test_largest_contexts_as_a_table(command, small_model):
    done = command("memory", small_model, "--vram", "1GiB")
    assert done.code == 0 and "largest context within 1.00 GiB of VRAM" in done.out
    rows = [line for line in done.out.splitlines() if line.startswith("│ q5_0")]
    assert len(rows) == 1 and rows[0].count("│") == 8


def test_settings_of_a_project_that_plans_for_more(command, small_model):
    """Automatic cache types and several GPUs are of other commands: they are named and do not stand in the way."""
    done = command("memory", small_model, "--serve-ctx", 256, "--kv", "auto", "--vram", "1GiB,1GiB")
    assert done.code == 0 and "KV cache f16" in done.out and "largest context" not in done.out
    assert "--kv auto is for `quantplan solve`" in done.err and "shown for one GPU" in done.err


def test_vram_below_the_weights(command, small_model):
    done = command("memory", small_model, "--vram", "1MiB")
    assert done.code == 6 and "no context fits into 1.05 MB of VRAM" in done.error and "--on-cpu" in done.error
