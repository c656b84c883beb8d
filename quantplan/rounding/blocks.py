"""ggml's blocks as arrays: integer codes and scales out of the bytes, and back into them.

A weight of a scalar type is ``scale * level - minimum``, where a block of 32 or 256 weights stores float16 factors ``d``
(and ``dmin``) and each sub-block small integers that multiply them:

    scale = d * scale_codes        minimum = dmin * min_codes

Source: the block structures of ggml-common.h and the ``dequantize_row_*`` functions of ggml-quants.c. Products are
taken in float32 in the same order as there, so decoded values agree bit for bit with ggml's (on processors whose
compiler fuses multiplication and addition, types with a minimum may differ in the last bit).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class ScalarFields:
    """The parts of encoded rows of a scalar type.

    ``codes``: uint8 [rows, columns], positions in the type's levels; ``d``, ``dmin``: float16 [rows, blocks];
    ``scale_codes``, ``min_codes``: int16 [rows, sub-blocks]. ``dmin`` and ``min_codes`` are None for types without a
    minimum.
    """

    codes: np.ndarray
    d: np.ndarray
    scale_codes: np.ndarray
    dmin: np.ndarray | None = None
    min_codes: np.ndarray | None = None

    def scales(self) -> np.ndarray:
        """float32 [rows, sub-blocks]: what the levels of each sub-block are multiplied with."""
        return _per_sub_block(self.d, self.scale_codes)

    def minimums(self) -> np.ndarray | None:
        """float32 [rows, sub-blocks]: what is subtracted in each sub-block; None for types without a minimum."""
        if self.dmin is None or self.min_codes is None:
            return None
        return _per_sub_block(self.dmin, self.min_codes)


def _per_sub_block(factors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.repeat(factors.astype(np.float32), codes.shape[1] // factors.shape[1], axis=1) * codes.astype(np.float32)


class ScalarBlocks(Protocol):
    """How one scalar type lays out its blocks.

    ``levels``: float32, the level of each code, rising; ``sub_block``: weights that share a scale; ``scale_range`` and
    ``min_range``: least and greatest integer that a sub-block's scale and minimum can take.
    """

    @property
    def name(self) -> str: ...

    @property
    def block(self) -> int: ...

    @property
    def sub_block(self) -> int: ...

    @property
    def levels(self) -> np.ndarray: ...

    @property
    def scale_range(self) -> tuple[int, int]: ...

    @property
    def min_range(self) -> tuple[int, int] | None: ...

    def parse(self, data: np.ndarray) -> ScalarFields:
        """Fields of ``data``, uint8 [rows, row bytes]."""
        ...

    def pack(self, fields: ScalarFields) -> np.ndarray:
        """uint8 [rows, row bytes]: the inverse of ``parse``."""
        ...


def decode(layout: ScalarBlocks, fields: ScalarFields) -> np.ndarray:
    """float32 [rows, columns]: the weights that the fields stand for, as ggml's ``to_float`` computes them."""
    levels = layout.levels[fields.codes]
    out = levels * np.repeat(fields.scales(), layout.sub_block, axis=1)
    minimums = fields.minimums()
    return out if minimums is None else out - np.repeat(minimums, layout.sub_block, axis=1)


def linear_levels(lowest: int, highest: int) -> np.ndarray:
    """float32: the integers from ``lowest`` to ``highest``."""
    return np.arange(lowest, highest + 1, dtype=np.float32)


# --- pieces that layouts share; ``raw`` is always uint8 [blocks, bytes]


def split_rows(data: np.ndarray, block_bytes: int) -> np.ndarray:
    """uint8 [rows * blocks, block bytes] of uint8 [rows, row bytes]."""
    return np.ascontiguousarray(data, np.uint8).reshape(-1, block_bytes)


def read_halves(raw: np.ndarray) -> np.ndarray:
    """float16 [blocks, count] of the bytes of ``count`` half floats."""
    return np.ascontiguousarray(raw).view(np.float16)


def half_bytes(values: np.ndarray, blocks: int) -> np.ndarray:
    """uint8 [blocks, 2]: float16 factors as bytes."""
    return np.ascontiguousarray(values, np.float16).reshape(blocks, 1).view(np.uint8)


def bit_fields(raw: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [blocks, 8 / bits, bytes]: the k-th field of ``bits`` bits of every byte, lowest first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (raw[:, None, :] >> shifts) & np.uint8((1 << bits) - 1)


def join_bit_fields(fields: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [blocks, bytes]: the inverse of ``bit_fields``."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(fields.astype(np.uint8) << shifts, axis=1)
