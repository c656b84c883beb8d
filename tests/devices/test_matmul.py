"""Products in ggml graphs: they run for every type and for experts, and large ones are cut to what a moment can time."""

import numpy as np
import pytest

from quantplan.devices.speed import matmul
from quantplan.devices.speed.matmul import MATRIX_BYTES, Load, encoded_rows, measured_shape, time_product, undisturbed
from quantplan.devices.speed.table import Shape
from quantplan.errors import BadUsage
from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(matmul, "SECONDS", 0.01)
    monkeypatch.setattr(matmul, "PASS_BYTES", 1 << 20)
    monkeypatch.setattr(matmul, "PASS_PRODUCTS", 1 << 24)


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K", "Q4_0", "IQ4_NL", "Q2_K"])
@pytest.mark.parametrize("tokens", [1, 32])
def test_time_is_positive_and_finite(name, tokens):
    timing = time_product(BY_NAME[name], Shape(256, 64), Load(tokens, 1 << 18, 1))
    assert 0 < timing.ns < 1e9
    assert timing.runs >= 5


@pytest.mark.parametrize("tokens", [1, 32])
def test_experts_run(tokens):
    timing = time_product(BY_NAME["Q4_K"], Shape(256, 64, 8, 2), Load(tokens, 1 << 20, 1))
    assert 0 < timing.ns < 1e9


def test_no_gpu_here_is_said():
    if matmul.devices_of_type(matmul.GPU):
        pytest.skip("this machine has a GPU")
    with pytest.raises(BadUsage, match="no GPU"):
        time_product(BY_NAME["Q8_0"], Shape(256, 64), Load(1, 1 << 18, 1, gpu=True))


def test_undisturbed_takes_the_lower_quartile():
    timing = undisturbed([10.0, 11.0, 12.0, 13.0, 500.0])
    assert (timing.ns, timing.stderr, timing.runs) == (11.0, 1.0, 5)


def test_small_matrices_are_timed_whole():
    assert measured_shape(BY_NAME["Q4_K"], Shape(4096, 4096), 1) == Shape(4096, 4096)


def test_large_matrices_lose_rows_not_columns_or_experts():
    output = measured_shape(BY_NAME["F16"], Shape(4096, 151936), 1)
    assert output.columns == 4096
    assert output.columns * output.rows * 2 <= MATRIX_BYTES
    mixture = measured_shape(BY_NAME["Q8_0"], Shape(2048, 768, 128, 8), 512)
    assert (mixture.columns, mixture.experts, mixture.used) == (2048, 128, 8)
    assert mixture.rows == 256


def test_encoded_rows_are_weights_of_their_type():
    kind = BY_NAME["Q6_K"]
    values = ggml.dequantize(encoded_rows(kind, 700, 512), kind, 512)
    assert values.shape == (700, 512)
    assert np.isclose(values.std(), 512**-0.5, rtol=0.1)
