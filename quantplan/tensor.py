"""Tensors and models as the header of a GGUF file describes them: never their data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

from quantplan.quant_type import QuantType

_BLOCK = re.compile(r"\bblk\.(\d+)\.(.+)")
GGUF_ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT: llama-quantize pads with it whatever the source used


def padded(size: int, alignment: int = GGUF_ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def is_expert_name(name: str) -> bool:
    """``ffn_up_exps``, ``ffn_down_chexps`` ...: experts in one tensor. Shared experts (``_shexp``) always run."""
    return name.removesuffix(".weight").endswith("exps")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight by name, shape (ggml order: row length first) and stored type; ``offset`` is from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    offset: int = 0
    shard: int = 0

    @property
    def columns(self) -> int:
        """Row length: the number of inputs of the matrix."""
        return self.shape[0]

    @property
    def rows(self) -> int:
        """Rows of all experts together."""
        return prod(self.shape[1:])

    @property
    def experts(self) -> int:
        """Matrices stacked in the tensor: ne[2] * ne[3], 1 for a plain matrix."""
        return prod(self.shape[2:])

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.bytes_as(self.type)

    def bytes_as(self, kind: QuantType) -> int:
        """Exact bytes of the tensor's data stored as ``kind``, padding not included."""
        return self.rows * kind.row_bytes(self.columns)

    @property
    def block(self) -> int | None:
        """Number of the transformer block, None outside the blocks (embeddings, output)."""
        match = _BLOCK.search(self.name)
        return int(match.group(1)) if match else None

    @property
    def role(self) -> str:
        """Name without block number and ``.weight``: ``attn_v``, ``ffn_down_exps``, ``output``."""
        match = _BLOCK.search(self.name)
        return (match.group(2) if match else self.name).removesuffix(".weight")

    @property
    def routed(self) -> bool:
        """Whether it stacks experts that a router chooses among; the stacked heads of MLA are none."""
        return self.experts > 1 and is_expert_name(self.name)


@dataclass(frozen=True)
class Model:
    """The header of a GGUF model, all shards together, tensors in file order."""

    paths: tuple[Path, ...]
    architecture: str
    name: str
    blocks: int
    tensors: tuple[Tensor, ...]
    file_bytes: int  # of all shards
    digest: str  # names header and (sampled) weights, see formats.gguf.model_digest
    header_only: bool = False  # the weights are a hole in a sparse file
    metadata: dict[str, object] = field(default_factory=dict, compare=False)  # scalars and strings only

    @property
    def path(self) -> Path:
        """The file to hand to llama.cpp: it finds further shards itself."""
        return self.paths[0]

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def elements(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def tied(self) -> bool:
        """Whether the token embeddings are the output matrix too."""
        return "output.weight" not in self.by_name

    @property
    def file_type(self) -> str:
        """The most common type by bytes: what people call the model's type."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.bytes
        return max(sizes, key=lambda name: sizes[name])
