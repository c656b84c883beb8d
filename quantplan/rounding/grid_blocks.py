"""Superblocks of 256 weights in codebook types: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.

A group of 4 or 8 weights is ``scale * sign * grid[point]``, with one of 256 to 1024 points and a sign for each weight. Three
types store seven signs of eight: the number of negative ones is even. The scale of a sub-block is

    scale = d * (scale_code + 1/2) * unit

Source: ggml-common.h, and ``dequantize_row_iq*`` of ggml-quants.c. The grids are not typed here: they are what ggml decodes
blocks to that hold each point in turn.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME
from quantplan.rounding.blocks import bit_fields, half_bytes, join_bit_fields, read_halves, split_rows

_FOUR, _SEVEN = np.uint8(15), np.uint8(127)


@dataclass(frozen=True, slots=True)
class GridFields:
    """``points``: uint16 [rows, groups]; ``signs``: uint8 [rows, columns / 8], bit k set where weight k is negative;
    ``d``: float16 [rows, blocks]; ``scale_codes``: int16 [rows, sub-blocks].
    """

    points: np.ndarray
    signs: np.ndarray
    d: np.ndarray
    scale_codes: np.ndarray


class GridBlocks:
    """What the layouts share. ``group``: weights of a point; ``even``: whether the signs of 8 weights have even parity."""

    name: str
    block_bytes: int
    group: int
    points: int
    unit: float
    sub_block = 32
    block = 256
    even = True
    scale_range = (0, 15)
    min_range = None

    def parse(self, data: np.ndarray) -> GridFields:
        """Fields of uint8 [rows, row bytes]."""
        rows, raw = len(data), split_rows(data, self.block_bytes)
        points, signs, scales = self._parse(raw)
        return GridFields(
            points.reshape(rows, -1).astype(np.uint16),
            signs.reshape(rows, -1),
            read_halves(raw[:, :2]).reshape(rows, -1),
            scales.reshape(rows, -1).astype(np.int16),
        )

    def pack(self, fields: GridFields) -> np.ndarray:
        """uint8 [rows, row bytes]: the inverse of ``parse``."""
        rows = len(fields.d)
        blocks = fields.d.size
        parts = self._pack(*(each.reshape(blocks, -1) for each in (fields.points, fields.signs, fields.scale_codes)))
        return np.concatenate([half_bytes(fields.d, blocks), *parts], axis=1).reshape(rows, -1)

    def multipliers(self, scale_codes: np.ndarray) -> np.ndarray:
        """float32: what d is multiplied with."""
        return (scale_codes + np.float32(0.5)) * np.float32(self.unit)

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """points, signs and scale codes of uint8 [blocks, block bytes]."""
        raise NotImplementedError

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        """What follows ``d`` in the blocks, as bytes."""
        raise NotImplementedError

    @property
    def unit_columns(self) -> int:
        """Columns that are chosen together: a point, or all points whose signs share a parity."""
        return 8 if self.even else self.group

    @property
    def grid(self) -> np.ndarray:
        """float32 [points, group]: magnitudes."""
        return _grid(self)


@cache
def _grid(layout: GridBlocks) -> np.ndarray:
    points = np.arange(layout.points, dtype=np.uint16).reshape(-1, 256 // layout.group)
    fields = GridFields(
        points,
        np.zeros((len(points), 32), np.uint8),
        np.ones((len(points), 1), np.float16),
        np.zeros((len(points), 256 // layout.sub_block), np.int16),
    )
    decoded = ggml.dequantize(layout.pack(fields), BY_NAME[layout.name], 256)
    return decoded.reshape(-1, layout.group) / np.float32(layout.unit / 2)


# --- pieces


def _unfold_signs(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 signs [blocks, 32], with the eighth that makes them even, and scale codes [blocks, 8] of uint32 words."""
    seven = (words[:, :, None] >> np.arange(0, 28, 7, dtype=np.uint32)).astype(np.uint8) & _SEVEN
    return with_parity(seven).reshape(len(words), -1), words >> np.uint32(28)


