"""Superblocks of 256 weights with integer scales of sub-blocks: Q2_K to Q6_K and IQ4_XS."""

import numpy as np

from quantplan.rounding.blocks import (
    ScalarFields,
    bit_fields,
    half_bytes,
    join_bit_fields,
    linear_levels,
    read_halves,
    split_rows,
)
from quantplan.rounding.legacy_blocks import IQ4_LEVELS

# codes, d, scales of sub-blocks, dmin, minimums of sub-blocks; the last two None for types without a minimum
_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, "np.ndarray | None", "np.ndarray | None"]


class _SuperBlocks:
    """What the layouts share: [rows, ...] around [blocks, ...]."""

    name: str
    block_bytes: int
    levels: np.ndarray
    block = 256
    sub_block = 32
    scale_range = (0, 63)
    min_range: tuple[int, int] | None = None

    def parse(self, data: np.ndarray) -> ScalarFields:
        """See ``ScalarBlocks.parse``."""
        rows, raw = len(data), split_rows(data, self.block_bytes)
        codes, d, scales, dmin, mins = self._parse(raw)
        return ScalarFields(
            codes.reshape(rows, -1),
            d.reshape(rows, -1),
            scales.reshape(rows, -1).astype(np.int16),
            None if dmin is None else dmin.reshape(rows, -1),
            None if mins is None else mins.reshape(rows, -1).astype(np.int16),
        )

    def pack(self, fields: ScalarFields) -> np.ndarray:
        """See ``ScalarBlocks.pack``."""
        rows, codes = len(fields.codes), fields.codes.reshape(-1, 256)
        blocks = len(codes)
        parts = {"d": half_bytes(fields.d, blocks)}
        if fields.dmin is not None:
            parts["dmin"] = half_bytes(fields.dmin, blocks)
        mins = None if fields.min_codes is None else fields.min_codes.reshape(blocks, -1)
        parts |= self._pack(codes, fields.scale_codes.reshape(blocks, -1), mins)
        return np.concatenate([parts[part] for part in self._order], axis=1).reshape(rows, -1)

    _order: tuple[str, ...]

    def _parse(self, raw: np.ndarray) -> _Parts:
        """codes, d, scale codes, dmin, min codes of uint8 [blocks, block bytes]."""
        raise NotImplementedError

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        """The parts of the blocks but ``d`` and ``dmin`` as bytes."""
        raise NotImplementedError


def _two_bits(raw: np.ndarray) -> np.ndarray:
    """uint8 [blocks, 256] of 64 bytes: each half of the superblock stores four runs of 32 codes in 32 bytes."""
    return bit_fields(raw.reshape(-1, 32), 2).reshape(-1, 256)


def _join_two_bits(codes: np.ndarray) -> np.ndarray:
    return join_bit_fields(codes.reshape(-1, 4, 32), 2).reshape(-1, 64)


def _nibbles(raw: np.ndarray) -> np.ndarray:
    """uint8 [blocks, 256] of 128 bytes: runs of 32 codes, two in 32 bytes."""
    return bit_fields(raw.reshape(-1, 32), 4).reshape(-1, 256)


def _join_nibbles(codes: np.ndarray) -> np.ndarray:
    return join_bit_fields((codes & np.uint8(15)).reshape(-1, 2, 32), 4).reshape(-1, 128)


class Q2K(_SuperBlocks):
    name, block_bytes, levels = "Q2_K", 84, linear_levels(0, 3)
    sub_block, scale_range, min_range = 16, (0, 15), (0, 15)
    _order = ("scales", "codes", "d", "dmin")

    def _parse(self, raw: np.ndarray) -> _Parts:
        scales, halves = raw[:, :16], read_halves(raw[:, 80:])
        return _two_bits(raw[:, 16:80]), halves[:, 0], scales & np.uint8(15), halves[:, 1], scales >> np.uint8(4)

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        assert mins is not None  # the type has minimums
        return {"scales": (scales | mins << 4).astype(np.uint8), "codes": _join_two_bits(codes)}


class Q3K(_SuperBlocks):
    name, block_bytes, levels = "Q3_K", 110, linear_levels(-4, 3)
    sub_block, scale_range = 16, (-32, 31)
    _order = ("high", "codes", "scales", "d")

    def _parse(self, raw: np.ndarray) -> _Parts:
        high = bit_fields(raw[:, :32], 1).reshape(-1, 256)
        codes = _two_bits(raw[:, 32:96]) | high << np.uint8(2)
        low = bit_fields(raw[:, 96:104], 4).reshape(-1, 16)
        top = bit_fields(raw[:, 104:108], 2).reshape(-1, 16)
        return codes, read_halves(raw[:, 108:]), (low | top << np.uint8(4)).astype(np.int16) - 32, None, None

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        stored = (scales + 32).astype(np.uint8)
        low = join_bit_fields((stored & np.uint8(15)).reshape(-1, 2, 8), 4)
        top = join_bit_fields((stored >> np.uint8(4)).reshape(-1, 4, 4), 2)
        return {
            "high": join_bit_fields((codes >> np.uint8(2)).reshape(-1, 8, 32), 1),
            "codes": _join_two_bits(codes & np.uint8(3)),
            "scales": np.concatenate([low, top], axis=1),
        }


