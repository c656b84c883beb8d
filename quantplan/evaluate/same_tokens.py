"""Whether files cut a text into the same tokens as their base: logits of other tokens do not compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantplan.errors import ModelMismatch
from quantplan.llamacpp.engine import Engine, EngineOptions
from quantplan.tensor import Model

_DESCRIBED = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.bos_token_id",
)


@dataclass(frozen=True)
class Cut:
    """A text as a model cuts it. ``chunks``: int32 [windows, n_ctx]; ``vocabulary``: how many tokens there are."""

    chunks: np.ndarray
    vocabulary: int


def cut(model: Model, text: str, n_ctx: int, limit: int | None = None) -> Cut:
    """The windows of the text, at most ``limit``; only the vocabulary is loaded. Raises BadFile, TextTooShort."""
    with Engine(model.path, EngineOptions(n_ctx=n_ctx, vocabulary_only=True)) as engine:
        return Cut(engine.chunks(text, limit), engine.vocabulary)


def check_same_tokens(base: Model, expected: Cut, others: Iterable[Model], text: str, limit: int | None = None) -> None:
    """ModelMismatch, with what differs, for a model that cuts the text otherwise than the base: found before anything runs."""
    for other in others:
        check_vocabulary(base, other)
        own = cut(other, text, expected.chunks.shape[1], limit)
        if own.vocabulary != expected.vocabulary:
            sizes = f"it has a vocabulary of {own.vocabulary} tokens, the base has {expected.vocabulary}"
            raise _mismatch(base, other, "; ".join([sizes, *_described(base, other)]))
        if not np.array_equal(own.chunks, expected.chunks):
            what = "; ".join(_described(base, other) + _first_difference(expected.chunks, own.chunks))
            raise _mismatch(base, other, f"it cuts the same text into other tokens ({what})")


def check_vocabulary(base: Model, other: Model) -> None:
    """ModelMismatch unless both embed as many tokens, as far as headers tell."""
    found = [model.by_name.get("token_embd.weight") for model in (base, other)]
    sizes = [tensor.rows for tensor in found if tensor]
    if len(set(sizes)) > 1:
        what = [f"it has a vocabulary of {sizes[1]} tokens, the base has {sizes[0]}", *_described(base, other)]
        raise _mismatch(base, other, "; ".join(what))


def _first_difference(expected: np.ndarray, own: np.ndarray) -> list[str]:
    said = [f"{len(own)} windows, of the base {len(expected)}"] if len(own) != len(expected) else []
    shared = min(own.size, expected.size)
    ours, theirs = own.reshape(-1)[:shared], expected.reshape(-1)[:shared]
    differing = np.flatnonzero(ours != theirs)
    if len(differing):
        first = int(differing[0])
        said.append(f"first at token {first}: number {ours[first]}, of the base {theirs[first]}")
    return said


def _described(base: Model, other: Model) -> list[str]:
    """What their headers say of the tokenizer, where it is not the same."""
    pairs = [(key, other.metadata.get(key), base.metadata.get(key)) for key in _DESCRIBED]
    return [f"{key} is {own}, of the base {theirs}" for key, own, theirs in pairs if own != theirs]


def _mismatch(base: Model, other: Model, what: str) -> ModelMismatch:
    return ModelMismatch(
        f"{other.path} does not belong to the base {base.path}: {what}; give the model it was made from as --base"
    )
