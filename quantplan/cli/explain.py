"""`quantplan explain`: why a plan stores a tensor as it does."""

from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import command, json_option
from quantplan.cli.option_groups import ImatrixOptions, ModelOptions, sensitivity_file_option
from quantplan.cli.plan_options import ConstraintOptions
from quantplan.plan import Plan
from quantplan.planning.explain import Explanation, TensorExplanation, constraint_costs, explain_plan, explain_tensor
from quantplan.planning.kept_tables import read_table, table_of
from quantplan.planning.request import PlanRequest
from quantplan.planning.rounding_gain import rounding_gains
from quantplan.planning.whole_plan import whole_plan_costs
from quantplan.quant_type import QuantType, quant_type
from quantplan.records.formats import PLANS
from quantplan.report.explanation import (
    curve_table,
    gains_table,
    importance_line,
    plan_fields,
    ranked,
    summary,
    tensor_fields,
)
from quantplan.report.rounding import rounding_table
from quantplan.selector import Selector
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.constraints import Constraints


@command
def explain(
    plan: Annotated[Path, typer.Argument(help="A plan file.", show_default=False)],
    model: ModelOptions,
    imatrix: ImatrixOptions,
    tensor: Annotated[str | None, typer.Argument(help="A name, role, glob or /regex/.", show_default=False)] = None,
    sensitivity: Path | None = sensitivity_file_option(),
    as_json: bool = json_option(),
) -> None:
    """Explain a plan, or why it stores a tensor as it does: its KLD by type, what a byte saves, and what is in the way.

    Rates are the KLD saved per further MB between a type and the chosen one. A type is worth its bytes where its
    rate is above the price, which is what one more byte would save anywhere else in the file.

    Example: quantplan explain plans/prose-10m-q4_k_m.json output
    """
    made = PLANS.read(plan)
    source = options.model(model.file, made)
    with console.terminal() as report:
        table = read_table(sensitivity, source, report) if sensitivity else table_of(made, options.cache_folder())
    importance = options.imatrix(imatrix.imatrix, source, made)
    per = "layer" if made.layer_types else "tensor"
    request = PlanRequest(source, importance, _types(made, table), None, _constraints(made), per)
    explanation = explain_plan(request, made, table)
    if tensor is None:
        _show_plan(explanation, as_json)
        return
    decided = [tensor for members in explanation.formulation.grouping.members for tensor in members]
    tensors = [explain_tensor(explanation, chosen) for chosen in Selector(tensor).select(decided)]
    _show_tensors(list({one.group: one for one in tensors}.values()), explanation.price, as_json)


def _types(plan: Plan, table: SensitivityTable) -> tuple[QuantType, ...]:
    """Those that the plan was chosen from; of one that was imported, those that the table has."""
    chosen_from = plan.made_from.get("types")
    if isinstance(chosen_from, list):
        return tuple(quant_type(str(name)) for name in chosen_from)
    return tuple(
        quant_type(name) for name in dict.fromkeys(name for row in table.rows.values() for name in row.weights)
    )


def _constraints(plan: Plan) -> Constraints:
    """The constraints of the plan; its limits on memory and speed are in the plan itself."""
    recorded = plan.made_from.get("wishes")
    made = recorded if isinstance(recorded, dict) else {}
    return ConstraintOptions(
        pin=made.get("pin", ()),
        min_type=made.get("min", ()),
        max_type=made.get("max", ()),
        only=made.get("only", ()),
        tie=made.get("tie", ()),
        max_types=made.get("max_types"),
        monotone=made.get("course") == "monotone",
        valley=made.get("course") == "valley",
        allow_1_bit=bool(made.get("allow_1_bit")) or (not made and "types" not in plan.made_from),
    ).constraints()


def _show_plan(explanation: Explanation, as_json: bool) -> None:
    costs, whole = constraint_costs(explanation), whole_plan_costs(explanation)
    if as_json:
        console.put_json(plan_fields(explanation, costs, whole))
        return
    for line in summary(explanation, costs, whole):
        console.put(line)
    for title, standings in ranked(explanation.standings).items():
        console.put("")
        console.put_table(gains_table(title, standings))
    if gains := rounding_gains(explanation.plan, explanation.table):
        console.put("")
        console.put_table(rounding_table(gains))


def _show_tensors(tensors: list[TensorExplanation], price: float | None, as_json: bool) -> None:
    if as_json:
        console.put_json([tensor_fields(tensor, price) for tensor in tensors])
        return
    for at, tensor in enumerate(tensors):
        console.put("" if at else f"KLD by type; from {tensor.source}, error {tensor.relative_error:.1%}")
        console.put_table(curve_table(tensor, price))
        for reason in dict.fromkeys(tensor.excluded.values()):
            names = [name for name, why in tensor.excluded.items() if why == reason]
            console.put(f"  {', '.join(names)}: {reason}")
        if importance := importance_line(tensor):
            console.put(f"  {importance}")
        console.put(tensor.verdict)
