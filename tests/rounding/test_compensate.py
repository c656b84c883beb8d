"""Compensated rounding: against the textbook, never worse than ggml, the same bytes on any number of threads."""

import numpy as np
import pytest

from quantplan.errors import BadFile, NothingSelected
from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME
from quantplan.rounding.blocks import decode
from quantplan.rounding.compensate import RoundingOptions, compensate
from quantplan.rounding.grid_panel import features, nearest_points
from quantplan.rounding.layouts import CODEBOOK, LAYOUTS, SCALAR
from quantplan.rounding.metric import prepare

COLUMNS = 512
TYPES = pytest.mark.parametrize(
    "kind",
    [pytest.param(BY_NAME[name], marks=[pytest.mark.slow] * (name in CODEBOOK)) for name in LAYOUTS],
    ids=str,
)
SCALARS = pytest.mark.parametrize("kind", [BY_NAME[name] for name in SCALAR], ids=str)


def second_moments(columns=COLUMNS, seed=0, tokens=4096):
    """float32 [columns, columns] of inputs that are correlated and of uneven size."""
    random = np.random.default_rng(seed)
    mixing = np.eye(columns) + random.standard_normal((columns, columns)) / np.sqrt(columns)
    inputs = random.standard_normal((tokens, columns)) @ mixing * np.exp(random.standard_normal(columns) / 2)
    return (inputs.T @ inputs / tokens).astype(np.float32)


def random_weights(rows=48, columns=COLUMNS, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32) / 50


def row_errors(weights, blocks, kind, hessian):
    """float64 [rows], straight from the definition."""
    errors = weights.astype(float) - ggml.dequantize(blocks, kind, weights.shape[1])
    return np.einsum("ij,jk,ik->i", errors, hessian.astype(float), errors, optimize=True)


def textbook_gptq(weights, hessian, kind):
    """tr(D H D^T) of GPTQ as in the paper, with the inverse of H, in float64 and one column at a time."""
    layout = SCALAR[kind.name]
    fields = layout.parse(ggml.quantize(weights, kind, np.ascontiguousarray(np.diagonal(hessian))))
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    scales = np.repeat(fields.scales(), layout.sub_block, axis=1)[:, order].astype(float)
    mins = np.repeat(fields.minimums(), layout.sub_block, axis=1)[:, order].astype(float)
    exact = hessian.astype(float)
    damped = exact[np.ix_(order, order)] + 0.01 * np.diagonal(exact).mean() * np.eye(len(exact))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, rounded = weights[:, order].astype(float), np.empty(weights.shape)
    for column in range(len(exact)):
        levels = np.rint((rest[:, column] + mins[:, column]) / scales[:, column])
        rounded[:, column] = np.clip(levels, *layout.levels[[0, -1]]) * scales[:, column] - mins[:, column]
        error = (rest[:, column] - rounded[:, column]) / upper[column, column]
        rest[:, column + 1 :] -= error[:, None] * upper[column, column + 1 :]
    errors = weights[:, order] - rounded
    moved = exact[np.ix_(order, order)]
    return np.einsum("ij,jk,ik->", errors, moved, errors, optimize=True)


def test_feedback_is_gptq():
    weights, hessian, kind = random_weights(), second_moments(), BY_NAME["Q4_K"]
    rounded = compensate(weights, hessian, kind, RoundingOptions(sweeps=0))
    assert rounded.errors.sum() == pytest.approx(textbook_gptq(weights, hessian, kind), rel=2e-3)


@TYPES
def test_errors_are_those_of_the_bytes_and_lower_than_ggmls(kind):
    weights, hessian = random_weights(), second_moments()
    rounded = compensate(weights, hessian, kind)
    stock = row_errors(weights, ggml.quantize(weights, kind, np.diagonal(hessian).copy()), kind, hessian)
    assert rounded.errors == pytest.approx(row_errors(weights, rounded.blocks, kind, hessian), rel=1e-3)
    assert rounded.stock_errors == pytest.approx(stock, rel=1e-3)
    assert (rounded.errors <= rounded.stock_errors).all()
    assert rounded.error_ratio < 0.8


