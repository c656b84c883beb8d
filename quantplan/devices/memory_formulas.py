"""What llama-fit-params does not say of memory next to the weights, as llama.cpp 0.5 lays it out. All results are bytes.

``kv_cache`` is exact for the layouts it knows and None for the others, where the tool prints whole MiB; what stays in
RAM next to a GPU, and what crosses between the devices, are upper bounds. Tests hold them against llama.cpp's answers.
"""

from dataclasses import dataclass

from quantplan.cache_types import USUAL_PAIRS, CacheTypes
from quantplan.devices.memory import COMPUTED, Figure
from quantplan.errors import BadUsage
from quantplan.tensor import Model, Tensor, padded

CELLS = 256  # GGML_PAD in llama_context and llama_kv_cache_iswa: caches come in multiples of this
_FLOAT = 4
# every n-th block attends to all tokens, the others to a window: set_swa_pattern in src/models/*.cpp
_FULL_ATTENTION_EVERY = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "olmo2": 4,
    "exaone4": 4,
}
_OWN_CACHE_BLOCKS = {"gemma3n": 20}  # later blocks use the cache of earlier ones
_UNKNOWN = ("shortconv", "time_mix", "indexer", "ssm_f_a")  # states of LFM2, RWKV, sparse attention, KDA
_MASK_BYTES = {True: 2, False: 4}  # the attention mask is F16 for flash attention, F32 without
_INPUTS = 1 << 20  # positions, token numbers, indices of rows: some 50 bytes a token
_CROSSINGS = 8  # rows of the model's width between the devices at once; the outputs of the experts used come on top
_PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES
_INDEX = 8  # an index into the cache is an int64


@dataclass(frozen=True)
class ServeSettings:
    """How a model is run: one sequence of ``ctx`` tokens, ``ubatch`` of them at once."""

    ctx: int
    kv: CacheTypes
    ubatch: int = 512
    flash_attention: bool = True

    @property
    def cells(self) -> int:
        return padded(self.ctx, CELLS)

    @property
    def rows(self) -> int:
        """Tokens computed at once."""
        return min(self.ubatch, self.ctx)


# --- KV cache


def check_kv(model: Model, run: ServeSettings) -> None:
    """BadUsage for cache types that llama.cpp refuses with this model."""
    keys, values = (quant.name.lower() for quant in run.kv)
    if run.kv[1].block > 1 and not run.flash_attention:
        raise BadUsage(f"a V cache of {values} needs flash attention; turn it on, or keep V as f16")
    if model.hyperparameter("attention.key_length_mla", 0) and keys != values:
        raise BadUsage(f"{model.path.name} keeps one cache for K and V (MLA); give one type, {keys} or {values}")
    for which, quant in zip(("key", "value"), run.kv, strict=True):
        head = _head(model, which)
        if not quant.fits(head):
            raise BadUsage(
                f"the cache cannot be kept as {quant.name.lower()}: {which}s of {head} do not divide into blocks of {quant.block}"
            )


def possible_caches(model: Model) -> tuple[CacheTypes, ...]:
    """The usual pairs that llama.cpp can keep with this model, largest first: not all heads divide into blocks, and MLA has one
    cache for both.
    """
    return tuple(pair for pair in USUAL_PAIRS if _possible(model, pair))


def _possible(model: Model, pair: CacheTypes) -> bool:
    try:
        check_kv(model, ServeSettings(CELLS, pair))
    except BadUsage:
        return False
    return True


def smallest_cache(model: Model) -> CacheTypes:
    """The possible pair of the fewest bits."""
    return min(possible_caches(model), key=lambda pair: pair[0].bits + pair[1].bits)


def kv_cache(model: Model, run: ServeSettings) -> Figure | None:
    """K and V of all attention blocks and the states of recurrent ones; None for a layout that is not known here.

    Cells times row bytes of K and V; heads share rows (GQA); with MLA one compressed row serves as both; blocks with a
    sliding window keep the window and one batch. A model whose windows are not known here is taken to attend to
    everything: then the figure is an upper bound.
    """
    by_block = kv_cache_by_block(model, run)
    if by_block is None:
        return None
    recurrent = sum("ssm_conv1d" in roles for roles in _roles(model).values())
    state = _recurrent_state(model) if recurrent else 0
    attending = sum(_attends(_roles(model).get(block, {})) for block in by_block)
    how = f"{attending} attention blocks, {run.cells} cells, K {run.kv[0]}, V {run.kv[1]}"
    how += f", {recurrent} recurrent states of {state:,} bytes" if recurrent else ""
    return Figure(sum(by_block.values()), COMPUTED, how)


def kv_cache_by_block(model: Model, run: ServeSettings) -> dict[int, int] | None:
    """Bytes of each block that keeps a cache or a state; None for a layout that is not known here."""
    roles = _roles(model)
    if any(word in role for tensors in roles.values() for role in tensors for word in _UNKNOWN):
        return None
    blocks = range(model.main_blocks)
    recurrent = [block for block in blocks if "ssm_conv1d" in roles.get(block, {})]
    with_cache = min(len(blocks), _OWN_CACHE_BLOCKS.get(model.architecture, len(blocks)))
    attending = [block for block in blocks[:with_cache] if _attends(roles.get(block, {}))]
    if not recurrent and not attending:
        return None
    rows = [_kv_columns(model, roles[block]) for block in attending]
    sizes = {
        block: _cells(model, block, run) * (run.kv[0].row_bytes(keys) + run.kv[1].row_bytes(values))
        for block, (keys, values) in zip(attending, _values_padded(rows, run), strict=True)
    }
    state = _recurrent_state(model) if recurrent else 0
    return sizes | {block: sizes.get(block, 0) + state for block in recurrent}


