"""Shapes of published models from their hyperparameters, written as header-only GGUFs: up to 1.3 TB that take
no disk.

Names, shapes and metadata are those that llama.cpp's converter writes (``src/models/*.cpp``); the vocabulary is
left out, which no plan depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quantplan.gguf.writer import write_header_only
from quantplan.quant_type import BY_NAME, QuantType

Shape = tuple[int, ...]  # row length first
Row = tuple[str, Shape, QuantType]
_NO_SUFFIX = ("ssm_a", "ssm_d")  # their names end without .weight
_IN_F32 = ("ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d", "ssm_a")  # matrices that converters leave in F32


@dataclass(frozen=True)
class Published:
    """A model's header: ``outside`` and ``block(number)`` give shapes by role, vectors are stored in F32."""

    architecture: str
    stored: str
    numbers: Mapping[str, object]  # metadata without the architecture's prefix
    outside: Mapping[str, Shape]
    block: Callable[[int], Mapping[str, Shape]]

    def tensors(self) -> Iterator[Row]:
        yield from (self._row(role, shape) for role, shape in self.outside.items())
        for number in range(self.numbers["block_count"]):  # type: ignore[call-overload]
            for role, shape in self.block(number).items():
                name, *rest = self._row(role, shape)
                yield f"blk.{number}.{name}", *rest

    def _row(self, role: str, shape: Shape) -> Row:
        name = role if role.endswith(".bias") or role in _NO_SUFFIX else f"{role}.weight"
        return name, shape, BY_NAME["F32" if len(shape) == 1 or role in _IN_F32 else self.stored]

    def write(self, path: Path) -> Path:
        metadata = {f"{self.architecture}.{key}": value for key, value in self.numbers.items()}
        return write_header_only(path, self.architecture, metadata, self.tensors())


