"""Small but real GGUF models: random weights, the bundled model's vocabulary; llama.cpp's tools run them.

``tiny_moe`` has experts, one of which no token can ever reach; ``tiny_tied`` shares its embeddings with the
output and has rows that are no multiple of 256, so that K- and IQ-types fall back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import gguf
import numpy as np

REFERENCE = Path(__file__).parents[1] / "quantplan" / "data" / "prose-10m-f16.gguf"
WIDTH, HEADS, KV_HEADS, HEAD = 256, 4, 2, 64
EXPERTS, EXPERTS_USED, UNREACHABLE = 8, 2, 7  # the last block never routes to expert 7


def tiny_moe(path: Path | str, seed: int = 0) -> Path:
    """A qwen3moe model of 3 blocks, width 256, 8 experts of 256, 2 used; output.weight of its own (20 MB)."""
    random, blocks = np.random.default_rng(seed), 3
    writer = start(path, "qwen3moe", blocks, feed_forward=256)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(EXPERTS_USED)
    writer.add_expert_feed_forward_length(256)
    matrix(writer, random, "output.weight", (_vocabulary_size(), WIDTH))
    for block in range(blocks):
        attention(writer, random, block)
        router = _router(random, unreachable=block == blocks - 1)
        writer.add_tensor(f"blk.{block}.ffn_gate_inp.weight", router)
        matrix(writer, random, f"blk.{block}.ffn_gate_exps.weight", (EXPERTS, 256, WIDTH))
        matrix(writer, random, f"blk.{block}.ffn_up_exps.weight", (EXPERTS, 256, WIDTH))
        matrix(writer, random, f"blk.{block}.ffn_down_exps.weight", (EXPERTS, WIDTH, 256))
    return finish(writer, random, path)


def tiny_tied(path: Path | str, seed: int = 0, feed_forward: int = 288) -> Path:
    """A dense qwen3 model of 2 blocks without output.weight (6 MB); ffn_down has rows of ``feed_forward``."""
    random, blocks = np.random.default_rng(seed), 2
    writer = start(path, "qwen3", blocks, feed_forward)
    for block in range(blocks):
        attention(writer, random, block)
        matrix(writer, random, f"blk.{block}.ffn_gate.weight", (feed_forward, WIDTH))
        matrix(writer, random, f"blk.{block}.ffn_up.weight", (feed_forward, WIDTH))
        matrix(writer, random, f"blk.{block}.ffn_down.weight", (WIDTH, feed_forward))
    return finish(writer, random, path)


def fine_tuned(path: Path, out: Path, change: float = 0.02, seed: int = 0) -> Path:
    """A copy of an F16 model whose numbers are all changed by about that part of themselves, as training would."""
    random = np.random.default_rng(seed)
    out.write_bytes(path.read_bytes())
    for tensor in gguf.GGUFReader(out, "r+").tensors:
        noise = 1 + change * random.standard_normal(tensor.data.shape, np.float32)
        tensor.data[:] = (tensor.data.astype(np.float32) * noise).astype(tensor.data.dtype)
    return out


def start(
    path: Path | str,
    architecture: str,
    blocks: int,
    feed_forward: int,
    kv_heads: int | list[int] = KV_HEADS,
    keys: int = HEAD,
    values: int = HEAD,
) -> gguf.GGUFWriter:
    """A writer with the usual metadata. ``keys``, ``values``: sizes of a head."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny-{architecture}")
    writer.add_block_count(blocks)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(keys)
    writer.add_value_length(values)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, (value, kind, item) in vocabulary().items():
        writer.add_key_value(key, value, kind, item)
    return writer


@cache
def vocabulary() -> dict[str, tuple[object, gguf.GGUFValueType, gguf.GGUFValueType | None]]:
    """The reference model's tokenizer: key -> (value, type, type of the items of an array)."""
    fields = gguf.GGUFReader(REFERENCE).fields
    return {
        key: (field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for key, field in fields.items()
        if key.startswith("tokenizer.")
    }


def _vocabulary_size() -> int:
    return len(vocabulary()["tokenizer.ggml.tokens"][0])  # type: ignore[arg-type]


def matrix(writer: gguf.GGUFWriter, random: np.random.Generator, name: str, shape: tuple[int, ...]) -> None:
    """Normal weights of variance 1/columns: activations keep their size through the model."""
    weights = random.standard_normal(shape, np.float32) / np.sqrt(shape[-1])
    writer.add_tensor(name, weights.astype(np.float16))


def attention(writer: gguf.GGUFWriter, random: np.random.Generator, block: int, kv_heads: int = KV_HEADS) -> None:
    for name, rows in (("attn_q", HEADS * HEAD), ("attn_k", kv_heads * HEAD), ("attn_v", kv_heads * HEAD)):
        matrix(writer, random, f"blk.{block}.{name}.weight", (rows, WIDTH))
    matrix(writer, random, f"blk.{block}.attn_output.weight", (WIDTH, HEADS * HEAD))
    for name, size in (
        ("attn_norm", WIDTH),
        ("ffn_norm", WIDTH),
        ("attn_q_norm", HEAD),
        ("attn_k_norm", HEAD),
    ):
        gains = random.lognormal(0, 0.3, size).astype(np.float32)  # columns differ, as in trained models
        writer.add_tensor(f"blk.{block}.{name}.weight", gains)


def _router(random: np.random.Generator, unreachable: bool) -> np.ndarray:
    """float32 [experts, width]. Six experts are three opposite pairs: any input gives three scores above
    zero, so that an expert whose scores are all zero is never among the best two.
    """
    rows = random.standard_normal((EXPERTS, WIDTH), np.float32) / np.sqrt(WIDTH)
    if unreachable:
        rows[1:6:2] = -rows[0:6:2]
        rows[UNREACHABLE] = 0
    return rows.astype(np.float32)


def finish(
    writer: gguf.GGUFWriter, random: np.random.Generator, path: Path | str, norm: str = "output_norm.weight"
) -> Path:
    matrix(writer, random, "token_embd.weight", (_vocabulary_size(), WIDTH))
    writer.add_tensor(norm, np.ones(WIDTH, np.float32))
    return written(writer, path)


def arrays_gguf(
    path: Path | str,
    architecture: str,
    tensors: Mapping[str, np.ndarray],
    numbers: Mapping[str, int | float] | None = None,
) -> Path:
    """A GGUF of these arrays, and of ``numbers`` as metadata below the architecture's name."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, number in (numbers or {}).items():
        add = writer.add_uint32 if isinstance(number, int) else writer.add_float32
        add(f"{architecture}.{key}", number)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    return written(writer, path)


def written(writer: gguf.GGUFWriter, path: Path | str) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)
