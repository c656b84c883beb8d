"""What llama.cpp says a model takes, and the formulas held against it."""

import os
import re
import shutil
import socket
import subprocess
import time

import pytest
from model_shapes import (
    DEEPSEEK_V3,
    GEMMA_3N_E2B,
    GLM_4_5_AIR,
    MAMBA_130M,
    PHI_3_MINI,
    QWEN3_1_7B,
    QWEN3_5_2B,
    QWEN3_5_35B_A3B,
    QWEN3_30B_A3B,
    QWQ_32B,
    dense,
)
from tiny_models import tiny_moe

from quantplan.devices import fit_params as fit
from quantplan.devices import memory_formulas as formulas
from quantplan.devices.memory import ASKED, COMPUTED, placement
from quantplan.devices.memory_formulas import ServeSettings
from quantplan.errors import BadUsage, ToolFailed, ToolMissing
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.llamacpp import tools
from quantplan.llamacpp.quantize import UnreadableLog
from quantplan.quant_type import BY_NAME
from quantplan.selector import Selector

MIB = 1 << 20
F16, Q8, Q5_1, Q4 = (BY_NAME[name] for name in ("F16", "Q8_0", "Q5_1", "Q4_0"))
SHAPES = {
    "GQA": QWQ_32B,
    "GQA, tied": QWEN3_1_7B,
    "fused qkv": PHI_3_MINI,
    "experts": QWEN3_30B_A3B,
    "experts, MTP block": GLM_4_5_AIR,
    "MLA": DEEPSEEK_V3,
    "attention and SSM": QWEN3_5_2B,
    "attention, SSM, experts": QWEN3_5_35B_A3B,
    "SSM": MAMBA_130M,
    "sliding windows, shared caches": GEMMA_3N_E2B,
    "sliding windows": dense("gemma3", 12, 1152, 6912, 4, 1, 262144, head=256, head_norms=True, tied=True),
}
RUNS = {
    "f16": (ServeSettings(4096, (F16, F16)), None),
    "q8_0, odd context": (ServeSettings(10_000, (Q8, Q8)), True),
    "no flash attention": (ServeSettings(4096, (F16, F16), flash_attention=False), False),
    "large batches": (ServeSettings(20_000, (F16, F16), 2048), None),
    "short": (ServeSettings(300, (Q4, Q4)), None),
}
PRINTED = "CUDA0 3590 43 493 \nHost 970 0 12 \n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Shapes as header-only files, written once."""
    folder, read = tmp_path_factory.mktemp("shapes"), {}

    def of(name):
        if name not in read:
            read[name] = read_model(_with_chunks(name, SHAPES[name]).write(folder / f"{len(read)}.gguf"))
        return read[name]

    return of


def _with_chunks(name, shape):
    if name != "sliding windows":
        return shape
    norms = {"post_attention_norm": (1152,), "post_ffw_norm": (1152,)}
    numbers = {**shape.numbers, "attention.sliding_window": 512}
    return type(shape)(
        shape.architecture, shape.stored, numbers, shape.outside, lambda number: shape.block(number) | norms
    )


# --- reading


def test_what_the_tool_prints_with_a_gpu():
    answer = fit.parse("0.01 W some warning\n" + PRINTED)
    assert answer.device_names == "CUDA0"
    assert answer.cache == (43 * MIB, 45 * MIB)
    assert (answer.compute, answer.host_compute) == (494 * MIB, 13 * MIB)


def test_what_the_tool_prints_without_a_gpu():
    answer = fit.parse("Host 4560 43 493 \r\n")
    assert answer.gpus == () and answer.cache == (43 * MIB, 44 * MIB)
    assert answer.compute == answer.host_compute == 494 * MIB


def test_a_device_that_holds_nothing_is_none():
    """Where the device's memory is the processor's all stands under Host."""
    answer = fit.parse(PRINTED.replace("CUDA0 3590 43 493", "CUDA0 0 0 0").replace("Host 970 0 12", "Host 4560 43 505"))
    assert answer.gpus == () and answer.compute == 506 * MIB


def test_a_log_that_says_nothing():
    with pytest.raises(UnreadableLog, match="did not say what it would allocate"):
        fit.parse("CUDA0 3590 43 493 \n")


def test_the_command_line(models):
    words = " ".join(fit.argv(models("MLA"), ServeSettings(8192, (Q8, Q5_1), 4096), None))
    assert "-c 8192 -b 4096 -ub 4096 -ctk q8_0 -ctv q5_1 -fa auto" in words
    assert words.endswith("tokenizer.ggml.model=str:no_vocab,deepseek2.vocab_size=int:129280")


# --- formulas against llama.cpp


def _log_lines(argv, pattern, least=1):
    """What the pattern finds in the tool's log; asked again where the log, of another thread, was cut off."""
    for _ in range(8):
        lines = re.findall(pattern, tools.run([*argv, "-v"]).log)
        if len(lines) >= least:
            break
    return lines