def _six_bit_pairs(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales and eight minimums of six bits in twelve bytes; ``get_scale_min_k4``, ggml-quants.c."""
    first, second, third = raw[:, :4], raw[:, 4:8], raw[:, 8:]
    six, two = np.uint8(63), np.uint8(6)
    scales = np.concatenate([first & six, third & np.uint8(15) | (first >> two) << np.uint8(4)], axis=1)
    mins = np.concatenate([second & six, third >> np.uint8(4) | (second >> two) << np.uint8(4)], axis=1)
    return scales, mins


def _join_six_bit_pairs(scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
    scales, mins = scales.astype(np.uint8), mins.astype(np.uint8)
    four, six = np.uint8(4), np.uint8(6)
    first = scales[:, :4] | (scales[:, 4:] >> four) << six
    second = mins[:, :4] | (mins[:, 4:] >> four) << six
    third = scales[:, 4:] & np.uint8(15) | (mins[:, 4:] & np.uint8(15)) << four
    return np.concatenate([first, second, third], axis=1)


class Q4K(_SuperBlocks):
    name, block_bytes, levels, min_range = "Q4_K", 144, linear_levels(0, 15), (0, 63)
    _order = ("d", "dmin", "scales", "codes")

    def _parse(self, raw: np.ndarray) -> _Parts:
        halves = read_halves(raw[:, :4])
        scales, mins = _six_bit_pairs(raw[:, 4:16])
        return _nibbles(raw[:, 16:]), halves[:, 0], scales, halves[:, 1], mins

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        assert mins is not None
        return {"scales": _join_six_bit_pairs(scales, mins), "codes": _join_nibbles(codes)}


class Q5K(_SuperBlocks):
    name, block_bytes, levels, min_range = "Q5_K", 176, linear_levels(0, 31), (0, 63)
    _order = ("d", "dmin", "scales", "high", "codes")

    def _parse(self, raw: np.ndarray) -> _Parts:
        halves = read_halves(raw[:, :4])
        scales, mins = _six_bit_pairs(raw[:, 4:16])
        high = bit_fields(raw[:, 16:48], 1).reshape(-1, 256)
        return _nibbles(raw[:, 48:]) | high << np.uint8(4), halves[:, 0], scales, halves[:, 1], mins

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        assert mins is not None
        return {
            "scales": _join_six_bit_pairs(scales, mins),
            "high": join_bit_fields((codes >> np.uint8(4)).reshape(-1, 8, 32), 1),
            "codes": _join_nibbles(codes),
        }


class Q6K(_SuperBlocks):
    name, block_bytes, levels = "Q6_K", 210, linear_levels(-32, 31)
    sub_block, scale_range = 16, (-128, 127)
    _order = ("codes", "high", "scales", "d")

    def _parse(self, raw: np.ndarray) -> _Parts:
        low = bit_fields(raw[:, :128].reshape(-1, 64), 4).reshape(-1, 256)
        codes = low | _two_bits(raw[:, 128:192]) << np.uint8(4)
        return codes, read_halves(raw[:, 208:]), raw[:, 192:208].view(np.int8), None, None

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        return {
            "codes": join_bit_fields((codes & np.uint8(15)).reshape(-1, 2, 64), 4).reshape(-1, 128),
            "high": _join_two_bits(codes >> np.uint8(4)),
            "scales": scales.astype(np.int8).view(np.uint8),
        }


class IQ4XS(_SuperBlocks):
    name, block_bytes, levels, scale_range = "IQ4_XS", 136, IQ4_LEVELS, (-32, 31)
    _order = ("d", "high", "low", "codes")

    def _parse(self, raw: np.ndarray) -> _Parts:
        high = bit_fields(raw[:, 2:4], 2).transpose(0, 2, 1).reshape(-1, 8)
        low = bit_fields(raw[:, 4:8], 4).transpose(0, 2, 1).reshape(-1, 8)
        codes = bit_fields(raw[:, 8:].reshape(-1, 16), 4).reshape(-1, 256)
        return codes, read_halves(raw[:, :2]), (low | high << np.uint8(4)).astype(np.int16) - 32, None, None

    def _pack(self, codes: np.ndarray, scales: np.ndarray, mins: np.ndarray | None) -> dict[str, np.ndarray]:
        stored = (scales + 32).astype(np.uint8)
        return {
            "high": join_bit_fields((stored >> np.uint8(4)).reshape(-1, 2, 4).transpose(0, 2, 1), 2),
            "low": join_bit_fields((stored & np.uint8(15)).reshape(-1, 4, 2).transpose(0, 2, 1), 4),
            "codes": join_bit_fields(codes.reshape(-1, 2, 16), 4).reshape(-1, 128),
        }


SUPER = (Q2K(), Q3K(), Q4K(), Q5K(), Q6K(), IQ4XS())
