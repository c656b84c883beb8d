"""Blocks parsed and packed in numpy decode, by ggml's own code, to exactly the values that were meant."""

import dataclasses

import numpy as np
import pytest

from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME
from quantplan.rounding.blocks import decode
from quantplan.rounding.layouts import CODEBOOK, LAYOUTS, SCALAR

COLUMNS, ROWS = 512, 48
EVERY = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
SCALARS = pytest.mark.parametrize("layout", SCALAR.values(), ids=SCALAR)
CODEBOOKS = pytest.mark.parametrize("layout", CODEBOOK.values(), ids=CODEBOOK)


def random_halves(shape, random):
    """float16 of all magnitudes, both signs, among them zeros, subnormal and greatest values."""
    values = (random.standard_normal(shape) * 10.0 ** random.integers(-9, 4, shape)).astype(np.float16)
    extremes = np.array([0, -0.0, 6e-8, -6e-8, 3e-5, 65504, -65504, 1], np.float16)
    chosen = random.random(shape) < 0.3
    values[chosen] = random.choice(extremes, chosen.sum())
    return values


def random_fields(layout, seed=0):
    """Fields of random bytes, with factors that are numbers."""
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (ROWS, BY_NAME[layout.name].row_bytes(COLUMNS)), np.uint8)
    fields = layout.parse(data)
    fields = dataclasses.replace(fields, d=random_halves(fields.d.shape, random))
    if layout.min_range is not None:
        fields = dataclasses.replace(fields, dmin=random_halves(fields.dmin.shape, random))
    return fields


def decode_grid(layout, fields):
    """float32 [rows, columns]: the weights that the fields stand for, as ggml's ``to_float`` computes them."""
    magnitudes = layout.grid[fields.points].reshape(len(fields.points), -1)
    scales = fields.d.astype(np.float32).repeat(256 // layout.sub_block, axis=1) * layout.multipliers(
        fields.scale_codes
    )
    negative = np.unpackbits(fields.signs, axis=1, bitorder="little").astype(bool)
    out = magnitudes * np.repeat(scales, layout.sub_block, axis=1)
    return np.where(negative, -out, out)


def decoded_here(layout, fields):
    return (decode if layout.name in SCALAR else decode_grid)(layout, fields)


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@EVERY
def test_bytes_survive_parsing_and_packing(layout):
    data = np.random.default_rng(1).integers(0, 256, (ROWS, BY_NAME[layout.name].row_bytes(COLUMNS)), np.uint8)
    assert np.array_equal(layout.pack(layout.parse(data)), data)


@EVERY
def test_ggml_decodes_what_was_packed(layout):
    fields = random_fields(layout)
    decoded = ggml.dequantize(layout.pack(fields), BY_NAME[layout.name], COLUMNS)
    assert np.array_equal(bits(decoded), bits(decoded_here(layout, fields)))


@SCALARS
def test_all_codes_and_scales_at_their_ends(layout):
    fields = random_fields(layout)
    for code in (0, len(layout.levels) - 1):
        for end in (0, 1):
            ends = {"scale_codes": np.full_like(fields.scale_codes, layout.scale_range[end])}
            if fields.min_codes is not None:
                ends["min_codes"] = np.full_like(fields.min_codes, layout.min_range[end])
            edge = dataclasses.replace(fields, codes=np.full_like(fields.codes, code), **ends)
            decoded = ggml.dequantize(layout.pack(edge), BY_NAME[layout.name], COLUMNS)
            assert np.array_equal(bits(decoded), bits(decode(layout, edge)))


@SCALARS
def test_each_code_has_its_own_place(layout):
    """Moving one code moves one weight: a layout with two codes exchanged would fail here."""
    fields = random_fields(layout)
    ones = dataclasses.replace(
        fields,
        d=np.ones_like(fields.d),
        scale_codes=np.ones_like(fields.scale_codes),
        codes=np.zeros_like(fields.codes),
    )
    before = ggml.dequantize(layout.pack(ones), BY_NAME[layout.name], COLUMNS)
    for column in (0, 1, 15, 16, 31, 32, 100, 255, 256, 511):
        codes = ones.codes.copy()
        codes[:, column] = 1
        after = ggml.dequantize(layout.pack(dataclasses.replace(ones, codes=codes)), BY_NAME[layout.name], COLUMNS)
        assert np.flatnonzero((after != before).any(axis=0)).tolist() == [column]


@EVERY
def test_shape_is_ggmls(layout):
    kind = BY_NAME[layout.name]
    assert layout.block == kind.block
    assert layout.pack(random_fields(layout)).shape == (ROWS, kind.row_bytes(COLUMNS))


@CODEBOOKS
def test_all_points_and_signs(layout):
    random, kind = np.random.default_rng(4), BY_NAME[layout.name]
    fields = random_fields(layout)
    points = random.permutation(np.resize(np.arange(layout.points, dtype=np.uint16), fields.points.size))
    ends = dataclasses.replace(
        fields,
        points=points.reshape(fields.points.shape),
        scale_codes=random.choice(np.array(layout.scale_range, np.int16), fields.scale_codes.shape),
    )
    decoded = ggml.dequantize(layout.pack(ends), kind, COLUMNS)
    assert np.array_equal(bits(decoded), bits(decode_grid(layout, ends)))
    signs = np.unpackbits(fields.signs.reshape(-1, 1), axis=1)
    assert len(np.unique(fields.signs)) == (128 if layout.even else 256)
    assert not layout.even or not (signs.sum(axis=1) % 2).any()


@CODEBOOKS
def test_grids_hold_distinct_points(layout):
    assert len(np.unique(layout.grid, axis=0)) == layout.points
    assert (layout.grid > 0).all()
