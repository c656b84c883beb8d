"""Figures of second moments, rounding and building scale with tokens, types and passes; the pace itself is given."""

import pytest
from model_parts import model_of

from quantplan.estimates.pace import Pace
from quantplan.estimates.rounding_pace import RoundingPace, rounding_pace
from quantplan.estimates.rounding_work import (
    of_encoding,
    of_metric_errors,
    of_moments,
    of_quantizing,
    of_round_trips,
)
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.sensitivity.matrix_inputs import MatrixInput
from quantplan.sensitivity.moment_files import sums_bytes

MODEL = model_of(
    {
        "blk.0.attn_q.weight": (256, 256),
        "blk.0.attn_k.weight": (256, 256),
        "blk.0.ffn_down.weight": (512, 256),
        "blk.0.ffn_up_exps.weight": (256, 512, 4),
    }
)
INPUTS = (
    MatrixInput(("blk.0.attn_q.weight", "blk.0.attn_k.weight"), 256, 1, False, 1.0),
    MatrixInput(("blk.0.ffn_down.weight",), 512, 1, False, 1.0),
    MatrixInput(("blk.0.ffn_up_exps.weight",), 256, 4, True, 2.0),
)
PACE = Pace(2.0, 0.01, INPUTS)
ROUNDING = RoundingPace(encode=1e-6, factorize=1e-9, compensate=1e-8, sum=1e-10)
Q4, Q2 = BY_NAME["Q4_K"], BY_NAME["IQ2_S"]
ROOM = 1 << 30


def moments(tokens=1000, memory=ROOM, tensors=MODEL.tensors):
    return of_moments(MODEL, tensors, tokens, memory, PACE, ROUNDING)


def test_second_moments_scale_with_tokens_and_passes():
    work = moments()
    products = 256**2 + 512**2 + 2 * 256**2  # of experts, those that a token meets
    assert work.seconds == pytest.approx(2 + 1000 * 0.01 + 1000 * products * 1e-10)
    assert work.disk_bytes == sums_bytes(256) + sums_bytes(512) + 4 * sums_bytes(256)
    assert moments(2000).seconds - work.seconds == pytest.approx(work.seconds - 2)
    several = moments(memory=2 * 4 * 512**2)
    assert several.seconds > work.seconds and several.memory_bytes < work.memory_bytes
    only = moments(tensors=MODEL.tensors[:1])
    assert only.disk_bytes == sums_bytes(256) and only.seconds < work.seconds


def errors(types, sample=1 << 19):
    kinds = [(tensor, types) for tensor in MODEL.tensors]
    return of_metric_errors(kinds, sample, INPUTS, ROUNDING).seconds


def test_rounding_errors_scale_with_types_and_samples():
    one, three = errors((Q4,)), errors(parse_types("Q4_K,Q5_K,Q6_K"))
    factored = 1e-9 * (256**3 + 512**3 + 4 * 256**3)  # once for all types of a kind
    assert three - factored == pytest.approx(3 * (one - factored)) and one > factored
    assert errors((Q4,), None) > one and errors((Q4, Q2)) > errors(parse_types("Q4_K,Q5_K"))
    whole = of_round_trips([(MODEL.tensors[0], (Q4,))], None, ROUNDING).seconds
    assert whole == pytest.approx(256 * 256 * 1e-6)
    assert of_round_trips([(MODEL.tensors[0], (Q4, Q2))], 1000, ROUNDING).seconds < whole


def test_a_file_is_quantized_and_encoded_once():
    types = {tensor.name: Q4 for tensor in MODEL.tensors}
    quantized, encoded = of_quantizing(types, MODEL, ROUNDING), of_encoding(types, MODEL, INPUTS, ROUNDING)
    assert quantized.seconds == pytest.approx(MODEL.elements * 1e-6)
    assert quantized.disk_bytes == encoded.disk_bytes == MODEL.elements * 144 // 256
    rows = 2 * 256 * 256**2 + 256 * 512**2 + 4 * 512 * 256**2
    assert encoded.seconds == pytest.approx(2 * rows * 1e-8 + 1e-9 * (5 * 256**3 + 512**3))
    copied = {tensor.name: tensor.type for tensor in MODEL.tensors}
    assert of_encoding(copied, MODEL, INPUTS, ROUNDING).seconds == of_quantizing(copied, MODEL, ROUNDING).seconds == 0
    assert of_encoding(types, MODEL, (), ROUNDING).seconds == 0  # nothing is known of their inputs


def test_a_pace_of_this_machine():
    pace = rounding_pace(256, 1)
    assert min(pace.encode, pace.factorize, pace.compensate, pace.sum) > 0
    assert pace.encoding(BY_NAME["F16"]) < pace.encoding(Q4) < pace.encoding(Q2)
    assert pace.compensating(Q4, full=False) < pace.compensating(Q4, full=True) < pace.compensating(Q2, full=True)