def _roles(model: Model) -> dict[int, dict[str, Tensor]]:
    """Block -> role -> tensor."""
    roles: dict[int, dict[str, Tensor]] = {}
    for tensor in model.tensors:
        if tensor.block is not None:
            roles.setdefault(tensor.block, {})[tensor.role] = tensor
    return roles


def _attends(roles: dict[str, Tensor]) -> bool:
    fused = "attn_qkv" in roles and "ssm_conv1d" not in roles  # Qwen3.5's linear attention has an attn_qkv, too
    return fused or "attn_k" in roles or "attn_kv_a_mqa" in roles


def _kv_columns(model: Model, roles: dict[str, Tensor]) -> tuple[int, int]:
    """Values that a token takes in K and in V: n_embd_k_gqa and n_embd_v_gqa, llama-hparams.cpp."""
    if "attn_k" in roles and "attn_v" in roles:
        return roles["attn_k"].rows, roles["attn_v"].rows
    heads = model.hyperparameter("attention.head_count_kv", model.hyperparameter("attention.head_count", 1))
    shared = model.hyperparameter("attention.key_length_mla", 0) > 0
    return heads * _head(model, "key"), 0 if shared else heads * _head(model, "value")


def _head(model: Model, which: str) -> int:
    """Length of a head's ``key`` or ``value``."""
    share = model.hyperparameter("embedding_length", 0) // max(model.hyperparameter("attention.head_count", 1), 1)
    return model.hyperparameter(f"attention.{which}_length", share)


def _values_padded(rows: list[tuple[int, int]], run: ServeSettings) -> list[tuple[int, int]]:
    """Without flash attention V is kept transposed, all blocks as wide as the widest."""
    widest = max((values for _, values in rows), default=0)
    return rows if run.flash_attention else [(keys, widest) for keys, _ in rows]


def _cells(model: Model, block: int, run: ServeSettings) -> int:
    chunk, every = sliding_window(model), _FULL_ATTENTION_EVERY.get(model.architecture)
    every = model.hyperparameter("attention.sliding_window_pattern", every) if every else None
    if not chunk or every is None or block % every == every - 1:
        return run.cells
    return padded(min(run.cells, chunk + run.rows), CELLS)


def sliding_window(model: Model) -> int:
    return model.hyperparameter("attention.sliding_window", 0)


def _recurrent_state(model: Model) -> int:
    """Bytes of one block's convolution and state space in F32: n_embd_r and n_embd_s, llama-hparams.cpp."""
    inner, state = model.hyperparameter("ssm.inner_size", 0), model.hyperparameter("ssm.state_size", 0)
    convolved = inner + 2 * model.hyperparameter("ssm.group_count", 0) * state
    return _FLOAT * (max(model.hyperparameter("ssm.conv_kernel", 0) - 1, 0) * convolved + state * inner)


# --- buffers


def vocabulary_size(model: Model) -> int:
    """Rows of the embeddings, or of the output where there are none."""
    tensor = model.by_name.get("token_embd.weight") or model.by_name.get("output.weight")
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0


def _mask(model: Model, run: ServeSettings) -> int:
    """The attention mask; a second, smaller one for blocks with a sliding window is taken to be as large.

    Where V is kept transposed, each of its values needs an index into the cache.
    """
    columns = [_kv_columns(model, roles) for roles in _roles(model).values() if _attends(roles)]
    if not columns:
        return 0
    masks = 2 if sliding_window(model) else 1
    indices = 0 if run.flash_attention else run.rows * max(values for _, values in columns) * _INDEX
    return masks * run.rows * run.cells * _MASK_BYTES[run.flash_attention] + indices


def host_buffer(model: Model, run: ServeSettings) -> Figure:
    """What stays in RAM under full offload: the mask, and rows of the embeddings, read and copied."""
    width = model.hyperparameter("embedding_length", 0) + _per_layer(model)
    size = run.rows * 2 * _FLOAT * width + _mask(model, run) + _INPUTS
    return Figure(size, COMPUTED, f"two sets of {run.rows} rows of the embeddings, and the attention mask")


def _per_layer(model: Model) -> int:
    """Row length of embeddings that each block has for itself (Gemma 3n)."""
    tensor = model.by_name.get("per_layer_token_embd.weight")
    return tensor.columns if tensor else 0


def split_copies(model: Model, run: ServeSettings) -> int:
    """What each of several GPUs takes for its inputs: activations, mask and positions, four times where llama.cpp lets the GPUs
    work at once (pipeline parallelism).
    """
    rows = 2 * run.rows * _FLOAT * model.hyperparameter("embedding_length", 0)
    return _PIPELINE_COPIES * (rows + _mask(model, run) + _INPUTS)


def crossing(model: Model, run: ServeSettings) -> Figure:
    """Copies of activations that go between the GPU and the processor where tensors were moved."""
    sets = (_CROSSINGS + model.hyperparameter("expert_used_count", 0)) * model.hyperparameter("altup.num_inputs", 1)
    size = sets * run.rows * _FLOAT * model.hyperparameter("embedding_length", 0) + _mask(model, run)
    return Figure(size, COMPUTED, f"{sets} sets of {run.rows} rows of the model's width, and the attention mask")
