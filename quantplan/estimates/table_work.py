"""Time, memory and disk of making a sensitivity table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.estimates.pace import Pace, forward_pace
from quantplan.estimates.rounding_pace import RoundingPace
from quantplan.estimates.rounding_work import of_metric_errors, of_moments, of_round_trips, pace_of
from quantplan.estimates.work import WorkEstimate, joined, of_probe, why_not_timed
from quantplan.evaluate.same_tokens import tokenize
from quantplan.imatrix import Imatrix
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.compensated_errors import rounding_moments
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.second_moments import kept, memory_limit
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model, Tensor
from quantplan.text import Text, undivided


@dataclass(frozen=True)
class Machine:
    """What was timed of this machine with a model; ``unknown``: why nothing was, where ``pace`` is None."""

    pace: Pace | None
    rounding: RoundingPace
    unknown: str = ""


def timed(model: Model, tensors: Sequence[Tensor], probe: ProbeOptions) -> Machine:
    """A few seconds of running the model and of rounding matrices as wide as ``tensors``. Raises as loading it does."""
    unknown = why_not_timed(model, probe.execution)
    pace = None if unknown else forward_pace(model, probe.n_ctx, probe.execution, with_inputs=True)
    return Machine(pace, pace_of(tensors, probe.execution.threads), unknown)


def of_table(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    text: Text,
    options: SensitivityOptions,
    cache: Path,
    machine: Machine,
) -> list[WorkEstimate]:
    """Stages; second moments that are finished take no time, other finished work is not left out. Raises TextTooShort."""
    pace = machine.pace
    if pace is None:
        return [of_probe(model, len(tensors), options.probe, None, machine.unknown)]
    available = len(tokenize(model, text, options.probe.n_ctx).chunks)
    kinds = [(tensor, candidates(tensor, options.types, imatrix)) for tensor in tensors]
    stages, inputs = [], pace.inputs if options.compensate else ()
    if options.compensate:
        stages.append(of_rounding_moments(model, tensors, text, options.probe, available, cache, machine))
    known = {name for each in inputs for name in each.tensors}
    errors = of_metric_errors(kinds, options.sample_elements, inputs, machine.rounding)
    others = of_round_trips(
        [kind for kind in kinds if kind[0].name not in known], options.sample_elements, machine.rounding
    )
    stages.append(replace(joined([errors, others]), name=errors.name))
    return [*stages, of_probe(model, len(tensors), options.probe.on(text), pace, available=available)]


def of_rounding_moments(
    model: Model,
    tensors: Sequence[Tensor],
    text: Text,
    probe: ProbeOptions,
    available: int,
    cache: Path,
    machine: Machine,
) -> WorkEstimate:
    """Of the second moments that compensated rounding needs; ``available``: chunks of the text. Not of a machine that was not
    timed.
    """
    assert machine.pace is not None
    how, text = rounding_moments(model, probe), undivided(text)
    tokens = min(how.chunks or available, available) * how.n_ctx
    work = of_moments(model, tensors, tokens, memory_limit(how.execution), machine.pace, machine.rounding)
    return replace(work, seconds=0.0, disk_bytes=0) if kept(model, tensors, text, how, cache) else work
