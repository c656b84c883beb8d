"""Small but real models whose blocks are not all alike: random weights, the bundled model's vocabulary; llama.cpp runs them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tiny_models import EXPERTS, EXPERTS_USED, HEAD, HEADS, KV_HEADS, WIDTH, attention, finish, matrix, start

CHUNK = 8  # tokens that sliding blocks see
STATE, RANK, GROUPS, CONVOLVED = 64, 2, 1, 4  # of the recurrent blocks
LORA, ROPE, PLAIN = 32, 16, 32  # of multi-head latent attention


def _feed_forward(writer: gguf.GGUFWriter, random: np.random.Generator, block: int, inner: int = WIDTH) -> None:
    matrix(writer, random, f"blk.{block}.ffn_gate.weight", (inner, WIDTH))
    matrix(writer, random, f"blk.{block}.ffn_up.weight", (inner, WIDTH))
    matrix(writer, random, f"blk.{block}.ffn_down.weight", (WIDTH, inner))


def _gains(writer: gguf.GGUFWriter, random: np.random.Generator, name: str, size: int) -> None:
    writer.add_tensor(name, random.lognormal(0, 0.3, size).astype(np.float32))


def tiny_hybrid(path: Path | str, blocks: int = 8, predicting: bool = False, array: bool = False) -> Path:
    """qwen35: a state in three blocks of four, attention in the fourth; ``predicting``: with a block more that predicts a token
    further; ``array``: the metadata list which blocks are which.
    """
    random = np.random.default_rng(1)
    writer = start(path, "qwen35", blocks + predicting, feed_forward=WIDTH)
    writer.add_rope_dimension_count(HEAD // 4)
    writer.add_rope_dimension_sections([3, 3, 2, 0])
    writer.add_ssm_conv_kernel(CONVOLVED)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_group_count(GROUPS)
    writer.add_ssm_time_step_rank(RANK)
    writer.add_ssm_inner_size(RANK * STATE)
    writer.add_uint32("qwen35.full_attention_interval", 4)
    if array:
        writer.add_array("qwen35.attention.recurrent_layers", [block % 4 != 3 for block in range(blocks)])
    if predicting:
        writer.add_uint32("qwen35.nextn_predict_layers", 1)
    for block in range(blocks + predicting):
        _hybrid_block(writer, random, block, block % 4 != 3 and block < blocks)
    if predicting:
        matrix(writer, random, f"blk.{blocks}.nextn.eh_proj.weight", (WIDTH, 2 * WIDTH))
        for name in ("enorm", "hnorm", "shared_head_norm"):
            _gains(writer, random, f"blk.{blocks}.nextn.{name}.weight", WIDTH)
    return finish(writer, random, path)


def _hybrid_block(writer: gguf.GGUFWriter, random: np.random.Generator, block: int, recurrent: bool) -> None:
    own = f"blk.{block}"
    for name in ("attn_norm", "post_attention_norm"):
        _gains(writer, random, f"{own}.{name}.weight", WIDTH)
    if recurrent:
        keys, values = GROUPS * STATE, RANK * STATE
        matrix(writer, random, f"{own}.attn_qkv.weight", (2 * keys + values, WIDTH))
        matrix(writer, random, f"{own}.attn_gate.weight", (values, WIDTH))
        matrix(writer, random, f"{own}.ssm_out.weight", (WIDTH, values))
        for name in ("ssm_alpha", "ssm_beta"):
            matrix(writer, random, f"{own}.{name}.weight", (RANK, WIDTH))
        writer.add_tensor(
            f"{own}.ssm_conv1d.weight", random.standard_normal((2 * keys + values, CONVOLVED)).astype(np.float32)
        )
        writer.add_tensor(f"{own}.ssm_dt.bias", np.zeros(RANK, np.float32))
        writer.add_tensor(f"{own}.ssm_a", -np.ones(RANK, np.float32))
        _gains(writer, random, f"{own}.ssm_norm.weight", STATE)
    else:
        matrix(writer, random, f"{own}.attn_q.weight", (2 * HEADS * HEAD, WIDTH))
        for name in ("attn_k", "attn_v"):
            matrix(writer, random, f"{own}.{name}.weight", (KV_HEADS * HEAD, WIDTH))
        matrix(writer, random, f"{own}.attn_output.weight", (WIDTH, HEADS * HEAD))
        for name in ("attn_q_norm", "attn_k_norm"):
            _gains(writer, random, f"{own}.{name}.weight", HEAD)
    _feed_forward(writer, random, block)


def tiny_sliding(path: Path | str, blocks: int = 6, period: int | None = 3, sliding: list[bool] | None = None) -> Path:
    """gemma3 with a window of 8 tokens: the last block of each ``period`` sees everything; ``sliding`` says it block by block."""
    random = np.random.default_rng(2)
    writer = start(path, "gemma3", blocks, feed_forward=WIDTH)
    writer.add_sliding_window(CHUNK)
    if sliding is not None:
        writer.add_array("gemma3.attention.sliding_window_pattern", sliding)
    elif period is not None:
        writer.add_uint32("gemma3.attention.sliding_window_pattern", period)
    for block in range(blocks):
        attention(writer, random, block)
        for name in ("post_attention_norm", "post_ffw_norm"):
            _gains(writer, random, f"blk.{block}.{name}.weight", WIDTH)
        _feed_forward(writer, random, block)
    return finish(writer, random, path)


def tiny_dense_lead(path: Path | str, dense: int = 2, blocks: int = 5) -> Path:
    """dots1: ``dense`` blocks, the others with 8 experts and a shared one."""
    random = np.random.default_rng(3)
    writer = start(path, "dots1", blocks, feed_forward=WIDTH, kv_heads=HEADS)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(EXPERTS_USED)
    writer.add_expert_feed_forward_length(64)
    writer.add_expert_shared_count(1)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_leading_dense_block_count(dense)
    matrix(writer, random, "output.weight", (8192, WIDTH))
    for block in range(blocks):
        attention(writer, random, block, kv_heads=HEADS)
        if block < dense:
            _feed_forward(writer, random, block)
            continue
        matrix(writer, random, f"blk.{block}.ffn_gate_inp.weight", (EXPERTS, WIDTH))
        for suffix, stacked in (("_exps", (EXPERTS,)), ("_shexp", ())):
            matrix(writer, random, f"blk.{block}.ffn_gate{suffix}.weight", (*stacked, 64, WIDTH))
            matrix(writer, random, f"blk.{block}.ffn_up{suffix}.weight", (*stacked, 64, WIDTH))
            matrix(writer, random, f"blk.{block}.ffn_down{suffix}.weight", (*stacked, WIDTH, 64))
    return finish(writer, random, path)


def tiny_listed(path: Path | str, recurrent: tuple[bool, ...] = (True, True, False, True, False)) -> Path:
    """lfm2: an array of key-value heads says which blocks convolve (0) and which attend."""
    random = np.random.default_rng(4)
    writer = start(
        path, "lfm2", len(recurrent), feed_forward=WIDTH, kv_heads=[0 if each else KV_HEADS for each in recurrent]
    )
    writer.add_uint32("lfm2.shortconv.l_cache", 3)
    for block, convolves in enumerate(recurrent):
        own = f"blk.{block}"
        if convolves:
            for name in ("attn_norm", "ffn_norm"):
                _gains(writer, random, f"{own}.{name}.weight", WIDTH)
            writer.add_tensor(f"{own}.shortconv.conv.weight", random.standard_normal((WIDTH, 3)).astype(np.float32))
            matrix(writer, random, f"{own}.shortconv.in_proj.weight", (3 * WIDTH, WIDTH))
            matrix(writer, random, f"{own}.shortconv.out_proj.weight", (WIDTH, WIDTH))
        else:
            attention(writer, random, block)
        _feed_forward(writer, random, block)
    return finish(writer, random, path, norm="token_embd_norm.weight")


def tiny_lite(path: Path | str, blocks: int = 27) -> Path:
    """deepseek2, all blocks dense, queries without a low rank: what llama.cpp knows by 27 or 26 blocks."""
    random = np.random.default_rng(5)
    writer = start(path, "deepseek2", blocks, feed_forward=64, kv_heads=1, keys=LORA + ROPE, values=LORA)
    writer.add_rope_dimension_count(ROPE)
    writer.add_kv_lora_rank(LORA)
    writer.add_key_length_mla(PLAIN + ROPE)
    writer.add_value_length_mla(PLAIN)
    writer.add_expert_feed_forward_length(64)
    writer.add_expert_shared_count(1)
    writer.add_expert_weights_scale(1.0)
    writer.add_leading_dense_block_count(blocks)
    for block in range(blocks):
        own = f"blk.{block}"
        for name, size in (("attn_norm", WIDTH), ("ffn_norm", WIDTH), ("attn_kv_a_norm", LORA)):
            _gains(writer, random, f"{own}.{name}.weight", size)
        matrix(writer, random, f"{own}.attn_q.weight", (HEADS * (PLAIN + ROPE), WIDTH))
        matrix(writer, random, f"{own}.attn_kv_a_mqa.weight", (LORA + ROPE, WIDTH))
        matrix(writer, random, f"{own}.attn_k_b.weight", (HEADS, LORA, PLAIN))
        matrix(writer, random, f"{own}.attn_v_b.weight", (HEADS, PLAIN, LORA))
        matrix(writer, random, f"{own}.attn_output.weight", (WIDTH, HEADS * PLAIN))
        _feed_forward(writer, random, block, 64)
    return finish(writer, random, path)
