"""Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and IQ4_NL."""

from dataclasses import dataclass

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

# kvalues_iq4nl, ggml-common.h
IQ4_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


@dataclass(frozen=True)
class LegacyBlocks:
    """[d][m][high bits][codes]: ``has_min`` adds m, ``high_bits`` a fifth bit; ``code_bits`` is 4 or 8."""

    name: str
    levels: np.ndarray
    code_bits: int = 4
    has_min: bool = False
    high_bits: bool = False
    block: int = 32
    sub_block: int = 32
    scale_range: tuple[int, int] = (1, 1)

    @property
    def min_range(self) -> tuple[int, int] | None:
        return (-1, -1) if self.has_min else None

    @property
    def block_bytes(self) -> int:
        return 2 + 2 * self.has_min + 4 * self.high_bits + 4 * self.code_bits

    def parse(self, data: np.ndarray) -> ScalarFields:
        """See ``ScalarBlocks.parse``. The minimum is stored with the opposite sign: min_codes are -1."""
        rows, raw = len(data), split_rows(data, self.block_bytes)
        start = 2 + 2 * self.has_min
        codes = self._codes(raw[:, start:])
        d = read_halves(raw[:, :2]).reshape(rows, -1)
        ones = np.ones(d.shape, np.int16)
        if not self.has_min:
            return ScalarFields(codes.reshape(rows, -1), d, ones)
        return ScalarFields(codes.reshape(rows, -1), d, ones, read_halves(raw[:, 2:4]).reshape(rows, -1), -ones)

    def _codes(self, raw: np.ndarray) -> np.ndarray:
        if self.code_bits == 8:  # int8 in two's complement; codes count from the lowest level
            return raw ^ np.uint8(0x80)
        codes = bit_fields(raw[:, 4 * self.high_bits :], 4).reshape(-1, 32)
        if self.high_bits:
            codes |= np.unpackbits(raw[:, :4], axis=1, bitorder="little") << np.uint8(4)
        return codes

    def pack(self, fields: ScalarFields) -> np.ndarray:
        """See ``ScalarBlocks.pack``."""
        rows, codes = len(fields.codes), fields.codes.reshape(-1, 32)
        parts = [half_bytes(fields.d, len(codes))]
        if fields.dmin is not None:
            parts.append(half_bytes(fields.dmin, len(codes)))
        if self.high_bits:
            parts.append(np.packbits(codes >> np.uint8(4), axis=1, bitorder="little"))
        if self.code_bits == 8:
            parts.append(codes ^ np.uint8(0x80))
        else:
            parts.append(join_bit_fields((codes & np.uint8(15)).reshape(-1, 2, 16), 4))
        return np.concatenate(parts, axis=1).reshape(rows, -1)


LEGACY = (
    LegacyBlocks("Q4_0", linear_levels(-8, 7)),
    LegacyBlocks("Q4_1", linear_levels(0, 15), has_min=True),
    LegacyBlocks("Q5_0", linear_levels(-16, 15), high_bits=True),
    LegacyBlocks("Q5_1", linear_levels(0, 31), has_min=True, high_bits=True),
    LegacyBlocks("Q8_0", linear_levels(-128, 127), code_bits=8),
    LegacyBlocks("IQ4_NL", IQ4_LEVELS),
)
