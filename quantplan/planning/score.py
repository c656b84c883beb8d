"""What a sensitivity table expects of a file, whoever made it."""

from dataclasses import replace

from quantplan.errors import ModelMismatch, NothingSelected
from quantplan.plan import Plan
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model


def score(plan: Plan, table: SensitivityTable, model: Model | None = None) -> tuple[float, float]:
    """(KLD in nats per token, its standard error) that the table predicts for the plan's types and rounding.

    Tensors that are copied are left out, and with the ``model`` at hand those that keep their type or become F32: their
    weights are the same. Raises ModelMismatch for another model's table, NothingSelected naming the tensors and types that
    the table does not price.
    """
    check_table(table, plan)
    types = {
        each.name: each.type.name for each in plan.tensors if each.rule and not _same(each.name, each.type.name, model)
    }
    lacking = [f"{name} as {kind}" for name, kind in types.items() if kind not in table.rows[name].weights]
    if lacking:
        first = next(name for name, kind in types.items() if kind not in table.rows[name].weights)
        bits = BY_NAME[types[first]].bits
        near = sorted(table.rows[first].weights, key=lambda kind: abs(BY_NAME[kind].bits - bits))[:2]
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise NothingSelected(
            f"the sensitivity table has no value for {', '.join(lacking[:3])}{more}; for {first} it has {' and '.join(near)} "
            "nearest in size. Measure it with `quantplan probe --types`, or give a file whose types the table has"
        )
    return table.with_stock_rounding(plan.compensated).predict(types)


def scored(plan: Plan, table: SensitivityTable, model: Model | None = None) -> Plan:
    """The plan with the table's prediction in it."""
    predicted, error = score(plan, table, model)
    return replace(plan, predicted_kld=predicted, predicted_kld_err=error, calibrated=table.calibrated)


def check_table(table: SensitivityTable, plan: Plan) -> None:
    """ModelMismatch saying which digest or which tensors differ, unless the table is for the plan's model."""
    if table.model_digest and table.model_digest != plan.model_digest:
        raise ModelMismatch(
            f"the sensitivity table was made for a model of digest {table.model_digest[:12]}, {plan.model_name} has digest "
            f"{plan.model_digest[:12]}{_difference(table, plan)}"
        )
    missing = [each.name for each in plan.tensors if each.rule and each.name not in table.rows]
    if missing:
        raise ModelMismatch(
            f"the sensitivity table has no row for {len(missing)} tensors of {plan.model_name}: {', '.join(missing[:3])}"
            + (" ..." if len(missing) > 3 else "")
            + "; was it made from another model?"
        )


def _difference(table: SensitivityTable, plan: Plan) -> str:
    names = {each.name for each in plan.tensors if each.rule}
    odd = sorted(names.symmetric_difference(table.rows))
    if not odd:
        return "; their tensors have the same names, so it may be another conversion or a fine-tune of it"
    where = "in the table" if odd[0] in names else "in the model"
    return f"; {len(odd)} tensors differ, {odd[0]} is not {where}"


def _same(name: str, kind: str, model: Model | None) -> bool:
    return model is not None and (kind == "F32" or kind == model.by_name[name].type.name)
