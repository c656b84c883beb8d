"""Collecting second moments: the model runs over the calibration text, H = sum x x^T of each distinct matrix input is summed.

All positions of a chunk count, as in llama-imatrix, so the diagonal is its imatrix. Sums that do not fit in memory together
are summed in several passes; a pass stops each forward pass after the last input that it needs. What a pass finished is on
disk, so that kill -9 costs at most the pass under way.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from quantplan.errors import QuantplanError
from quantplan.execution import Execution
from quantplan.llamacpp.engine import Engine, GgmlTensor
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.progress import Advance
from quantplan.records.files import make_folder, remove_all_leftovers
from quantplan.records.journal import digest_of, text_digest
from quantplan.second_moments import tokens_needed
from quantplan.sensitivity import moment_files
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.embedding_metric import readers, with_embeddings, write_embedding_metric
from quantplan.sensitivity.matrix_inputs import Graph, MatrixInput, read_graph
from quantplan.sensitivity.moment_pass import MomentPass, Sum
from quantplan.sensitivity.probe_text import chunk_order
from quantplan.tensor import Model, Tensor
from quantplan.text import Text, undivided

VERSION = 2  # 2: with a metric of embeddings that are looked up
_BATCH_TOKENS = 2048
_LOGIT_BYTES = 1 << 30  # llama.cpp keeps logits of all positions of a batch, twice
_WAITING_SHARE, _WAITING_BYTES = 5, 1 << 30  # a fifth of the memory, at most 1 GiB, for inputs that wait for ssyrk


@dataclass(frozen=True)
class MomentOptions:
    """``chunks`` of ``n_ctx`` tokens, 0: the whole text.

    ``spread``: over the text; else the first ones, as llama-imatrix takes them.
    """

    n_ctx: int = 512
    chunks: int = 0
    spread: bool = True
    execution: Execution = Execution()


def moments_folder(model: Model, text: Text, options: MomentOptions, cache: Path) -> Path:
    """Where the sums are kept: named by all that can change them. Threads and memory cannot."""
    return cache / f"second-moments-{digest_of(*_made_from(model, text, options).items())[:32]}"


def _made_from(model: Model, text: Text, options: MomentOptions) -> dict[str, object]:
    return {
        "version": VERSION,
        "model": model.digest,
        "text": text_digest(text),
        "n_ctx": options.n_ctx,
        "chunks": options.chunks,
        "spread": options.spread and options.chunks > 0,
        "backend": options.execution.backend,
    }


def collect(
    model: Model,
    tensors: Iterable[Tensor],
    text: Text,
    options: MomentOptions,
    cache: Path,
    advance: Advance = lambda _share: None,
) -> CollectedMoments:
    """Second moments of the inputs of ``tensors``, diagonals of all others; finished sums are reused.

    Domains are joined. ``advance`` gets shares of the whole work that add up to 1. Raises TextTooShort below two chunks,
    NoSpace, BadFile, QuantplanError where activations are not finite or the memory cannot hold the sum of one input.
    """
    wanted, text = frozenset(tensor.name for tensor in tensors), undivided(text)
    folder = moments_folder(model, text, options, cache)
    if (folder / moment_files.INDEX).exists():
        collected = CollectedMoments(folder)
        collected.check_belongs_to(model, text_digest(text))
        if not missing(folder, collected.inputs, wanted):
            write_embedding_metric(model, folder, collected.inputs, wanted)
            return collected
    with Engine(model, EngineOptions(options.n_ctx, options.execution)) as engine:
        chunks = engine.chunks(text)
        if options.chunks:
            order = chunk_order(len(chunks)) if options.spread else np.arange(len(chunks))
            chunks = chunks[np.sort(order[: options.chunks])]
        graph = read_graph(engine, model)
        make_folder(folder)
        remove_all_leftovers(folder)
        inputs = with_embeddings(model, graph.inputs)
        moment_files.write_index(folder, _made_from(model, text, options) | {"chunks_run": len(chunks)}, inputs)
        _collect(engine, model, graph, missing(folder, inputs, wanted), chunks, options, folder, advance)
    write_embedding_metric(model, folder, inputs, wanted)
    return CollectedMoments(folder)


def chunks_needed(tensors: Iterable[Tensor], n_ctx: int) -> int:
    """Chunks that give the widest input tokens enough; experts see fewer, by chance."""
    return -(-tokens_needed(max(tensor.columns for tensor in tensors)) // n_ctx)


def all_sums(inputs: tuple[MatrixInput, ...], wanted: frozenset[str]) -> list[Sum]:
    """Sums over the text in the order of the graph: full for the inputs of ``wanted`` matrices, of all others the diagonal."""
    wanted = wanted | readers(inputs, wanted)
    return [
        Sum(number, expert, each.columns, not wanted.isdisjoint(each.tensors))
        for number, each in enumerate(inputs)
        if not each.looked_up
        for expert in range(each.stack)
    ]


def missing(folder: Path, inputs: tuple[MatrixInput, ...], wanted: frozenset[str]) -> list[Sum]:
    """Sums that are not on disk."""

    def there(each: Sum) -> bool:
        kinds = (True,) if each.full else (True, False)
        return any(moment_files.sums_path(folder, each.number, each.expert, kind).exists() for kind in kinds)

    return [each for each in all_sums(inputs, wanted) if not there(each)]


def kept(model: Model, tensors: Iterable[Tensor], text: Text, options: MomentOptions, cache: Path) -> bool:
    """Whether ``collect`` would find all of them finished."""
    folder = moments_folder(model, undivided(text), options, cache)
    if not (folder / moment_files.INDEX).exists():
        return False
    return not missing(folder, CollectedMoments(folder).inputs, frozenset(tensor.name for tensor in tensors))


def memory_limit(execution: Execution) -> int:
    """Bytes that the sums of a pass may take."""
    return execution.memory or psutil.virtual_memory().available // 2


def waiting_bytes(memory: int) -> int:
    """The part of the memory for inputs that wait to be summed."""
    return min(_WAITING_BYTES, memory // _WAITING_SHARE)


def passes(sums: list[Sum], inputs: tuple[MatrixInput, ...], memory: int) -> list[list[Sum]]:
    """Consecutive sums that fit in ``memory`` bytes together. QuantplanError where a single one does not."""
    room = memory - waiting_bytes(memory)
    out: list[list[Sum]] = []
    taken = room + 1
    largest = max(sums, key=lambda each: each.bytes, default=None)
    if largest is not None and largest.bytes > room:
        raise QuantplanError(
            f"the second moments of {inputs[largest.number].watched} ({largest.columns} columns) need "
            f"{-(-largest.bytes * _WAITING_SHARE // (_WAITING_SHARE - 1)):,} bytes of memory, {memory:,} may be used; "
            "allow more with --memory, or leave the tensor out"
        )
    for each in sums:
        if taken + each.bytes > room:
            out.append([])
            taken = 0
        out[-1].append(each)
        taken += each.bytes
    return out


def _collect(
    engine: Engine,
    model: Model,
    graph: Graph,
    sums: list[Sum],
    chunks: np.ndarray,
    options: MomentOptions,
    folder: Path,
    advance: Advance,
) -> None:
    memory = memory_limit(options.execution)
    planned = passes(sums, graph.inputs, memory)
    needed = sum(moment_files.sums_bytes(each.columns) for each in sums if each.full)
    moment_files.check_room(folder, needed, shutil.disk_usage(folder).free)
    at_once = chunks_per_batch(options.n_ctx, engine.vocabulary)
    watch = _Watch()
    ubatch = min(at_once * options.n_ctx, _BATCH_TOKENS)  # one graph for each decode: ssyrk gets many rows at once
    context = engine.new_context(options.n_ctx, at_once, watch, n_ubatch=ubatch)
    try:
        for batch in planned:
            watch.current = MomentPass(model, graph, batch, waiting_bytes(memory))
            for start in range(0, len(chunks), at_once):
                part = chunks[start : start + at_once]
                engine.forward(context, part)
                watch.current.flush()
                advance(len(part) / (len(planned) * len(chunks)))
            watch.current.finish(folder, chunks.size)
    finally:
        engine.free_context(context)


def chunks_per_batch(n_ctx: int, vocabulary: int) -> int:
    """Chunks that are decoded together."""
    return max(1, min(_BATCH_TOKENS, _LOGIT_BYTES // (8 * vocabulary)) // n_ctx)


class _Watch:
    """What llama.cpp calls for each node, through all passes."""

    current: MomentPass

    def __call__(self, node: GgmlTensor, ask: bool) -> bool:
        return self.current.watch(node, ask)
