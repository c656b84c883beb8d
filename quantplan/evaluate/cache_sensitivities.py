"""Measuring what the types of the KV cache cost: the unquantized model with each pair, on long chunks, against itself."""

from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.cache_sensitivity import CachePair, CacheSensitivity
from quantplan.cache_types import F16_CACHE
from quantplan.devices.largest_context import trained_ctx
from quantplan.devices.memory_formulas import possible_caches
from quantplan.errors import BadUsage, TextTooShort
from quantplan.evaluate.measure import MeasureOptions, measure_runs
from quantplan.execution import Execution
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.measurement import Estimate, Measurement
from quantplan.progress import Advance
from quantplan.tensor import Model
from quantplan.text import Text, undivided

LONG_CHUNK = 4096  # what a cache loses grows with the tokens that are read from it; longer chunks take long to run
FEWEST_TOKENS = 256
_LOGITS_BYTES = 16 << 30  # at most half of the free memory: with all chunks at once each pair is finished on its own


@dataclass(frozen=True)
class CacheMeasureOptions:
    """``n_ctx`` None: the context to serve, at most LONG_CHUNK tokens, what the model was trained for, and what the text has."""

    n_ctx: int | None = None
    chunks: int = 2
    execution: Execution = Execution()


def cache_sensitivity(
    model: Model,
    text: Text,
    serve_ctx: int,
    options: CacheMeasureOptions,
    advance: Advance | None = None,
    cache: Path | None = None,
) -> CacheSensitivity:
    """The KLD of each possible pair. Finished pairs are kept in the folder ``cache``, so that a run that was ended resumes.

    Domains are joined. Raises TextTooShort, BadUsage for a model without weights, and what ``measure_runs`` raises.
    """
    if model.header_only:
        raise BadUsage(f"{model.path} has no weights to measure cache types with; give --kv-sensitivity FILE")
    text = undivided(text)
    n_ctx = options.n_ctx or _chunk(model, text, serve_ctx, options.chunks)
    how = MeasureOptions(n_ctx, options.chunks, options.execution, _LOGITS_BYTES)
    runs = [(model.path, pair) for pair in possible_caches(model) if pair != F16_CACHE]
    measurements = measure_runs(model.path, runs, text, how, advance, cache)
    pairs = tuple(CachePair(each.conditions.cache_types, _kld(each)) for each in measurements)
    conditions = replace(measurements[0].conditions, cache_types="f16") if measurements else None
    return CacheSensitivity(model.digest, n_ctx, pairs, conditions)


def _kld(measurement: Measurement) -> Estimate:
    return Estimate(measurement.kld.value, measurement.kld_chunk_err or measurement.kld.stderr)


def _chunk(model: Model, text: Text, serve_ctx: int, chunks: int) -> int:
    with Engine(model, EngineOptions(vocabulary_only=True)) as engine:
        tokens = len(engine.tokenize(text))
    n_ctx = min(serve_ctx, LONG_CHUNK, trained_ctx(model), tokens // max(chunks, 2))
    if n_ctx < min(FEWEST_TOKENS, trained_ctx(model)):
        raise TextTooShort(
            f"the calibration text has {tokens} tokens; {chunks} chunks of at least {FEWEST_TOKENS} are needed to measure "
            "cache types: give more text"
        )
    return n_ctx