def _cache_mib(argv, least):
    """MiB of the KV cache, to two decimals for each of its parts, which only the log has."""
    for _ in range(24):
        mib = sum(map(float, _log_lines(argv, r"\bsize = *([\d.]+) MiB \( *\d+ cells")))
        if mib > least - 0.03:
            break
    return mib


@pytest.mark.llamacpp
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_cache_is_exact(name, run, models):
    model, (settings, flash_attention) = models(name), RUNS[run]
    least, most = fit.ask(model, settings, flash_attention).cache
    computed = formulas.kv_cache(model, settings).bytes
    assert least <= computed < most
    argv = fit.argv(model, settings, flash_attention)
    assert _cache_mib(argv, computed / MIB) == pytest.approx(computed / MIB, abs=0.03)


@pytest.mark.llamacpp
def test_caches_of_the_bundled_model(reference_model):
    model = read_model(reference_model)
    for ctx in (8, 1000, 65_536):
        for kv in ((F16, F16), (Q8, Q8), (Q8, F16), (BY_NAME["BF16"], Q5_1), (BY_NAME["IQ4_NL"], Q4)):
            needs = fit.memory_needs(model, ctx, kv)
            assert needs.kv_cache.source == needs.compute_buffer.source == ASKED
            assert needs.host_buffer.source == COMPUTED
            cells, columns = -(-ctx // 256) * 256, 2 * 64
            assert needs.kv_cache.bytes == 10 * cells * sum(kind.row_bytes(columns) for kind in kv)


@pytest.mark.llamacpp
def test_needs_by_hand(models):
    """QwQ-32B at 16384 tokens: 64 blocks, 8 heads of 128, K and V; the logits are the largest part of the buffer."""
    needs = fit.memory_needs(models("GQA"), 16384, (Q8, Q8))
    assert needs.kv_cache.bytes == 64 * 16384 * 2 * (8 * 128 // 32 * 34)
    assert 512 * 152064 * 4 < needs.compute_buffer.bytes < 1.15 * 512 * 152064 * 4


@pytest.mark.llamacpp
def test_no_figure_depends_on_the_vocabulary_or_the_stored_types(reference_model, tmp_path):
    """The vocabulary is left out when llama.cpp is asked, and plans are asked about with the source's types."""
    model = read_model(reference_model)
    smaller = tmp_path / "q4_k.gguf"
    tools.run(["llama-quantize", str(reference_model), str(smaller), "Q4_0", "1"])
    assert fit.memory_needs(read_model(smaller), 4096) == fit.memory_needs(model, 4096)
    settings = ServeSettings(4096, (F16, F16))
    with_vocabulary = fit.argv(model, settings, None)[:-2]
    assert fit.parse(tools.run(with_vocabulary).log) == fit.ask(model, settings, None)


# --- where llama.cpp does not answer


def test_without_the_tool(models, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_TOOLS", "/nonexistent")
    with pytest.raises(ToolMissing, match="llama-fit-params is not in"):
        fit.memory_needs(models("MLA"), 4096)


def small_model(path, *roles):
    shapes = {"attn_k": (256, 128), "attn_v": (256, 128), "time_mix_x": (256, 128)}
    rows = [("token_embd.weight", (256, 100), F16), *((f"blk.0.{role}.weight", shapes[role], F16) for role in roles)]
    numbers = {"nobody.block_count": 1, "nobody.embedding_length": 256}
    return read_model(write_header_only(path, "nobody", numbers, rows))


@pytest.mark.llamacpp
def test_unknown_architecture(tmp_path):
    with pytest.raises(ToolFailed, match="unknown model architecture"):
        fit.memory_needs(small_model(tmp_path / "nobody.gguf", "attn_k", "attn_v"), 256)


def test_layouts_of_the_cache_that_are_not_known(tmp_path):
    settings = ServeSettings(256, (F16, F16))
    known = small_model(tmp_path / "known.gguf", "attn_k", "attn_v")
    assert formulas.kv_cache(known, settings).bytes == 256 * 2 * 256
    assert formulas.kv_cache(small_model(tmp_path / "unknown.gguf", "attn_k", "attn_v", "time_mix_x"), settings) is None


@pytest.mark.parametrize(
    ("name", "kv", "flash_attention", "words"),
    [
        ("GQA", (F16, Q8), False, "needs flash attention"),
        ("MLA", (Q8, F16), None, "one cache for K and V"),
        ("head of 80", (Q8, Q8), None, "keys of 80"),
    ],
)
def test_types_that_do_not_go_together(name, kv, flash_attention, words, models, monkeypatch):
    monkeypatch.setitem(SHAPES, "head of 80", dense("qwen2", 2, 640, 1024, 8, 8, 1000, head=80))
    with pytest.raises(BadUsage, match=words):
        fit.memory_needs(models(name), 4096, kv, flash_attention=flash_attention)


@pytest.mark.llamacpp
def test_what_llama_cpp_refuses_itself_is_the_users_mistake(models, monkeypatch):
    monkeypatch.setattr(formulas, "check_kv", lambda *_: None)
    with pytest.raises(BadUsage, match="does not support different K"):
        fit.memory_needs(models("MLA"), 4096, (Q8, F16))


# --- placement against llama.cpp


@pytest.mark.llamacpp
@pytest.mark.parametrize("selectors", [["*_exps"], ["blk.1.*"], ["output", "blk.[02].attn_*", "ffn_down_exps"]])
def test_patterns_move_exactly_those_tensors(selectors, tmp_path):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    where = placement(model, [Selector(text) for text in selectors])
    argv = [
        *fit.argv(model, ServeSettings(256, (F16, F16)), None),
        "--override-tensor",
        ",".join(where.override_tensor()),
    ]
    assert set(_log_lines(argv, r"tensor (\S+) \(.*buffer type overridden to CPU", len(where.moved))) == where.moved


@pytest.mark.llamacpp
@pytest.mark.parametrize("option", ["--cpu-moe", "--n-cpu-moe 2"])
def test_the_equivalent_option_moves_the_same(option, tmp_path):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    where = placement(model, [Selector("*_exps" if option == "--cpu-moe" else "blk.[01].*_exps")])
    assert where.equivalent_option() == option
    argv = [*fit.argv(model, ServeSettings(256, (F16, F16)), None), *option.split()]
    assert set(_log_lines(argv, r"tensor (\S+) \(.*buffer type overridden to CPU", len(where.moved))) == where.moved


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", ["experts, MTP block", "MLA"])
def test_tensors_that_are_not_loaded(name, models):
    model = models(name)
    unused = placement(model).unused
    assert bool(unused) == (name != "MLA")
    argv = fit.argv(model, ServeSettings(256, (F16, F16)), None)
    assert set(_log_lines(argv, r"unused tensor (\S+) \(size", len(unused))) == unused


# --- two devices: llama.cpp's RPC server stands in for a GPU


@pytest.fixture(scope="module")
def device():
    server = shutil.which("ggml-rpc-server", path=str(tools.bin_folder()))
    if server is None:
        pytest.skip("no ggml-rpc-server: build llama-cpp-python with -DGGML_RPC=ON to test two devices")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(
        command, env=tools.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def two_devices(device, monkeypatch):
    """A function: model, settings, flash attention, patterns -> llama.cpp's answer."""

    def ask(model, settings, flash_attention, patterns=()):
        with monkeypatch.context() as environment:
            environment.setenv("LLAMA_ARG_RPC", device)
            if patterns:
                environment.setenv("LLAMA_ARG_OVERRIDE_TENSOR", ",".join(patterns))
            return fit.ask(model, settings, flash_attention)

    assert "LLAMA_ARG_OVERRIDE_TENSOR" not in os.environ
    return ask


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", SHAPES)
def test_full_offload(name, models, two_devices):
    """Weights to the MiB; what is computed without a GPU is enough for one, and not much more."""
    model = models(name)
    for settings, flash_attention in (RUNS["f16"], RUNS["large batches"]):
        answer = two_devices(model, settings, flash_attention)
        needs = fit.memory_needs(model, settings.ctx, settings.kv, settings.ubatch, flash_attention)
        assert answer.device_names == "RPC0"
        assert answer.cache[0] <= needs.kv_cache.bytes < answer.cache[1]
        assert 0.8 * needs.compute_buffer.bytes <= answer.compute <= needs.compute_buffer.bytes
        assert answer.host.compute <= needs.host_buffer.bytes
    assert weights_mib(answer) == planned_mib(placement(model), model)


def weights_mib(answer):
    (gpu,) = answer.gpus
    return gpu.weights // MIB, answer.host.weights // MIB


def planned_mib(where, model):
    sizes = {tensor.name: tensor.bytes for tensor in model.tensors}
    return where.gpu_bytes(sizes) // MIB, where.cpu_bytes(sizes) // MIB


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "name", ["GQA", "experts, MTP block", "MLA", "attention, SSM, experts", "SSM", "sliding windows"]
)
def test_moved_tensors(name, models, two_devices):
    """Neither device takes more than is computed, without the copy of weights: RPC computes where the weights are."""
    model, settings = models(name), ServeSettings(16_384, (F16, F16))
    full = two_devices(model, settings, None)
    crossing = formulas.crossing(model, settings).bytes
    for selector in ("*_exps", "attn_*", "blk.*", "ssm_*"):
        if not any(Selector(selector).matches(tensor) for tensor in model.tensors):
            continue
        where = placement(model, [Selector(selector)])
        answer = two_devices(model, settings, None, where.override_tensor())
        assert weights_mib(answer) == planned_mib(where, model)
        assert answer.compute <= full.compute + crossing
        assert answer.host_compute <= max(full.compute, full.host_compute) + crossing


@pytest.mark.llamacpp
def test_needs_with_a_gpu_are_asked_of_both_devices(models, device, monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_RPC", device)
    needs = fit.memory_needs(models("GQA, tied"), 4096)
    assert needs.compute_buffer.how == "planned for RPC0, rounded up to whole MiB"
    assert needs.host_buffer.source == ASKED
    assert needs.kv_cache.bytes == 28 * 4096 * 2 * 8 * 128 * 2
