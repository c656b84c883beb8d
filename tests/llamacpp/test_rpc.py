"""A model on llama.cpp's RPC server: the same numbers as here, the hot swap included."""

import os
import signal

import numpy as np
import pytest
from rpc_server import rpc_server
from tiny_models import tiny_tied

from quantplan.errors import QuantplanError, ToolMissing
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_bytes, tensor_rows
from quantplan.llamacpp import ggml, isolated, libraries, rpc
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import base_rows, divergence
from quantplan.quant_type import BY_NAME

pytestmark = pytest.mark.llamacpp
NAMES = ("blk.0.attn_v.weight", "blk.1.ffn_down.weight", "token_embd.weight")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_tied(tmp_path_factory.mktemp("rpc") / "tied.gguf", feed_forward=256)


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:1500]


@pytest.fixture(scope="module")
def server():
    with rpc_server() as found:
        yield found


def swaps(path, text, servers=()):
    """Logits of the untouched model, and for each tensor KLDs with rounded weights and after putting the original back."""
    model, klds = read_model(path), {}
    with Engine(path, EngineOptions(64, Execution(1, rpc=servers), swappable=True)) as engine:
        assert engine.find_weights(set(NAMES)) == set(NAMES)
        chunks = engine.chunks(text)[:4]
        base = base_rows(next(engine.logits(chunks)).copy())
        for tensor in (model.by_name[name] for name in NAMES):
            coarse = ggml.quantize(tensor_rows(model, tensor), BY_NAME["Q4_K"])
            engine.put(
                tensor.name, ggml.quantize(ggml.dequantize(coarse, BY_NAME["Q4_K"], tensor.columns), tensor.type)
            )
            rounded = divergence(base, next(engine.logits(chunks)))
            engine.put(tensor.name, tensor_bytes(model, tensor))
            klds[tensor.name] = rounded, divergence(base, next(engine.logits(chunks)))
    return np.array(base.logits), klds


def test_a_swap_is_the_same_to_the_last_bit(source, text, server):
    """Embeddings that are the output too lie on both sides: both are swapped."""
    here, there = isolated.call(swaps, source, text), isolated.call(swaps, source, text, (server.address,))
    assert np.array_equal(here[0], there[0])
    for name in NAMES:
        assert np.array_equal(here[1][name][0], there[1][name][0]) and here[1][name][0].mean() > 1e-5
        assert (there[1][name][1] == 0).all()


def test_layers_on_both_sides(source, text, server):
    def first(options):
        return isolated.call(logits, source, text, options)

    both = first(EngineOptions(64, Execution(1, gpu_layers=1, rpc=(server.address,))))
    assert np.array_equal(both, first(EngineOptions(64, Execution(1))))


def logits(path, text, options):
    with Engine(path, options) as engine:
        return next(engine.logits(engine.chunks(text)[:2])).copy()


def test_the_name_of_the_backend():
    assert Execution().backend == "cpu" and Execution(gpu_layers=9).backend == "gpu"
    assert (
        Execution(rpc=("a:1", "b:2")).backend == Execution(gpu_layers=9, rpc=("a:1", "b:2")).backend == "RPC[a:1,b:2]"
    )


# -- whose kernels


def test_a_processor_behind_rpc_is_recognised(server):
    assert isolated.call(rpc.rounds_like_the_cpu, (server.address,)) is True


def of_blocks(columns):
    """A device that rounds activations to 8 bits in blocks of so many columns; 0: not at all."""

    def product(_device, kind, stored, inputs):
        blocks = inputs.reshape(len(inputs), -1, columns or 1)
        scale = np.abs(blocks).max(axis=2, keepdims=True) / 127
        taken = (np.rint(blocks / scale) * scale).reshape(inputs.shape) if columns else inputs
        return taken @ ggml.dequantize(stored, kind, inputs.shape[1]).T

    return product


@pytest.mark.parametrize("columns, like", [(0, set()), (32, {"Q8_0"}), (256, {"Q4_K"}), (512, set())])
def test_other_kernels_are_told_apart(monkeypatch, columns, like):
    monkeypatch.setattr(rpc, "product", of_blocks(columns))
    assert {name for name in ("Q4_K", "Q8_0") if rpc.device_rounds_like_the_cpu(0, name)} == like


# -- servers that are not there


def test_a_server_that_goes_away_ends_the_other_process(source, text):
    with rpc_server() as doomed, pytest.raises(isolated.Died) as caught:
        isolated.call(kills_its_server, source, text, doomed.address, doomed.process.pid)
    assert "Remote RPC server crashed" in caught.value.said


def kills_its_server(path, text, address, pid):
    with Engine(path, EngineOptions(64, Execution(1, rpc=(address,)))) as engine:
        chunks = engine.chunks(text)[:2]
        next(engine.logits(chunks))
        os.kill(pid, signal.SIGKILL)
        next(engine.logits(chunks))


def test_nobody_listens():
    with pytest.raises(QuantplanError, match=r"no RPC server answers at 127.0.0.1:1; start one there: ggml-rpc-server"):
        rpc.check(("127.0.0.1:1",))


def test_llama_cpp_without_rpc(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "library_folder", lambda: tmp_path)
    with pytest.raises(ToolMissing, match=r"without its RPC backend; run: CMAKE_ARGS=.*-DGGML_RPC=ON"):
        rpc.check(("127.0.0.1:1",))