@TYPES
def test_rows_of_one_superblock(kind):
    weights, hessian = random_weights(8, 256), second_moments(256)
    rounded = compensate(weights, hessian, kind)
    assert rounded.errors == pytest.approx(row_errors(weights, rounded.blocks, kind, hessian), rel=1e-3)
    assert rounded.error_ratio < 1


@TYPES
def test_sweeps_and_refits_lower_the_error(kind):
    weights, hessian = random_weights(), second_moments()
    fed_back, swept, refitted = (
        compensate(weights, hessian, kind, RoundingOptions(sweeps=sweeps, refit=refit)).error_ratio
        for sweeps, refit in ((0, False), (3, False), (3, True))
    )
    assert refitted < swept < fed_back


@pytest.mark.parametrize("name", ["Q2_K", "Q5_1", "IQ4_XS", "IQ3_XXS"])
def test_threads_do_not_change_the_bytes(name):
    weights, hessian = random_weights(rows=150), second_moments()
    one, three = (compensate(weights, hessian, BY_NAME[name], RoundingOptions(threads=n)).blocks for n in (1, 3))
    assert np.array_equal(one, three)


@SCALARS
def test_without_correlation_nothing_is_much_better_than_ggml(kind):
    """With a diagonal H rounding to the nearest is optimal given the scales: what is left to gain is the refit."""
    hessian = np.diag(np.exp(np.random.default_rng(2).standard_normal(COLUMNS))).astype(np.float32)
    rounded = compensate(random_weights(), hessian, kind, RoundingOptions(refit=False))
    assert rounded.error_ratio == pytest.approx(1, rel=0.03)


