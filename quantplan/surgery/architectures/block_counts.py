"""Architectures where llama.cpp derives more from the number of blocks than a name for the size."""

from quantplan.tensor import MAX_BLOCKS, Model

_SOFTMAX, _SIGMOID = 1, 2  # llama_expert_gating_func_type, llama-hparams.h


def count_violation(model: Model, old: int, new: int) -> str | None:
    """Why a model of ``old`` blocks (without those that predict further tokens) cannot have ``new``; None where it can."""
    total = model.blocks - old + new
    loops = int(model.hyperparameter("num_loops", 1)) if model.architecture == "nanbeige" else 1  # nanbeige.cpp
    if total * loops > MAX_BLOCKS:
        times = f" run {loops} times" if loops > 1 else ""
        return f"{total} layers{times} are more than the {MAX_BLOCKS} that llama.cpp allows"
    rule = _RULES.get(model.architecture)
    return rule(model, old, new) if rule and old != new else None


def count_changes(model: Model, old: int, new: int) -> dict[str, int]:
    """Keys to be written that hold what llama.cpp derived from the old number of blocks."""
    if model.architecture not in ("deepseek2", "mistral4") or old == new:
        return {}
    changes = {}
    if not _has(model, "attention.q_lora_rank") and not _is_lite(model, new):
        changes["attention.q_lora_rank"] = 0  # none; deepseek2.cpp reads it unless the count is that of a lite model
    if not int(model.hyperparameter("expert_gating_func", 0)) and _gating(model, old) != _gating(model, new):
        changes["expert_gating_func"] = _gating(model, old)
    return {f"{model.architecture}.{key}": value for key, value in changes.items()}


def _has(model: Model, key: str) -> bool:
    return f"{model.architecture}.{key}" in model.metadata


def _vocabulary(model: Model) -> int:
    embeddings = model.by_name.get("token_embd.weight")
    return embeddings.rows if embeddings else 0


def _is_lite(model: Model, blocks: int) -> bool:
    """deepseek2.cpp: DeepSeek-V2-Lite, GigaChat and Kanana, known by their number of blocks."""
    return blocks in (26, 27) or (blocks == 48 and _vocabulary(model) == 128256)


def _gating(model: Model, blocks: int) -> int:
    """deepseek2.cpp: what a file without the key gets; GLM 4.7 Lite is known by its number of blocks."""
    return _SIGMOID if blocks in (47, 48) and _vocabulary(model) == 154880 else _SOFTMAX


def _deepseek2(model: Model, old: int, new: int) -> str | None:
    if int(model.hyperparameter("attention.q_lora_rank", 0)) and _is_lite(model, new):
        return f"with {new} layers llama.cpp takes it for a lite model and looks for attn_q, which it does not have"
    return None


def _baichuan(model: Model, old: int, new: int) -> str | None:
    return f"llama.cpp tells the 7B (32 layers) from the 13B (40), which encode positions differently: {new} is neither"


def _command_r(model: Model, old: int, new: int) -> str | None:
    if (old >= 64) == (new >= 64):
        return None
    return f"llama.cpp expects attn_q_norm from 64 layers on: {old} cannot become {new}"


def _exaone4(model: Model, old: int, new: int) -> str | None:
    if 64 not in (old, new):
        return None
    return f"llama.cpp uses sliding windows with 64 layers and with no other number: {old} cannot become {new}"


def _gemma(model: Model, old: int, new: int, largest: int) -> str | None:
    """gemma2.cpp, gemma3.cpp: the 27B scales its queries by width / heads instead of the length of a head."""
    heads, width = (
        int(model.hyperparameter("attention.head_count", 0)),
        int(model.hyperparameter("embedding_length", 0)),
    )
    per_head = width // heads if heads else 0
    if largest not in (old, new) or per_head == int(model.hyperparameter("attention.key_length", per_head)):
        return None
    return (
        f"llama.cpp scales the queries of the 27B differently, known by its {largest} layers: {old} cannot become {new}"
    )


def _minicpm(model: Model, old: int, new: int) -> str | None:
    """minicpm.cpp"""
    if _has(model, "residual_scale"):
        return None
    return (
        f"without residual_scale in the file llama.cpp scales each layer by 1.4 / sqrt({old}), the number of layers; "
        "convert the model again with a newer converter"
    )


def _minicpm3(model: Model, old: int, new: int) -> str | None:
    """minicpm3.cpp"""
    return f"llama.cpp scales each layer by 1.4 / sqrt({old}), the number of layers: {new} would change all of them"


def _gemma4(model: Model, old: int, new: int) -> str | None:
    """llama-model.cpp, create_memory: n_layer_kv_from_start"""
    return "llama.cpp needs at least two layers of a gemma4 model" if new < 2 else None


def _minimax01(model: Model, old: int, new: int) -> str | None:
    """minimax-01.cpp: slope_scale"""
    return f"llama.cpp makes states decay by 1 - place / ({old} - 1), from the number of layers: {new} would change all of them"


_RULES = {
    "deepseek2": _deepseek2,
    "mistral4": _deepseek2,
    "baichuan": _baichuan,
    "command-r": _command_r,
    "exaone4": _exaone4,
    "gemma2": lambda model, old, new: _gemma(model, old, new, 46),
    "gemma3": lambda model, old, new: _gemma(model, old, new, 62),
    "gemma4": _gemma4,
    "minimax-01": _minimax01,
    "minicpm": _minicpm,
    "minicpm3": _minicpm3,
}
