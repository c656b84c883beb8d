"""Error-compensated rounding of a built file: encoded again from the original weights, in the same types and bytes.

llama-quantize builds the file first. Then the blocks of each tensor whose inputs' second moments are known are replaced in
place; every other byte stays as llama-quantize wrote it.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.errors import BadUsage, ModelMismatch, NoSpace, NotAsPlanned
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_bytes, tensor_rows
from quantplan.llamacpp.quantize import quantizable
from quantplan.plan import Plan, RoundingUse
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType
from quantplan.records.cache import Cache, Plain
from quantplan.records.files import make_folder, remove_all_leftovers, replacing
from quantplan.records.journal import digest_of, text_digest
from quantplan.rounding.compensate import RoundingOptions, compensate
from quantplan.rounding.layouts import can_compensate, column_group
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.moment_metric import MomentMetric
from quantplan.sensitivity.second_moments import MomentOptions, collect
from quantplan.tensor import Model, Tensor
from quantplan.text import Text, undivided
from quantplan.text_parts import probing_and_refinement

VERSION = 1  # of the encoding: a change of the method makes kept tensors useless


@dataclass(frozen=True)
class Compensation:
    """How tensors are encoded. ``moments``: of the inputs, collected with the source; ``cache``: keeps encoded tensors."""

    moments: CollectedMoments
    cache: Path
    options: RoundingOptions = RoundingOptions()


@dataclass(frozen=True)
class TensorRounding:
    """What compensation did to a tensor: tr(D H D^T) of ggml's encoding and of the one that is stored.

    ``rows_kept``: of ``rows``, those where ggml's encoding was no worse and is stored.
    """

    tensor: str
    type: str
    stock_error: float
    error: float
    rows: int
    rows_kept: int
    sha256: str = ""


def compensable(types: Mapping[str, QuantType], source: Model, moments: CollectedMoments) -> tuple[Tensor, ...]:
    """The tensors of ``source`` that can be compensated when stored as told: those whose inputs share second moments follow
    one another. A tensor that is stored as it is in the source loses nothing and is left alone.
    """
    tensors = [
        source.by_name[name]
        for name, stored in types.items()
        if name in moments.tensors and can_compensate(stored) and stored != source.by_name[name].type
    ]
    order = {name: number for number, inputs in enumerate(moments.inputs) for name in inputs.tensors}
    return tuple(sorted(tensors, key=lambda tensor: (order[tensor.name], column_group(types[tensor.name]))))


def check_compensation(plan: Plan, source: Model, compensation: Compensation | None) -> None:
    """BadUsage where the plan needs second moments and there are none, ModelMismatch where they are of another text."""
    if plan.rounding is None:
        return
    if compensation is None:
        raise BadUsage(_needs_text(plan))
    compensation.moments.check_belongs_to(source)
    if rounding_use(compensation.moments.made_from) != plan.rounding:
        raise ModelMismatch(
            "the plan was made with second moments of another calibration text, context or number of chunks; give the same "
            "--calibration and --ctx, or plan again with `quantplan solve`"
        )


def compensation_for(
    plan: Plan,
    source: Model,
    calibration: Text | None,
    execution: Execution,
    cache: Path,
    report: Reporter = SILENT,
) -> Compensation | None:
    """What a plan with compensated rounding is built with: the second moments that it names, collected unless they are kept.

    None for a plan without. BadUsage without a calibration text, ModelMismatch with another one than the plan's.
    """
    if plan.rounding is None:
        return None
    if calibration is None:
        raise BadUsage(_needs_text(plan))
    text = calibration_of(plan.rounding, calibration)
    if text is None:
        raise ModelMismatch(
            "the plan's compensated rounding was made with another calibration text; give the same --calibration, or plan "
            "again with `quantplan solve`"
        )
    options = MomentOptions(
        plan.rounding.n_ctx, plan.rounding.chunks, execution=replace(execution, jobs=1, scheduler=None)
    )
    with report.stage("second moments") as advance:
        moments = collect(source, quantizable(source), text, options, cache, advance)
    return Compensation(moments, cache, RoundingOptions(threads=execution.threads))


def check_cache_space(compensation: Compensation, tensors: Iterable[Tensor], plan: Plan, out: Path) -> None:
    """NoSpace unless the cache can keep the encoded ``tensors``, next to the file ``out`` where that is on the same disk."""
    make_folder(compensation.cache)
    needed = sum(tensor.bytes_as(plan.types[tensor.name]) for tensor in tensors)
    needed += plan.file_bytes if compensation.cache.stat().st_dev == out.parent.stat().st_dev else 0
    free = shutil.disk_usage(compensation.cache).free
    if free < needed:
        raise NoSpace(
            f"compensated rounding needs {needed:,} bytes on the disk of {compensation.cache}, where it keeps finished "
            f"tensors, and {free:,} are free; free some, or move the cache with QUANTPLAN_CACHE"
        )


def calibration_of(use: RoundingUse, text: Text) -> Text | None:
    """The text of these second moments: ``text``, or the part of it that `quantplan run` calibrates with; None for another."""
    parts = map(undivided, (text, probing_and_refinement(text)[0]))
    return next((part for part in parts if text_digest(part) == use.text_digest), None)


def _needs_text(plan: Plan) -> str:
    return (
        f"{len(plan.compensated)} tensors of the plan have compensated rounding, which needs its calibration text: "
        "give --calibration TEXT, or --rounding stock for the same types as llama-quantize rounds them"
    )


def rounding_use(made_from: Mapping[str, Any]) -> RoundingUse:
    """How a plan names second moments; ``made_from``: what they say of themselves."""
    return RoundingUse(made_from["text"], made_from["n_ctx"], made_from["chunks"])


def compensate_file(
    path: Path,
    source: Model,
    compensation: Compensation,
    tensors: tuple[Tensor, ...],
    report: Reporter = SILENT,
) -> tuple[TensorRounding, ...]:
    """Replaces the blocks of ``tensors`` in the quantized file ``path`` (one file or the first shard) and reads them back.

    Tensors that were encoded before under the same conditions are taken from the cache. Raises BadFile, NoSpace,
    ModelMismatch for second moments of another model, NotAsPlanned where the file does not hold what was written.
    """
    compensation.moments.check_belongs_to(source)
    built = read_model(path)
    encoder = _Encoder(source, built, compensation)
    results = []
    with report.stage("compensated rounding", sum(tensor.elements for tensor in tensors)) as advance:
        for tensor in tensors:
            results.append(encoder.replace(tensor))
            advance(tensor.elements)
    return tuple(results)


class _Encoder:
    """Encodes tensors one after the other, each kept until the file is done."""

    def __init__(self, source: Model, built: Model, compensation: Compensation) -> None:
        self._source, self._built = source, built
        self._metric = MomentMetric(source, compensation.moments, compensation.options)
        options = (compensation.options.damping, compensation.options.sweeps, compensation.options.refit)
        made_from = (VERSION, source.digest, compensation.moments.folder.name, options)
        self._done: Cache[TensorRounding] = Cache(Plain(TensorRounding), compensation.cache, "rounding", *made_from)
        self._folder = compensation.cache / f"rounding-{digest_of(*made_from)[:32]}"
        remove_all_leftovers(self._folder)

    def replace(self, tensor: Tensor) -> TensorRounding:
        """Writes the tensor's compensated blocks into the built file."""
        place = self._built.by_name[tensor.name]
        result, blocks = self._encoded(tensor, place)
        with self._built.paths[place.shard].open("r+b") as file:
            file.seek(place.offset)
            file.write(blocks.data)
        if _digest(tensor_bytes(self._built, place)) != result.sha256:
            raise NotAsPlanned(
                f"{self._built.path}: {tensor.name} does not hold what was written; is the disk failing?"
            )
        return result

    def _encoded(self, tensor: Tensor, place: Tensor) -> tuple[TensorRounding, np.ndarray]:
        key = f"{tensor.name} {place.type.name}"
        if len(self._metric.matrices(tensor)) > 1:  # some may stay as llama-quantize rounded them, with any imatrix
            key += f" {_digest(tensor_bytes(self._built, place))}"
        kept = self._folder / f"{digest_of(key)[:32]}.blocks"
        if key in self._done and kept.exists():
            blocks = np.fromfile(kept, np.uint8)
            if blocks.nbytes == place.bytes and _digest(blocks) == self._done[key].sha256:
                return self._done[key], blocks
        result, blocks = self._encode(tensor, place)
        with replacing(kept, "wb") as file:
            file.write(blocks.data)
        self._done.put(key, result)
        return result, blocks

    def _encode(self, tensor: Tensor, place: Tensor) -> tuple[TensorRounding, np.ndarray]:
        """``place``: the tensor in the built file. Matrices of a stack are encoded one by one; those whose inputs saw too little
        text keep llama-quantize's blocks.
        """
        blocks, kept = np.array(tensor_bytes(self._built, place)), 0
        stock_error = error = 0.0
        for number, rows in enumerate(self._metric.matrices(tensor)):
            metric = self._metric.prepared(tensor, number, column_group(place.type))
            if metric is None:
                kept += rows.stop - rows.start
                continue
            rounded = compensate(tensor_rows(self._source, tensor, rows), metric, place.type, self._metric.options)
            blocks[rows] = rounded.blocks
            kept += rounded.rows_kept
            stock_error += float(rounded.stock_errors.sum())
            error += float(rounded.errors.sum())
        result = TensorRounding(tensor.name, place.type.name, stock_error, error, tensor.rows, kept, _digest(blocks))
        return result, blocks


def _digest(blocks: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(blocks).data).hexdigest()
