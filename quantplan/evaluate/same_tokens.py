"""Check that files split a text into the same tokens as their base model: logits of other tokens do not compare."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from quantplan.abilities import context_note
from quantplan.errors import ModelMismatch
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.tensor import Model
from quantplan.text import Text

_TOKENIZER_KEYS = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.bos_token_id",
)


@dataclass(frozen=True)
class TokenizedText:
    """A text as a model's tokenizer splits it. ``chunks``: int32 [chunks, n_ctx]; ``vocabulary``: number of tokens.

    ``domains``: name and number of chunks of each domain, in their order; empty for a text that has none.
    """

    chunks: np.ndarray
    vocabulary: int
    domains: tuple[tuple[str, int], ...] = ()


def tokenize(model: Model, text: Text, n_ctx: int, limit: int | None = None) -> TokenizedText:
    """The chunks of the text, at most ``limit``; only the vocabulary is loaded. Raises BadFile, TextTooShort."""
    with Engine(model, EngineOptions(n_ctx=n_ctx, vocabulary_only=True)) as engine:
        cut = engine.domain_chunks(text, limit)
        domains = tuple((name, len(chunks)) for name, chunks in cut.items() if name)
        return TokenizedText(np.concatenate(list(cut.values())), engine.vocabulary, domains)


def check_same_tokens(
    base: Model, expected: TokenizedText, models: Iterable[Model], text: Text, limit: int | None = None
) -> None:
    """ModelMismatch, with what differs, for a model whose tokens of the text are not the base's."""
    for model in models:
        check_vocabulary(base, model)
        tokens = tokenize(model, text, expected.chunks.shape[1], limit)
        if tokens.vocabulary != expected.vocabulary:
            raise _mismatch(base, model, _sizes(tokens.vocabulary, expected.vocabulary))
        if not np.array_equal(tokens.chunks, expected.chunks):
            what = f"its tokens of the same text differ{_first_difference(expected.chunks, tokens.chunks)}"
            raise _mismatch(base, model, what)


def check_vocabulary(base: Model, model: Model) -> None:
    """ModelMismatch unless both have token embeddings of the same number of tokens, as far as headers tell."""
    tensors = [header.by_name.get("token_embd.weight") for header in (model, base)]
    sizes = [tensor.rows for tensor in tensors if tensor]
    if len(set(sizes)) > 1:
        raise _mismatch(base, model, _sizes(*sizes))


def measuring_notes(base: Model, model: Model, n_ctx: int) -> tuple[str, ...]:
    """What to know of a file's figures: it is of another model than the base; chunks are longer than it was trained for."""
    return tuple(filter(None, (_another_model(base, model), context_note(model, n_ctx))))


def _another_model(base: Model, model: Model) -> str | None:
    """None where tensors of the same name have the same shape: blocks may be cut or repeated, embeddings padded."""
    for tensor in model.tensors:
        other = base.by_name.get(tensor.name)
        if tensor.block is not None and other and other.shape != tensor.shape:
            return (
                f"another model than {base.path}: its {tensor.name} is {'x'.join(map(str, tensor.shape))}, there "
                f"{'x'.join(map(str, other.shape))}; the KLD says how far apart the two are, not what quantization lost"
            )
    return None


def _sizes(vocabulary: int, expected: int) -> str:
    return f"it has a vocabulary of {vocabulary} tokens, the original has {expected}"


def _first_difference(expected: np.ndarray, chunks: np.ndarray) -> str:
    words = f"; {len(chunks)} chunks, the original has {len(expected)}" if len(chunks) != len(expected) else ""
    shared = min(chunks.size, expected.size)
    tokens, base_tokens = chunks.reshape(-1)[:shared], expected.reshape(-1)[:shared]
    differing = np.flatnonzero(tokens != base_tokens)
    if len(differing):
        first = int(differing[0])
        words += f"; first at token {first}: id {tokens[first]}, in the original {base_tokens[first]}"
    return words


def _mismatch(base: Model, model: Model, what: str) -> ModelMismatch:
    pairs = [(key, model.metadata.get(key), base.metadata.get(key)) for key in _TOKENIZER_KEYS]
    tokenizers = [
        f"{key} is {value}, in the original {expected}" for key, value, expected in pairs if value != expected
    ]
    return ModelMismatch(
        f"{model.path} does not have the tokens of the original model {base.path}: {'; '.join([what, *tokenizers])}; "
        "give the model it was made from as --model"
    )
