"""Drafts of a file's own MTP block: how often the model takes them, which is what the bits of that block buy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.evaluate.measure import MeasureOptions
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.drafting import DraftEngine
from quantplan.measurement import Estimate
from quantplan.progress import Advance
from quantplan.text import Text


@dataclass(frozen=True)
class DraftAcceptance:
    """Shares of drafts of one token that are accepted, with standard errors over chunks. ``greedy``: model and block have the
    same most likely token; ``sampled``: the chance at temperature 1, the sum over tokens of the smaller probability.
    """

    file: str
    greedy: Estimate
    sampled: Estimate
    chunks: int
    n_ctx: int


def draft_acceptance(
    files: Sequence[Path], text: Text, options: MeasureOptions, advance: Advance = lambda _share: None
) -> list[DraftAcceptance]:
    """Of each file, over the second halves of the text's chunks; each with its own states, as it is served.

    Raises BadUsage for a file without such a block, ToolMissing where llama.cpp cannot run it, TextTooShort.
    """
    results = []
    for file in files:
        with DraftEngine(read_model(file), options.engine) as engine:
            chunks = engine.chunks(text, options.chunks)
            accepted = []
            for model, draft in engine.predictions(chunks):
                accepted.append(_accepted(model, draft))
                advance(1 / (len(chunks) * len(files)))
        greedy, sampled = (_mean(column) for column in np.array(accepted).T)
        results.append(DraftAcceptance(str(file), greedy, sampled, len(chunks), options.n_ctx))
    return results


def _accepted(model: np.ndarray, draft: np.ndarray) -> tuple[float, float]:
    """(greedy, sampled) share of one chunk."""
    same = float((model.argmax(axis=1) == draft.argmax(axis=1)).mean())
    return same, float(np.minimum(_probabilities(model), _probabilities(draft)).sum(axis=1).mean())


def _probabilities(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def _mean(values: np.ndarray) -> Estimate:
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Estimate(float(values.mean()), error)
