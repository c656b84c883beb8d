"""Two plans or files of one model, tensor by tensor: types, bytes and what each is expected to cost."""

import math
from dataclasses import dataclass

from quantplan.errors import ModelMismatch
from quantplan.planning.tensor_types import TensorTypes, check_same_model
from quantplan.sensitivity_table import SensitivityTable


@dataclass(frozen=True)
class TensorDifference:
    """One tensor in both: (type, bytes, damage); damage in nats per token, None where it is not known. What only one has is of
    type "" and 0 bytes in the other.

    ``compensated``: whether its rounding is error-compensated; None for a GGUF, which does not tell.
    """

    tensor: str
    types: tuple[str, str]
    bytes: tuple[int, int]
    damage: tuple[float | None, float | None]
    compensated: tuple[bool | None, bool | None] = (False, False)

    @property
    def equal(self) -> bool:
        """Whether it is stored alike, as far as that is known."""
        first, second = self.compensated
        return self.types[0] == self.types[1] and (first is None or second is None or first == second)


@dataclass(frozen=True)
class PlanDifference:
    """``kld``: (expected, its error) of each whole file, None where some tensor's damage is not known."""

    lines: tuple[TensorDifference, ...]
    file_bytes: tuple[int, int]
    kld: tuple[tuple[float, float] | None, tuple[float, float] | None]

    @property
    def changed(self) -> tuple[TensorDifference, ...]:
        return tuple(each for each in self.lines if not each.equal)


def difference(one: TensorTypes, other: TensorTypes, table: SensitivityTable | None = None) -> PlanDifference:
    """ModelMismatch where they, or the table, are of different models."""
    check_same_model(one, other)
    if table:
        _check_table(table, one, other)
    tables = _with_rounding(table, one), _with_rounding(table, other)
    lines = tuple(
        TensorDifference(
            name,
            (_type(one, name), _type(other, name)),
            (one.bytes.get(name, 0), other.bytes.get(name, 0)),
            (_damage(tables[0], one, name), _damage(tables[1], other, name)),
            (_compensated(one, name), _compensated(other, name)),
        )
        for name in dict.fromkeys([*one.types, *other.types])
    )
    klds = _expected(tables[0], one), _expected(tables[1], other)
    return PlanDifference(lines, (one.file_bytes, other.file_bytes), klds)


def _with_rounding(table: SensitivityTable | None, stored: TensorTypes) -> SensitivityTable | None:
    """The table for the rounding of a plan; for that of ggml where a GGUF does not say how it was rounded."""
    return table and table.with_stock_rounding(stored.plan.compensated if stored.plan else ())


def _type(stored: TensorTypes, name: str) -> str:
    """Its name, "" for a tensor that the file lacks."""
    return stored.types[name].name if name in stored.types else ""


def _compensated(stored: TensorTypes, name: str) -> bool | None:
    return name in stored.plan.compensated if stored.plan else None


def _check_table(table: SensitivityTable, *both: TensorTypes) -> None:
    for each in both:
        if each.plan and table.model_digest and table.model_digest != each.plan.model_digest:
            raise ModelMismatch(
                f"the sensitivity table was made for another model (digest {table.model_digest[:12]}) than {each.path} "
                f"({each.plan.model_digest[:12]})"
            )
        missing = [name for name in table.rows if name not in each.types]
        if 2 * len(missing) > len(table.rows):
            raise ModelMismatch(
                f"the sensitivity table has rows for {len(missing)} tensors that are not in {each.path} ({missing[0]} ...)"
            )


def _damage(table: SensitivityTable | None, stored: TensorTypes, name: str) -> float | None:
    """0 for what no plan decides (norms ...) and what a plan copies; None for a type that the table does not know."""
    if table is None or name not in stored.types:
        return None
    row, kind = table.rows.get(name), stored.types[name].name
    if row is None:
        return 0.0
    if kind in row.weights:
        return row.damage(kind)
    return 0.0 if _copied(stored, name) else None


def _copied(stored: TensorTypes, name: str) -> bool:
    return stored.plan is not None and not next(each.rule for each in stored.plan.tensors if each.name == name)


def _expected(table: SensitivityTable | None, stored: TensorTypes) -> tuple[float, float] | None:
    here = [name for name in table.rows if name in stored.types] if table else []
    if table is None or any(_damage(table, stored, name) is None for name in here):
        return None
    known = {name: stored.types[name].name for name in here if stored.types[name].name in table.rows[name].weights}
    kld, error = table.predict(known)
    return (kld, error) if math.isfinite(kld) else None