def _fold_signs(signs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    seven = (signs & _SEVEN).reshape(len(signs), 8, 4).astype(np.uint32) << np.arange(0, 28, 7, dtype=np.uint32)
    words = np.bitwise_or.reduce(seven, axis=2) | scales.astype(np.uint32) << np.uint32(28)
    return np.ascontiguousarray(words).view(np.uint8)


def with_parity(seven: np.ndarray) -> np.ndarray:
    """uint8: seven sign bits and the eighth that makes their number even."""
    parity = seven ^ seven >> np.uint8(4)
    parity ^= parity >> np.uint8(2)
    parity ^= parity >> np.uint8(1)
    return seven | (parity & np.uint8(1)) << np.uint8(7)


def _scale_nibbles(raw: np.ndarray) -> np.ndarray:
    """Two scale codes in each byte, the first in the low bits."""
    return bit_fields(raw, 4).transpose(0, 2, 1).reshape(len(raw), -1)


def _join_scale_nibbles(scales: np.ndarray) -> np.ndarray:
    return join_bit_fields(scales.reshape(len(scales), -1, 2).transpose(0, 2, 1), 4)


# --- the layouts


class IQ2XXS(GridBlocks):
    name, block_bytes, group, points, unit = "IQ2_XXS", 66, 8, 256, 0.25

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words = raw[:, 2:].reshape(-1, 8, 8)
        signs, scales = _unfold_signs(np.ascontiguousarray(words[:, :, 4:]).view(np.uint32)[:, :, 0])
        return words[:, :, :4], signs, scales

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        words = _fold_signs(signs, scales).reshape(-1, 8, 4)
        return [np.concatenate([points.astype(np.uint8).reshape(-1, 8, 4), words], axis=2).reshape(-1, 64)]


class IQ2XS(GridBlocks):
    name, block_bytes, group, points, unit, sub_block = "IQ2_XS", 74, 8, 512, 0.25, 16

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words = np.ascontiguousarray(raw[:, 2:66]).view(np.uint16)
        return (
            words & np.uint16(511),
            with_parity((words >> np.uint16(9)).astype(np.uint8)),
            _scale_nibbles(raw[:, 66:]),
        )

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        words = points.astype(np.uint16) | (signs & _SEVEN).astype(np.uint16) << np.uint16(9)
        return [np.ascontiguousarray(words).view(np.uint8), _join_scale_nibbles(scales)]


class IQ2S(GridBlocks):
    name, block_bytes, group, points, unit, sub_block, even = "IQ2_S", 82, 8, 1024, 0.25, 16, False

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        high = bit_fields(raw[:, 66:74], 2).transpose(0, 2, 1).reshape(-1, 32).astype(np.uint16)
        return raw[:, 2:34] | high << np.uint16(8), raw[:, 34:66], _scale_nibbles(raw[:, 74:])

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        high = join_bit_fields((points >> np.uint16(8)).reshape(-1, 8, 4).transpose(0, 2, 1), 2)
        return [(points & np.uint16(255)).astype(np.uint8), signs, high, _join_scale_nibbles(scales)]


class IQ3XXS(GridBlocks):
    name, block_bytes, group, points, unit = "IQ3_XXS", 98, 4, 256, 0.5

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        signs, scales = _unfold_signs(np.ascontiguousarray(raw[:, 66:]).view(np.uint32))
        return raw[:, 2:66], signs, scales

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        return [points.astype(np.uint8), _fold_signs(signs, scales)]


class IQ3S(GridBlocks):
    name, block_bytes, group, points, unit, even = "IQ3_S", 110, 4, 512, 2.0, False

    def _parse(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        high = np.unpackbits(raw[:, 66:74], axis=1, bitorder="little").astype(np.uint16)
        return raw[:, 2:66] | high << np.uint16(8), raw[:, 74:106], _scale_nibbles(raw[:, 106:])

    def _pack(self, points: np.ndarray, signs: np.ndarray, scales: np.ndarray) -> list[np.ndarray]:
        high = np.packbits((points >> np.uint16(8)).astype(np.uint8), axis=1, bitorder="little")
        return [(points & np.uint16(255)).astype(np.uint8), high, signs, _join_scale_nibbles(scales)]


GRID = (IQ2XXS(), IQ2XS(), IQ2S(), IQ3XXS(), IQ3S())