@TYPES
def test_dead_inputs_keep_ggmls_codes(kind):
    weights, hessian = random_weights(), second_moments()
    dead = np.repeat(np.random.default_rng(3).random(COLUMNS // 8) < 0.2, 8)
    hessian[dead], hessian[:, dead] = 0, 0
    rounded = compensate(weights, hessian, kind, RoundingOptions(refit=False))
    stock = ggml.quantize(weights, kind, np.diagonal(hessian).copy())
    ours, theirs = (ggml.dequantize(blocks, kind, COLUMNS) for blocks in (rounded.blocks, stock))
    assert np.array_equal(ours[:, dead], theirs[:, dead])
    assert rounded.error_ratio < 0.9


@TYPES
def test_dead_inputs_among_live_ones_stay_near_their_weights(kind):
    weights, hessian = random_weights(), second_moments()
    dead = np.random.default_rng(3).random(COLUMNS) < 0.2
    hessian[dead], hessian[:, dead] = 0, 0
    rounded = compensate(weights, hessian, kind)
    stock = ggml.quantize(weights, kind, np.diagonal(hessian).copy())
    ours, theirs = (
        ((ggml.dequantize(each, kind, COLUMNS) - weights)[:, dead] ** 2).sum() for each in (rounded.blocks, stock)
    )
    assert ours < 2 * theirs


@TYPES
def test_nothing_to_gain_is_ggmls_encoding(kind):
    zero, no_inputs = np.zeros((3, COLUMNS), np.float32), np.zeros((COLUMNS, COLUMNS), np.float32)
    for weights, hessian in ((zero, second_moments()), (random_weights(3), no_inputs)):
        rounded = compensate(weights, hessian, kind)
        importance = np.diagonal(hessian) if hessian.any() else np.ones(COLUMNS)
        assert np.array_equal(rounded.blocks, ggml.quantize(weights, kind, importance.astype(np.float32)))
        assert rounded.rows_kept == 3
        assert rounded.error_ratio == 1


@pytest.mark.parametrize("columns", [32, 96, 288, 544])
def test_legacy_types_take_rows_that_are_no_multiple_of_256(columns):
    weights, hessian = random_weights(columns=columns), second_moments(columns)
    for name in ("Q4_0", "Q5_1", "IQ4_NL"):
        rounded = compensate(weights, hessian, BY_NAME[name])
        assert rounded.errors == pytest.approx(row_errors(weights, rounded.blocks, BY_NAME[name], hessian), rel=1e-3)
        assert rounded.error_ratio < 1


def test_a_row_among_others_is_rounded_as_it_would_be_in_any_sample():
    """Rows are independent given H, so errors may be estimated on a sample of rows."""
    weights, hessian = random_weights(rows=200), second_moments()
    whole = compensate(weights, hessian, BY_NAME["Q3_K"])
    part = compensate(weights[::7], hessian, BY_NAME["Q3_K"])
    assert whole.errors[::7] == pytest.approx(part.errors, rel=0.1)


@pytest.mark.parametrize("tokens", [40, 300])
def test_second_moments_of_few_tokens(tokens):
    weights, hessian = random_weights(), second_moments(tokens=tokens)
    rounded = compensate(weights, hessian, BY_NAME["Q4_K"])
    assert rounded.error_ratio < 0.8


def test_extreme_columns_and_rows():
    """Inputs with outliers of ten orders of magnitude, weights that overflow float16 scales or underflow them."""
    hessian = second_moments()
    outlier = np.ones(COLUMNS, np.float32)
    outlier[7] = 1e5
    hessian *= outlier * outlier[:, None]
    weights = random_weights() * np.logspace(-9, 5, 48, dtype=np.float32)[:, None]
    for kind in map(BY_NAME.get, ("Q4_K", "Q3_K", "Q4_0", "IQ2_XS", "IQ3_XXS")):
        rounded = compensate(weights, hessian, kind)
        assert np.isfinite(rounded.errors).all()
        assert (rounded.errors <= rounded.stock_errors).all()


def test_points_are_the_best_of_the_grid():
    """The form that scores all points at once, against distances written out."""
    random, layout = np.random.default_rng(5), CODEBOOK["IQ2_XS"]
    target, scale = random.standard_normal((8, 40), np.float32) * 20, np.full(40, 0.7, np.float32)
    mixing = random.standard_normal((8, 8))
    metric = (mixing @ mixing.T).astype(np.float32)
    negative = target < 0
    chosen = nearest_points(target, metric, scale, negative, features(layout.grid))
    signed = np.where(negative.T[:, None], -layout.grid, layout.grid) * 0.7
    rest = target.T[:, None] - signed
    distances = np.einsum("rpi,ij,rpj->rp", rest, metric, rest)
    assert distances[np.arange(40), chosen] == pytest.approx(distances.min(axis=1), rel=1e-4)


def test_metric_must_keep_the_columns_of_a_point_together():
    with pytest.raises(ValueError, match="groups of 8"):
        compensate(random_weights(), prepare(second_moments()), BY_NAME["IQ2_S"])


def test_what_is_refused():
    weights, hessian = random_weights(), second_moments()
    with pytest.raises(NothingSelected, match="IQ1_S cannot be rounded"):
        compensate(weights, hessian, BY_NAME["IQ1_S"])
    with pytest.raises(BadFile, match="weights contain NaN"):
        compensate(np.where(weights == weights[5, 5], np.nan, weights), hessian, BY_NAME["Q4_K"])
    for value, text in ((np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-1, "negative values")):
        broken = hessian.copy()
        broken[9, 9] = value
        with pytest.raises(BadFile, match=text):
            prepare(broken)
    indefinite = -np.abs(hessian)
    np.fill_diagonal(indefinite, np.diagonal(hessian))
    with pytest.raises(BadFile, match="not positive semidefinite"):
        prepare(indefinite * 1e3 - np.diag(999 * np.diagonal(hessian)))
    with pytest.raises(ValueError, match="do not fit"):
        compensate(weights[:, :256], hessian, BY_NAME["Q4_K"])


def test_inputs_are_left_as_they_are():
    weights, hessian = random_weights(), second_moments()
    before = weights.copy(), hessian.copy()
    compensate(weights, hessian, BY_NAME["Q4_K"])
    assert np.array_equal(weights, before[0])
    assert np.array_equal(hessian, before[1])


def test_decoding_in_numpy_is_what_ggml_decodes_of_a_result():
    weights, hessian, kind = random_weights(), second_moments(), BY_NAME["Q4_K"]
    blocks = compensate(weights, hessian, kind).blocks
    layout = SCALAR[kind.name]
    assert np.array_equal(decode(layout, layout.parse(blocks)), ggml.dequantize(blocks, kind, COLUMNS))
