"""`quantplan explain`: why a plan stores a tensor as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import constraint_options as asked

if TYPE_CHECKING:
    from quantplan.imatrix import Imatrix
    from quantplan.plan import Plan
    from quantplan.planning.explain import Explanation, TensorExplanation
    from quantplan.planning.request import PlanRequest
    from quantplan.quant_type import QuantType
    from quantplan.sensitivity_table import SensitivityTable
    from quantplan.solve.constraints import Constraints
    from quantplan.tensor import Model


def explain(
    plan: Annotated[Path, typer.Argument(help="A plan file.", show_default=False)],
    tensor: Annotated[str | None, typer.Argument(help="A name, role, glob or /regex/.", show_default=False)] = None,
    damage: Annotated[
        Path | None, typer.Option("--damage", help="The plan's damage table (default: from the cache).")
    ] = None,
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Explain a plan, or why it stores a tensor as it does: damage curve, worth of a byte, and what is in the way.

    Rates are nats of damage saved per further MB between a type and the chosen one. A type is worth its bytes where its
    rate is above the price, which is what one more byte would save anywhere else in the file.

    Example: quantplan explain plans/prose-10m-q4_k_m.json output
    """
    from quantplan.planning.explain import explain_plan, explain_tensor
    from quantplan.records.formats import PLANS
    from quantplan.selector import Selector

    made = PLANS.read(plan)
    source = _model(made, options.local_or_hub(model, hub))
    table = _table(made, damage, source)
    found = explain_plan(_request(made, source, _imatrix(made, imatrix, source), table), made, table)
    if tensor is None:
        _show_plan(found, as_json)
        return
    decided = [each for members in found.formulation.grouping.members for each in members]
    shown = [explain_tensor(found, each) for each in Selector(tensor).select(decided)]
    _show_tensors(list({each.group: each for each in shown}.values()), found.price, as_json)


def _model(plan: Plan, option: Path | None) -> Model:
    """The model: the option, the one that the plan names where that is there, or the project's."""
    named = Path(plan.model_path)
    source = options.model(option or (named if named.is_file() else None))
    plan.check_belongs_to(source)
    return source


def _table(plan: Plan, damage: Path | None, source: Model) -> SensitivityTable:
    from quantplan.planning.request import read_table, table_of

    return read_table(damage, source) if damage else table_of(plan, options.cache_folder())


def _imatrix(plan: Plan, option: Path | None, source: Model) -> Imatrix | None:
    """The plan's own, or the project's where that has gone; types that need one are no choices without."""
    if plan.imatrix is None and option is None:
        return None
    own = Path(plan.imatrix.path) if plan.imatrix else None
    return options.imatrix(option or (own if own and own.is_file() else None), source)


def _request(plan: Plan, source: Model, imatrix: Imatrix | None, table: SensitivityTable) -> PlanRequest:
    """The request that the plan answers, from what it was made from; memory and speed are in its limits already."""
    from quantplan.planning.request import PlanRequest

    per = "layer" if plan.layer_types else "tensor"
    return PlanRequest(source, imatrix, _types(plan, table), None, _constraints(plan), per)


def _types(plan: Plan, table: SensitivityTable) -> tuple[QuantType, ...]:
    """Those that the plan was chosen from; of one that was imported, those that the table has."""
    from quantplan.quant_type import quant_type

    named = plan.made_from.get("types")
    names = named if isinstance(named, list) else list({name: 0 for row in table.rows.values() for name in row.weights})
    return tuple(quant_type(str(name)) for name in names)


def _constraints(plan: Plan) -> Constraints:
    constraints = plan.made_from.get("wishes")
    made = constraints if isinstance(constraints, dict) else {}
    course = made.get("course")
    return asked.constraints(
        made.get("pin"),
        made.get("min"),
        made.get("max"),
        made.get("only"),
        made.get("tie"),
        made.get("max_types"),
        course == "monotone",
        course == "valley",
        bool(made.get("allow_1_bit")) or not made and "types" not in plan.made_from,
    )


def _show_plan(found: Explanation, as_json: bool) -> None:
    from quantplan.planning.explain import constraint_costs
    from quantplan.report.explanation import gains_table, plan_fields, ranked, summary

    constraints = constraint_costs(found)
    if as_json:
        console.put_json(plan_fields(found, constraints))
        return
    for line in summary(found, constraints):
        console.put(line)
    for title, standings in ranked(found.standings).items():
        console.put("")
        console.put_table(gains_table(title, standings))


def _show_tensors(found: list[TensorExplanation], price: float | None, as_json: bool) -> None:
    from quantplan.report.explanation import curve_table, tensor_fields

    if as_json:
        console.put_json([tensor_fields(each, price) for each in found])
        return
    for at, each in enumerate(found):
        console.put("" if at else f"damage in nats per token; {each.source}, error {each.relative_error:.1%}")
        console.put_table(curve_table(each, price))
        for kind, reason in each.excluded.items():
            console.put(f"  {kind}: {reason}")
        console.put(each.verdict)
