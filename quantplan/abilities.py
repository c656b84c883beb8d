"""What a model must be able to do before llama.cpp runs it over a text: decode causally, give logits, hold a vocabulary and the
positions. Headers tell all of it; what they do not tell (an architecture that is not known here) the engine finds out.
"""

import math

from quantplan.errors import BadFile, BadUsage
from quantplan.tensor import Model

PLAN_WITHOUT_TEXT = "it can be planned without a text: --sensitivity weights, or --sensitivity prior"
_POSITIONS = "position_embd.weight"  # learned positions: a row for each, and none beyond
# architectures that llama.cpp runs with attention to both sides whatever the metadata say (``hparams.causal_attn``, and those
# without a memory in ``llama_model::create_memory``)
_ENCODERS = frozenset(
    (
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
        "t5encoder",
    )
)
_DIFFUSION = frozenset(("dream", "llada", "llada-moe", "rnd1", "diffusion-gemma4", "diffusion-gemma"))
_WITHOUT_LOGITS = frozenset({"wavtokenizer-dec"})
_WITHOUT_VOCABULARY = ("none", "no_vocab")  # tokenizer.ggml.model


def check_predicts(model: Model) -> None:
    """BadUsage, saying why and what can be done, for a model that does not predict the next token of a text."""
    reason = _why_not(model)
    if reason:
        raise BadUsage(f"{model.path}: {reason}, so PPL, KLD and imatrix cannot be taken; {PLAN_WITHOUT_TEXT}")


def _why_not(model: Model) -> str:
    architecture = model.architecture
    if model.is_projector:
        return "the vision or audio part (mmproj) of a model, not a language model: it has no next-token logits"
    if architecture in _ENCODERS or not model.hyperparameter("attention.causal", True):
        return f"an encoder ({architecture}) has no next-token logits"
    if any(tensor.name.startswith("enc.blk.") for tensor in model.tensors):
        return f"encoder-decoder models ({architecture}) are not run here"
    if architecture in _DIFFUSION:
        return f"a diffusion model ({architecture}) attends to both sides and has no next-token logits"
    if architecture in _WITHOUT_LOGITS:
        return f"a model of the architecture {architecture} has no next-token logits"
    if model.metadata.get("tokenizer.ggml.model") in _WITHOUT_VOCABULARY:
        return "the file has no vocabulary, so no text can be read"
    return ""


def check_language_model(model: Model) -> None:
    """BadUsage for the vision or audio part of a model; BadFile for a file that has one next to the language model."""
    if model.is_projector:
        raise BadUsage(
            f"{model.path}: the vision or audio part (mmproj) of a model, not a language model; give the language model's file"
        )
    check_loadable(model)


def check_loadable(model: Model) -> None:
    """BadFile for a file that llama.cpp does not load because it has parts besides the language model."""
    parts = model.foreign_parts
    if parts:
        raise BadFile(
            f"{model.path}: {len(parts)} tensors ({parts[0]} ...) are of a vision or audio part next to the language model, as "
            "in ollama's blobs: llama.cpp loads no such file, nor what is built from it; take the GGUF of the language model "
            "alone, its mmproj file is used as it is"
        )


def check_positions(model: Model, n_ctx: int) -> None:
    """BadUsage for chunks that are longer than the table of learned positions."""
    if n_ctx > (positions := _positions(model)):
        raise BadUsage(f"{model.path}: --ctx {n_ctx} is above its {positions:,.0f} positions; give that or less")


def check_speed_tests(model: Model, longest: int) -> None:
    """BadUsage for tests of llama-bench that are longer than the table of learned positions: ggml ends the process there."""
    if longest > (positions := _positions(model)):
        raise BadUsage(
            f"{model.path}: a speed test takes {longest} tokens, and the model has {positions:,.0f} positions; its speed "
            "cannot be measured so (card and measure take shorter tests by -p, --n-gen and -pg)"
        )


def _positions(model: Model) -> float:
    """How many the model has learned; without end where they are computed."""
    table = model.by_name.get(_POSITIONS)
    return math.inf if table is None else table.rows


def context_note(model: Model, n_ctx: int) -> str | None:
    """What to know of chunks that are longer than those the model was trained with; None where they are not."""
    trained = model.hyperparameter("context_length", 0)
    if not 0 < trained < n_ctx:
        return None
    return f"--ctx {n_ctx} is above the {trained} tokens that {model.path.name} was trained for: its predictions get worse there"
