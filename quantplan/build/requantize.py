"""The types of any quantized file, built again from the original model, or from a sibling of it, with compensated rounding."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.build.build import build
from quantplan.build.compensated_rounding import Compensation, compensable, rounding_use
from quantplan.errors import BadUsage, ModelMismatch
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model, tensor_bytes
from quantplan.gguf.shards import model_stem
from quantplan.llamacpp.quantize import quantizable
from quantplan.plan import Plan
from quantplan.progress import SILENT, Reporter
from quantplan.recipes.import_gguf import check_same_model
from quantplan.recipes.import_plan import import_file
from quantplan.rounding.layouts import can_compensate
from quantplan.sensitivity.compensated_errors import collect_for_rounding
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model
from quantplan.text import Text


@dataclass(frozen=True)
class Requantization:
    """What is to be built: the plan of the file's types, the imatrix and second moments that it is built with.

    ``left``: quantized tensors that keep ggml's own encoding, and why: their type or their inputs allow no compensation.
    ``differs``: a tensor that tells that the file was made of a sibling, not of this model; its types are a layout then.
    """

    plan: Plan
    imatrix: Path
    compensation: Compensation
    warnings: tuple[str, ...]
    left: dict[str, str]
    differs: str | None = None

    def build(self, source: Model, out: Path, threads: int = 0, report: Reporter = SILENT) -> Model:
        """Raises what ``build.build`` raises."""
        return build(
            self.plan,
            source,
            out,
            imatrix_path=self.imatrix,
            threads=threads,
            report=report,
            compensation=self.compensation,
        )


def requantization(
    file: Path, source: Model, calibration: Text, options: ProbeOptions, cache: Path, report: Reporter = SILENT
) -> Requantization:
    """The second moments are collected, the types of ``file`` become a plan of ``source``.

    The imatrix is the diagonal of the same second moments. Raises ModelMismatch where the file is not of that model's shapes,
    BadUsage where nothing can be compensated, TextTooShort, NoSpace.
    """
    given = read_model(file)
    check_base(given, source)  # a file of another model must not cost a pass over the text
    moments = collect_for_rounding(source, quantizable(source), calibration, options, cache, report)
    path = moments.folder / f"{model_stem(source.path.name)}.imatrix.gguf"
    write_imatrix(moments.imatrix("calibration text"), path)
    imported = import_file(file, source, read_imatrix(path))
    names = [tensor.name for tensor in compensable(imported.plan.types, source, moments)]
    if not names:
        raise BadUsage(
            f"{file}: no tensor of it can be compensated; its types are those of {source.path.name}, floats, or types that "
            "quantplan cannot compensate"
        )
    plan = imported.plan.with_compensation(names, rounding_use(moments.made_from))
    differs = other_weights(given, source)
    return Requantization(plan, path, Compensation(moments, cache), imported.warnings, _left(plan, source), differs)


def other_weights(given: Model, source: Model) -> str | None:
    """The first vector that both store alike and that holds other numbers: the file is not made of ``source`` then, but of a
    sibling. None where all are equal: quantizing copies them (fine-tunes that leave norms and biases alone are not told).
    """
    for tensor in source.tensors:
        there = given.by_name.get(tensor.name)
        alike = there and len(tensor.shape) == 1 and (there.shape, there.type) == (tensor.shape, tensor.type)
        if there and alike and not np.array_equal(tensor_bytes(given, there), tensor_bytes(source, tensor)):
            return tensor.name
    return None


def check_base(given: Model, source: Model) -> None:
    """As ``check_same_model``; types of another architecture are no types of this model either. ModelMismatch."""
    check_same_model(given, source)
    if given.architecture != source.architecture:
        odd = next(
            (
                t.name
                for t in (*given.tensors, *source.tensors)
                if (t.name in given.by_name) != (t.name in source.by_name)
            ),
            "none",
        )
        raise ModelMismatch(
            f"{given.path.name} is a {given.architecture} model, {source.path.name} is {source.architecture}; the first tensor "
            f"that only one of them has is {odd}"
        )


def _left(plan: Plan, source: Model) -> dict[str, str]:
    reasons = {}
    for tensor in plan.tensors:
        if not tensor.rule or tensor.compensated or tensor.type.family == "float":
            continue
        if tensor.type == source.by_name[tensor.name].type:  # copied, nothing is lost
            continue
        reasons[tensor.name] = (
            "its inputs are not known" if can_compensate(tensor.type) else f"{tensor.type} cannot be compensated"
        )
    return reasons