def _numbers(blocks: int, width: int, feed_forward: int, heads: int, kv_heads: int, head: int, **more: object) -> dict:
    """Metadata that most architectures have; a dot in a further key is written ``__``."""
    return {
        "block_count": blocks,
        "context_length": 32768,
        "embedding_length": width,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def _outside(width: int, vocabulary: int, tied: bool = False) -> dict[str, Shape]:
    embeddings = {"token_embd": (width, vocabulary)} | ({} if tied else {"output": (width, vocabulary)})
    return embeddings | {"output_norm": (width,)}


def _attention(width: int, queries: int, keys: int, biases: bool = False, head_norms: int = 0) -> dict[str, Shape]:
    """``queries``, ``keys``: outputs of all heads together; ``head_norms``: length of the norms of q and k."""
    shapes: dict[str, Shape] = {
        "attn_norm": (width,),
        "attn_q": (width, queries),
        "attn_k": (width, keys),
        "attn_v": (width, keys),
        "attn_output": (queries, width),
    }
    if biases:
        shapes |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    return shapes | ({"attn_q_norm": (head_norms,), "attn_k_norm": (head_norms,)} if head_norms else {})


def _feed_forward(width: int, inner: int, suffix: str = "", experts: int = 0) -> dict[str, Shape]:
    """Gate, up and down of one network, or of ``experts`` stacked ones."""
    stacked = (experts,) if experts else ()
    return {
        f"ffn_gate{suffix}": (width, inner, *stacked),
        f"ffn_up{suffix}": (width, inner, *stacked),
        f"ffn_down{suffix}": (inner, width, *stacked),
    }


def dense(
    architecture: str,
    blocks: int,
    width: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    head: int = 128,
    biases: bool = False,
    head_norms: bool = False,
    tied: bool = False,
) -> Published:
    """A transformer with gated feed-forward and grouped-query attention, in F16."""
    attention = _attention(width, heads * head, kv_heads * head, biases, head if head_norms else 0)
    block = attention | {"ffn_norm": (width,)} | _feed_forward(width, feed_forward)
    numbers = _numbers(blocks, width, feed_forward, heads, kv_heads, head, vocab_size=vocabulary)
    return Published(architecture, "F16", numbers, _outside(width, vocabulary, tied), lambda _: block)


def _mixture(width: int, inner: int, experts: int, shared: int = 0, scores: bool = True) -> dict[str, Shape]:
    """Router, experts, and a shared expert of ``shared``; ``scores``: with a bias for each expert's score."""
    shapes = {"ffn_gate_inp": (width, experts)} | _feed_forward(width, inner, "_exps", experts)
    shapes |= _feed_forward(width, shared, "_shexp") if shared else {}
    return shapes | ({"exp_probs_b.bias": (experts,)} if scores else {})


def _deepseek_block(number: int) -> dict[str, Shape]:
    """Multi-head latent attention: queries through 1536, keys and values through 512 + 64, 128 heads."""
    attention = {
        "attn_norm": (7168,),
        "attn_q_a": (7168, 1536),
        "attn_q_a_norm": (1536,),
        "attn_q_b": (1536, 128 * 192),
        "attn_kv_a_mqa": (7168, 512 + 64),
        "attn_kv_a_norm": (512,),
        "attn_k_b": (128, 512, 128),
        "attn_v_b": (512, 128, 128),
        "attn_output": (128 * 128, 7168),
        "ffn_norm": (7168,),
    }
    return attention | (_feed_forward(7168, 18432) if number < 3 else _mixture(7168, 2048, 256, shared=2048))


def _glm_block(number: int) -> dict[str, Shape]:
    """The last block predicts one token further and has embeddings and an output of its own."""
    shapes = _attention(4096, 96 * 128, 8 * 128, biases=True) | {"post_attention_norm": (4096,)}
    shapes |= _mixture(4096, 1408, 128, shared=1408) if number else _feed_forward(4096, 10944)
    further = {
        "nextn.embed_tokens": (4096, 151552),
        "nextn.shared_head_head": (4096, 151552),
        "nextn.eh_proj": (8192, 4096),
        "nextn.enorm": (4096,),
        "nextn.hnorm": (4096,),
        "nextn.shared_head_norm": (4096,),
    }
    return shapes | (further if number == 46 else {})


def _hybrid_block(number: int, inner: int, heads: int, network: Mapping[str, Shape]) -> dict[str, Shape]:
    """Width 2048; linear attention as a state space of ``inner`` values, every fourth block full attention."""
    if number % 4 == 3:
        mixing = _attention(2048, heads * 256, 2 * 256, head_norms=256)
        mixing["attn_q"] = (2048, 2 * heads * 256)  # queries and their gates
    else:
        ranks, convolved = inner // 128, inner + 2 * 16 * 128
        mixing = {
            "attn_norm": (2048,),
            "attn_qkv": (2048, convolved),
            "attn_gate": (2048, inner),
            "ssm_a": (ranks,),
            "ssm_conv1d": (4, convolved),
            "ssm_dt.bias": (ranks,),
            "ssm_alpha": (2048, ranks),
            "ssm_beta": (2048, ranks),
            "ssm_norm": (128,),
            "ssm_out": (inner, 2048),
        }
    return mixing | {"post_attention_norm": (2048,)} | dict(network)


def _hybrid_numbers(blocks: int, feed_forward: int, inner: int, heads: int, **more: object) -> dict:
    return _numbers(
        blocks,
        2048,
        feed_forward,
        heads,
        2,
        256,
        rope__dimension_count=64,
        rope__dimension_sections=[11, 11, 10, 0],
        ssm__conv_kernel=4,
        ssm__state_size=128,
        ssm__group_count=16,
        ssm__time_step_rank=inner // 128,
        ssm__inner_size=inner,
        full_attention_interval=4,
        **more,
    )


_GEMMA_BLOCK: dict[str, Shape] = {
    **_attention(2048, 8 * 256, 2 * 256, head_norms=256),
    "post_attention_norm": (2048,),
    "ffn_norm": (2048,),
    **_feed_forward(2048, 8192),
    "post_ffw_norm": (2048,),
    "inp_gate": (2048, 256),
    "proj": (256, 2048),
    "post_norm": (2048,),
    "altup_correct_coef": (4, 4),
    "altup_correct_scale": (2048,),
    "altup_predict_coef": (4, 16),
    "altup_router": (2048, 4),
    "altup_router_norm": (2048,),
    "laurel_l": (2048, 64),
    "laurel_r": (64, 2048),
    "laurel_post_norm": (2048,),
}
_PHI_BLOCK: dict[str, Shape] = {
    "attn_norm": (3072,),
    "attn_qkv": (3072, 3 * 3072),
    "attn_output": (3072, 3072),
    "ffn_norm": (3072,),
    "ffn_up": (3072, 2 * 8192),
    "ffn_down": (8192, 3072),
}
_MAMBA_BLOCK: dict[str, Shape] = {
    "attn_norm": (768,),
    "ssm_in": (768, 3072),
    "ssm_conv1d": (4, 1536),
    "ssm_conv1d.bias": (1536,),
    "ssm_x": (1536, 48 + 2 * 16),
    "ssm_dt": (48, 1536),
    "ssm_dt.bias": (1536,),
    "ssm_a": (16, 1536),
    "ssm_d": (1536,),
    "ssm_out": (1536, 768),
}
_QWEN3_MOE_BLOCK: dict[str, Shape] = {
    **_attention(2048, 32 * 128, 4 * 128, head_norms=128),
    "ffn_norm": (2048,),
    **_mixture(2048, 768, 128, scores=False),
}

QWQ_32B = dense("qwen2", 64, 5120, 27648, 40, 8, 152064, biases=True)
QWEN3_8B = dense("qwen3", 36, 4096, 12288, 32, 8, 151936, head_norms=True)
QWEN3_1_7B = dense("qwen3", 28, 2048, 6144, 16, 8, 151936, head_norms=True, tied=True)
QWEN2_0_5B = dense("qwen2", 24, 896, 4864, 14, 2, 151936, head=64, biases=True, tied=True)  # 896 = 3.5 x 256
QWEN3_30B_A3B = Published(
    "qwen3moe",
    "BF16",
    _numbers(48, 2048, 6144, 32, 4, 128, expert_count=128, expert_used_count=8, expert_feed_forward_length=768),
    _outside(2048, 151936),
    lambda _: _QWEN3_MOE_BLOCK,
)
GLM_4_5_AIR = Published(
    "glm4moe",
    "BF16",
    _numbers(
        47,
        4096,
        10944,
        96,
        8,
        128,
        expert_count=128,
        expert_used_count=8,
        expert_feed_forward_length=1408,
        expert_shared_count=1,
        leading_dense_block_count=1,
        expert_gating_func=2,
        expert_weights_scale=1.0,
        expert_weights_norm=True,
        nextn_predict_layers=1,
        rope__dimension_count=64,
    ),
    _outside(4096, 151552),
    _glm_block,
)
DEEPSEEK_V3 = Published(
    "deepseek2",
    "BF16",
    _numbers(
        61,
        7168,
        18432,
        128,
        1,
        576,
        attention__value_length=512,
        attention__q_lora_rank=1536,
        attention__kv_lora_rank=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
        expert_count=256,
        expert_used_count=8,
        expert_feed_forward_length=2048,
        expert_shared_count=1,
        leading_dense_block_count=3,
        expert_gating_func=2,
        expert_weights_scale=2.5,
        expert_weights_norm=True,
        rope__dimension_count=64,
        vocab_size=129280,
    ),
    _outside(7168, 129280),
    _deepseek_block,
)
QWEN3_5_2B = Published(
    "qwen35",
    "BF16",
    _hybrid_numbers(24, 6144, 2048, 8),
    _outside(2048, 248320, tied=True),
    lambda number: _hybrid_block(number, 2048, 8, _feed_forward(2048, 6144)),
)
QWEN3_5_35B_A3B = Published(
    "qwen35moe",
    "BF16",
    _hybrid_numbers(
        40,
        512,
        4096,
        16,
        expert_count=256,
        expert_used_count=8,
        expert_feed_forward_length=512,
        expert_shared_feed_forward_length=512,
    ),
    _outside(2048, 248320),
    lambda number: _hybrid_block(
        number, 4096, 16, _mixture(2048, 512, 256, shared=512, scores=False) | {"ffn_gate_inp_shexp": (2048, 1)}
    ),
)
GEMMA_3N_E2B = Published(  # 30 blocks, each token with an embedding of 256 for each
    "gemma3n",
    "F16",
    _numbers(
        30,
        2048,
        8192,
        8,
        2,
        256,
        attention__sliding_window=512,
        altup__active_idx=0,
        altup__num_inputs=4,
        embedding_length_per_layer_input=256,
        attention__shared_kv_layers=10,
    ),
    _outside(2048, 262144, tied=True)
    | {
        "per_layer_token_embd": (30 * 256, 262144),
        "per_layer_model_proj": (2048, 30 * 256),
        "per_layer_proj_norm": (256,),
        "altup_proj": (2048, 2048, 3),
        "altup_unembd_proj": (2048, 2048, 3),
    },
    lambda _: _GEMMA_BLOCK,
)
PHI_3_MINI = Published(
    "phi3",
    "F16",
    _numbers(32, 3072, 8192, 32, 32, 96, rope__dimension_count=96),
    _outside(3072, 32064),
    lambda _: _PHI_BLOCK,
)
MAMBA_130M = Published(  # ssm_dt has rows of 48, which no block divides
    "mamba",
    "F16",
    {
        "block_count": 24,
        "context_length": 1048576,
        "embedding_length": 768,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 1536,
        "ssm.state_size": 16,
        "ssm.time_step_rank": 48,
    },
    _outside(768, 50280, tied=True),
    lambda _: _MAMBA_BLOCK,
)
