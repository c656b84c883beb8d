"""The layer map: the blocks of the original that each block of an edited model is made of. Layer surgery as data."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from quantplan.block_ranges import runs_text

MATRICES = "*"  # in scales: every tensor of the block with two dimensions or more; norms and biases stay


@dataclass(frozen=True, order=True, slots=True)
class Term:
    """A block of the original with its share. ``scales``: (role or MATRICES, factor) that its tensors are multiplied by."""

    block: int
    weight: float = 1.0
    scales: tuple[tuple[str, float], ...] = ()

    def factor(self, role: str, matrix: bool) -> float:
        """What a tensor of that role is multiplied by."""
        factor = self.weight
        for name, scale in self.scales:
            if name == role or (name == MATRICES and matrix):
                factor *= scale
        return factor


@dataclass(frozen=True, slots=True)
class Layer:
    """A block of the new model: the sum of its terms, tensor by tensor. A single plain term is a copy, byte for byte."""

    terms: tuple[Term, ...]

    @property
    def copied(self) -> int | None:
        """The original's block that this one is a copy of, None for a blended or scaled one."""
        first = self.terms[0]
        return first.block if len(self.terms) == 1 and first == Term(first.block) else None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The original's blocks that it is made of, that of the largest share first."""
        ordered = sorted(self.terms, key=lambda term: -abs(term.weight))
        return tuple(dict.fromkeys(term.block for term in ordered))

    def __str__(self) -> str:
        if self.copied is not None:
            return str(self.copied)
        return " + ".join(_term_text(term) for term in self.terms)


def _term_text(term: Term) -> str:
    scales = "".join(f" x {factor:g}{'' if name == MATRICES else f' {name}'}" for name, factor in term.scales)
    share = "" if term.weight == 1 else f"{term.weight:g} of "
    return f"{share}{term.block}{scales}"


def copy_of(block: int) -> Layer:
    return Layer((Term(block),))


@dataclass(frozen=True)
class LayerMap:
    """The blocks of the new model in order. ``original``: number of blocks of the model that the map is for."""

    original: int
    layers: tuple[Layer, ...]

    @classmethod
    def identity(cls, blocks: int) -> "LayerMap":
        return cls(blocks, tuple(copy_of(block) for block in range(blocks)))

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def source_blocks(self) -> tuple[int, ...]:
        """For each new block the original's that it is a copy of, or that has the largest share of a blend."""
        return tuple(layer.blocks[0] for layer in self.layers)

    @property
    def is_identity(self) -> bool:
        return self == LayerMap.identity(self.original)

    def where(self, block: int) -> int | None:
        """The first place of the original's ``block`` as a plain copy; None where there is no such copy."""
        return next((index for index, layer in enumerate(self.layers) if layer.copied == block), None)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the layers: different edits that make the same layers have one digest."""
        terms = [[[term.block, term.weight, term.scales] for term in layer.terms] for layer in self.layers]
        return hashlib.sha256(json.dumps([self.original, terms]).encode()).hexdigest()

    def __str__(self) -> str:
        """The blocks of the original in their new order, ranges shortened: ``0-9 11 10 12-27``."""
        return " ".join(_words(self.layers))


def _words(layers: Iterable[Layer]) -> Iterator[str]:
    for copies, group in groupby(layers, key=lambda layer: layer.copied is not None):
        if copies:
            yield runs_text(layer.blocks[0] for layer in group)
        else:
            yield from (f"({layer})" for layer in group)
