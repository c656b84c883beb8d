"""A sensitivity table used for a sibling of its model: the same architecture, names and shapes, as a fine-tune has.

Which tensors are sensitive is decided by the architecture and the pretraining more than by a fine-tune; ``sensitivity.sibling``
measures whether it holds for the two models at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.errors import ModelMismatch
from quantplan.records.journal import text_digest
from quantplan.sensitivity.compensated_errors import rounding_moments
from quantplan.sensitivity.sibling import SiblingCheck
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model
from quantplan.text import Text

_KEY = "sibling"  # in ``made_from``


@dataclass(frozen=True)
class SiblingOf:
    """The model that a table was measured on, where it is used for another."""

    model: str
    digest: str


def sibling_of(table: SensitivityTable) -> SiblingOf | None:
    """The other model that the table was measured on; None for a table of the model itself."""
    noted = table.made_from.get(_KEY)
    return SiblingOf(str(noted.get("model")), str(noted.get("digest"))) if isinstance(noted, dict) else None


def for_sibling(table: SensitivityTable, model: Model, path: Path | str) -> SensitivityTable:
    """The table of another model as one of ``model``, with a note of where it was measured.

    ModelMismatch, naming the first tensor that differs, unless architecture, names and shapes are the same.
    """
    if reason := next(_differences(table, model), None):
        raise ModelMismatch(
            f"{path} was made for another model (digest {table.model_digest[:12]}, this is {model.digest[:12]}), and "
            f"{reason}: only a table of the same architecture, names and shapes can be used; probe {model.path.name} itself"
        )
    measured_on = sibling_of(table) or SiblingOf(str(table.made_from.get("model", "another model")), table.model_digest)
    noted = {_KEY: {"model": measured_on.model, "digest": measured_on.digest}}
    return replace(table, model_digest=model.digest, made_from=table.made_from | noted)


def with_check(table: SensitivityTable, check: SiblingCheck) -> SensitivityTable:
    """The table of a sibling with what its probes said."""
    noted = table.made_from[_KEY]
    assert isinstance(noted, dict)
    return replace(table, made_from=table.made_from | {_KEY: noted | {"check": check.fields()}})


def _differences(table: SensitivityTable, model: Model) -> Iterator[str]:
    if not table.shapes:
        yield "an older quantplan made it, which did not record the shapes of that model"
    for name, shape in table.shapes.items():
        here = model.by_name.get(name)
        if here is None:
            yield f"{name} is not in {model.path.name}"
        elif here.shape != shape:
            yield f"{name} has shape {shape} there and {here.shape} in {model.path.name}"
    if table.architecture != model.architecture:
        yield f"that was a {table.architecture} model, {model.path.name} is {model.architecture}"


def with_own_rounding(
    table: SensitivityTable, model: Model, calibration: Text | None, probe: ProbeOptions
) -> SensitivityTable:
    """A sibling's table for files that are rounded with the second moments of ``model`` over ``calibration``; without a text,
    for files with llama-quantize's rounding.
    """
    if calibration is None:
        return table.with_stock_rounding()
    options = rounding_moments(model, probe)
    own = {"text": text_digest(calibration), "n_ctx": options.n_ctx, "chunks": options.chunks}
    return replace(table, made_from=table.made_from | {"second_moments": own})
