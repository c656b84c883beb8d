"""Sums as a C++ loop over floats adds them: one after the other, each step rounded to float32.

numpy's own sums are pairwise and more exact, and therefore differ from llama-imatrix in the digits it prints;
its cumulative sums go one by one. llama.cpp's tools are built without fused multiply-add on x86-64. Where a
compiler fuses (ARM), the last printed digit of a long sum of products may differ.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from quantplan.llamacpp import libraries

# Relative width of the band in which a term's true value lies when its logarithm came from numpy: numpy
# promises less than 4 units in the last place (2**-21) for its vector code, a product's rounding adds half a
# unit.
_DOUBT = np.float32(2.0**-20)
_TINY = np.float32(np.finfo(np.float32).smallest_subnormal)
_PIECE = 1 << 16


def pieces(values: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive parts that stay in a core's cache while they are worked on."""
    for start in range(0, values.size, _PIECE):
        yield values[start : start + _PIECE]


def total(values: np.ndarray) -> np.float32:
    """std::accumulate(values, 0.0f)."""
    carry = np.float32(0)
    for piece in pieces(values):
        carry = _partial_sums(carry, piece)[-1]
    return carry


def dot(left: np.ndarray, right: np.ndarray) -> np.float32:
    """std::inner_product(left, right, 0.0f)."""
    carry = np.float32(0)
    for one, other in zip(pieces(left), pieces(right), strict=True):
        carry = _partial_sums(carry, one * other)[-1]
    return carry


def _partial_sums(carry: np.float32, terms: np.ndarray) -> np.ndarray:
    """carry + t_0, carry + t_0 + t_1, ..."""
    partial = terms.copy()
    partial[0] += carry
    return np.add.accumulate(partial, out=partial)


def entropy(values: np.ndarray, whole: np.float32) -> np.float32:
    """-sum p log2 p in bits, p = v/whole, terms in order, with the C library's log2f; 0 where ``whole`` is 0.

    numpy's float32 log2 and libm's may differ in the last bit, which moves the sum only where a step of it is
    about to round the other way. Those steps (some hundred, however long the sum) are found and redone with
    log2f itself.
    """
    carry = np.float32(0)
    for piece in pieces(values) if whole > 0 else ():
        carry = _entropy_of(carry, piece / whole)
    return carry


def _entropy_of(carry: np.float32, shares: np.ndarray) -> np.float32:
    """``carry`` and the entropy of these shares, added in order."""
    terms = np.log2(np.maximum(shares, _TINY))  # a share of zero adds zero, whatever its logarithm
    terms *= -shares
    redone = np.zeros(0, np.intp)
    while True:
        partial = _partial_sums(carry, terms)
        doubtful = np.setdiff1d(_about_to_round(carry, terms, partial), redone, assume_unique=True)
        if not doubtful.size:
            return partial[-1]
        terms[doubtful] = [-(share * log2f(share)) for share in shares[doubtful]]
        redone = np.concatenate([redone, doubtful])


def _about_to_round(carry: np.float32, terms: np.ndarray, partial: np.ndarray) -> np.ndarray:
    """Indices of the steps whose rounded result depends on where in its band the term lies."""
    before = np.empty_like(partial)
    before[0], before[1:] = carry, partial[:-1]
    slack = terms * _DOUBT
    return np.flatnonzero((before + (terms - slack) != before + (terms + slack)) & (terms != 0))


def log2f(value: np.float32) -> np.float32:
    """The C library's log2f of a positive value."""
    return np.float32(_c_function()(value))


@cache
def _c_function() -> Callable[[float], float]:
    """log2f through libggml, which is linked to the C library; correctly rounded where it is not exported."""
    try:
        function = libraries.base().log2f
    except AttributeError:
        return math.log2
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return function
