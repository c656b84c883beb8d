"""Small models that do not predict the next token of any text: an encoder, and one whose positions are learned and few."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import HEADS, WIDTH, matrix, vocabulary, written

POSITIONS = 64  # of tiny_gpt2
_INNER, _BLOCKS = 512, 1
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{chr(97 + index)}" for index in range(26))]
_WORDS += [chr(97 + index) for index in range(26)]


def tiny_bert(path: Path | str, causal_key: bool = True) -> Path:
    """bert with a WordPiece vocabulary; ``causal_key``: the metadata say that it attends to both sides."""
    random, writer = np.random.default_rng(0), _start(path, "bert", 512)
    writer.add_token_type_count(2)
    if causal_key:
        writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(_WORDS)
    writer.add_token_types([3] * 4 + [1] * (len(_WORDS) - 4))
    for add, token in (
        (writer.add_pad_token_id, 0),
        (writer.add_unk_token_id, 1),
        (writer.add_bos_token_id, 2),
        (writer.add_sep_token_id, 3),
        (writer.add_eos_token_id, 3),
        (writer.add_mask_token_id, 1),
    ):
        add(token)
    matrix(writer, random, "token_embd.weight", (len(_WORDS), WIDTH))
    _floats(writer, random, "position_embd.weight", (512, WIDTH))
    _floats(writer, random, "token_types.weight", (2, WIDTH))
    _norm(writer, "token_embd_norm")
    for block in range(_BLOCKS):
        own = f"blk.{block}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _linear(writer, random, f"{own}.{name}", (WIDTH, WIDTH))
        _feed_forward(writer, random, own)
        _norm(writer, f"{own}.attn_output_norm")
        _norm(writer, f"{own}.layer_output_norm")
    return written(writer, path)


def tiny_gpt2(path: Path | str) -> Path:
    """gpt2 with ``POSITIONS`` learned positions."""
    random, writer = np.random.default_rng(0), _start(path, "gpt2", POSITIONS)
    for key, (value, kind, item) in vocabulary().items():
        writer.add_key_value(key, value, kind, item)
    words = len(vocabulary()["tokenizer.ggml.tokens"][0])  # type: ignore[arg-type]
    matrix(writer, random, "token_embd.weight", (words, WIDTH))
    _floats(writer, random, "position_embd.weight", (POSITIONS, WIDTH))
    _norm(writer, "output_norm")
    for block in range(_BLOCKS):
        own = f"blk.{block}"
        _linear(writer, random, f"{own}.attn_qkv", (3 * WIDTH, WIDTH))
        _linear(writer, random, f"{own}.attn_output", (WIDTH, WIDTH))
        _feed_forward(writer, random, own)
        _norm(writer, f"{own}.attn_norm")
        _norm(writer, f"{own}.ffn_norm")
    return written(writer, path)


def _start(path: Path | str, architecture: str, positions: int) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny-{architecture}")
    writer.add_block_count(_BLOCKS)
    writer.add_context_length(positions)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    return writer


def _floats(writer: gguf.GGUFWriter, random: np.random.Generator, name: str, shape: tuple[int, int]) -> None:
    writer.add_tensor(name, (random.standard_normal(shape, np.float32) / 16).astype(np.float32))


def _norm(writer: gguf.GGUFWriter, name: str) -> None:
    writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))


def _linear(writer: gguf.GGUFWriter, random: np.random.Generator, name: str, shape: tuple[int, int]) -> None:
    matrix(writer, random, f"{name}.weight", shape)
    writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))


def _feed_forward(writer: gguf.GGUFWriter, random: np.random.Generator, own: str) -> None:
    _linear(writer, random, f"{own}.ffn_up", (_INNER, WIDTH))
    _linear(writer, random, f"{own}.ffn_down", (WIDTH, _INNER))
