"""Shapes of published models from their hyperparameters, written as header-only GGUFs of 60 GB that take no
disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantplan.formats.header import write_header_only
from quantplan.quant_type import BY_NAME, QuantType

Row = tuple[str, tuple[int, ...], QuantType]


@dataclass(frozen=True)
class Dense:
    """A dense transformer with gated feed-forward and grouped-query attention, untied."""

    architecture: str
    blocks: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int
    head: int = 128
    biases: bool = False  # of q, k and v (qwen2)
    head_norms: bool = False  # of q and k (qwen3)

    def tensors(self) -> Iterator[Row]:
        yield "token_embd.weight", (self.width, self.vocabulary), BY_NAME["F16"]
        yield "output.weight", (self.width, self.vocabulary), BY_NAME["F16"]
        yield "output_norm.weight", (self.width,), BY_NAME["F32"]
        for block in range(self.blocks):
            for role, shape in self._matrices():
                yield f"blk.{block}.{role}.weight", shape, BY_NAME["F16"]
            for role, size in self._vectors():
                yield f"blk.{block}.{role}", (size,), BY_NAME["F32"]

    def _matrices(self) -> Iterator[tuple[str, tuple[int, int]]]:
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        yield from (
            ("attn_q", (self.width, queries)),
            ("attn_k", (self.width, keys)),
            ("attn_v", (self.width, keys)),
        )
        yield "attn_output", (queries, self.width)
        yield from (
            ("ffn_gate", (self.width, self.feed_forward)),
            ("ffn_up", (self.width, self.feed_forward)),
        )
        yield "ffn_down", (self.feed_forward, self.width)

    def _vectors(self) -> Iterator[tuple[str, int]]:
        yield from (("attn_norm.weight", self.width), ("ffn_norm.weight", self.width))
        if self.biases:
            keys = self.kv_heads * self.head
            yield from (("attn_q.bias", self.heads * self.head), ("attn_k.bias", keys), ("attn_v.bias", keys))
        if self.head_norms:
            yield from (("attn_q_norm.weight", self.head), ("attn_k_norm.weight", self.head))

    def write(self, path: Path) -> Path:
        numbers = {
            "block_count": self.blocks, "context_length": 32768, "embedding_length": self.width,
            "feed_forward_length": self.feed_forward, "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads, "attention.key_length": self.head,
            "attention.value_length": self.head, "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": 1e6, "vocab_size": self.vocabulary,
        }  # fmt: skip
        metadata = {f"{self.architecture}.{key}": value for key, value in numbers.items()}
        return write_header_only(path, self.architecture, metadata, self.tensors())


QWQ_32B = Dense("qwen2", 64, 5120, 27648, 40, 8, 152064, biases=True)
QWEN3_8B = Dense("qwen3", 36, 4096, 12288, 32, 8, 151936, head_norms=True)
