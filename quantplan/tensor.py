"""Tensors and models as the header of a GGUF file describes them: never their data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TypeVar

from quantplan.quant_type import QuantType

Number = TypeVar("Number", int, float)
_BLOCK = re.compile(r"\bblk\.(\d{1,9})\.(.+)")
_OTHER_PARTS = ("v.", "a.", "mm.", "mtp.")  # of images and sound, as llama.cpp's mmproj files name them
# tables of which a token reads one row, LLM_TENSOR_LAYER_INPUT in llama-arch.cpp
INPUT_LAYER = ("token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight")
MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS, llama-hparams.h
GGUF_ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT: llama-quantize pads with it whatever the source used


def padded(size: int, alignment: int = GGUF_ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def block_of(name: str) -> int | None:
    """Number of the transformer block, None outside the blocks (embeddings, output)."""
    match = _BLOCK.search(name)
    return int(match.group(1)) if match else None


def role_of(name: str) -> str:
    """A tensor's name without block number and ``.weight``: ``attn_v``, ``ffn_down_exps``, ``output``."""
    match = _BLOCK.search(name)
    return (match.group(2) if match else name).removesuffix(".weight")


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

    def bytes_as(self, quant: QuantType) -> int:
        """Exact bytes of the tensor's data stored as ``quant``, padding not included."""
        return self.rows * quant.row_bytes(self.columns)

    @property
    def block(self) -> int | None:
        return block_of(self.name)

    @property
    def role(self) -> str:
        return role_of(self.name)

    @property
    def routed(self) -> bool:
        """Whether it stacks experts that a router chooses among; the stacked heads of MLA are not."""
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
    digest: str  # names header and (sampled) weights, see gguf.reader
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

    def bits_per_weight(self, types: Mapping[str, QuantType] | None = None) -> float:
        """Bits of all tensor data over all weights, norms included, metadata not: as llama.cpp prints BPW.

        ``types``: stored types by tensor where they differ from the model's own.
        """
        types = types or {}
        return 8 * sum(tensor.bytes_as(types.get(tensor.name, tensor.type)) for tensor in self.tensors) / self.elements

    def bytes_per_token(self, types: Mapping[str, QuantType] | None = None) -> int | None:
        """Bytes of weights that one token at generation reads: of routed experts those used, of embeddings a row, of blocks
        that predict further tokens nothing. None where the metadata does not say how many experts a token meets.

        The KV cache comes on top. ``types`` as in ``bits_per_weight``.
        """
        types, total = types or {}, 0
        for tensor in self.tensors:
            size = tensor.bytes_as(types.get(tensor.name, tensor.type))
            used = self.experts_used(tensor)
            if (tensor.block or 0) >= self.main_blocks:
                continue
            if used is None:
                return None
            if self.looked_up(tensor):
                total += size // max(tensor.rows, 1)
            else:
                total += size * used // tensor.experts
        return total

    def looked_up(self, tensor: Tensor) -> bool:
        """Whether a token reads a row of it; tied embeddings are the output matrix too, which is read whole."""
        return tensor.name in INPUT_LAYER and not (self.tied and tensor.role == "token_embd")

    def experts_used(self, tensor: Tensor) -> int | None:
        """How many of a tensor's stacked matrices a token is multiplied by: all, unless a router chooses among them; then
        ``<architecture>.expert_used_count``, None where the metadata does not say it.
        """
        if not tensor.routed:
            return tensor.experts
        used = self.hyperparameter("expert_used_count", 0)
        return used if 0 < used <= tensor.experts else None

    def hyperparameter(self, key: str, default: Number) -> Number:
        """``<architecture>.<key>`` of the metadata; the default where it is absent, or an array with a value for each block."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return value if isinstance(value, int | float) else default  # type: ignore[return-value]

    @property
    def is_projector(self) -> bool:
        """Whether the file is the vision or audio part of a model (mmproj), without the language model."""
        return self.architecture == "clip" or self.metadata.get("general.type") == "mmproj"

    @property
    def foreign_parts(self) -> tuple[str, ...]:
        """Tensors of a vision or audio part that lie next to a language model, as in ollama's blobs: llama.cpp loads none."""
        if self.is_projector or not any(tensor.name.startswith("blk.") for tensor in self.tensors):
            return ()
        return tuple(tensor.name for tensor in self.tensors if tensor.name.startswith(_OTHER_PARTS))

    def runs(self, tensor: Tensor) -> bool:
        """Whether a forward pass of the language model computes with the tensor: blocks that predict further tokens and parts for
        images or sound have no effect on its logits.
        """
        if self.is_projector:
            return True
        return not self.drafts(tensor) and not tensor.name.startswith(_OTHER_PARTS)

    def drafts(self, tensor: Tensor) -> bool:
        """Whether the tensor is of a block that only predicts further tokens, for drafts of speculative decoding."""
        return bool(self.mtp_blocks) and (tensor.block or 0) >= self.main_blocks and not self.is_projector

    @property
    def mtp_blocks(self) -> int:
        """Blocks at the end that only predict further tokens (``nextn``): a forward pass does not run them, llama.cpp does not
        load them. Source: ``llama_model_base::load_hparams``; ``deepseek4.cpp`` looks whether such blocks are in the file.
        """
        count = self.hyperparameter("nextn_predict_layers", 0)
        if not 0 < count < self.blocks:
            return 0
        if self.architecture == "deepseek4" and f"blk.{self.blocks - count}.nextn.eh_proj.weight" not in self.by_name:
            return 0
        return count

    @property
    def main_blocks(self) -> int:
        """Blocks that a forward pass runs, at least one."""
        return max(self.blocks - self.mtp_blocks, 1)

    @property
    def alignment(self) -> int:
        """What the start of each tensor's data is a multiple of: ``general.alignment``."""
        alignment = self.metadata.get("general.alignment", GGUF_ALIGNMENT)
        return alignment if isinstance(alignment, int) else GGUF_ALIGNMENT

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
