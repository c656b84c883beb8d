"""What commands do in one call each; ``import quantplan as qp`` has these functions, see docs/python.md."""

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from quantplan.build.build import build, build_stock_quant
from quantplan.build.compensated_rounding import compensation_for
from quantplan.devices.limits import Devices
from quantplan.devices.speed.table import SpeedTable
from quantplan.execution import Execution
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.llamacpp.texts import read_texts
from quantplan.plan import Plan
from quantplan.planning.frontier import Frontier, model_frontier
from quantplan.planning.request import PlanRequest
from quantplan.planning.sensitivities import sensitivities
from quantplan.planning.solving import check, plan_for
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.cache import user_cache
from quantplan.records.formats import PLANS
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.constraints import Constraints
from quantplan.tensor import Model
from quantplan.text import Text

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["frontier", "plan_request", "quantize", "read_plan", "sensitivities", "solve", "write_plan"]


class PlanLimits(TypedDict, total=False):
    """What may limit a plan besides the budget and the types; see ``PlanRequest``, ``Constraints`` and ``Devices``."""

    constraints: Constraints
    per: str
    objective: str
    most_kld: float | None
    devices: Devices | None
    least_tps: float | None
    command: str


class BuildReports(TypedDict, total=False):
    """``advance`` gets 1 for each finished tensor."""

    report: Reporter
    advance: Advance | None


def plan_request(
    model: Model,
    budget: str | None = None,
    *,
    imatrix: Imatrix | None = None,
    types: str = "all",
    **limits: "Unpack[PlanLimits]",
) -> PlanRequest:
    """What is to be planned, checked as far as nothing need be measured for it; ``budget`` and ``types`` as options have them.

    Raises BadUsage, BadFile, NothingSelected, BudgetImpossible.
    """
    request = PlanRequest(model, imatrix, parse_writable(types), budget, **limits)
    check(request)
    return request


def solve(
    model: Model,
    table: SensitivityTable,
    budget: str | None = None,
    *,
    imatrix: Imatrix | None = None,
    types: str = "all",
    speeds: SpeedTable | None = None,
    **limits: "Unpack[PlanLimits]",
) -> Plan:
    """The plan of the least expected KLD within ``budget`` ("17.9GB", "5bpw", "40%", "Q4_K_M") and the limits.

    ``least_tps`` needs ``speeds``. Raises what ``plan_request`` raises, and ModelMismatch for a table of another model.
    """
    return plan_for(plan_request(model, budget, imatrix=imatrix, types=types, **limits), table, speeds)[0]


def frontier(
    model: Model,
    table: SensitivityTable,
    points: int = 100,
    *,
    imatrix: Imatrix | None = None,
    types: str = "all",
    speeds: SpeedTable | None = None,
    **limits: "Unpack[PlanLimits]",
) -> Frontier:
    """The best plans at ``points`` even steps from the smallest to the largest file, next to the stock quants.

    Raises what ``solve`` raises.
    """
    request = plan_request(model, imatrix=imatrix, types=types, **limits)
    return model_frontier(request, table, points, speeds=speeds)


def quantize(
    plan: Plan | str,
    model: Model,
    out: Path | str,
    *,
    imatrix: Path | None = None,
    calibration: Text | Path | None = None,
    cache: Path | None = None,
    execution: Execution = Execution(),
    **how: "Unpack[BuildReports]",
) -> Model:
    """The file of a plan, or of the stock quant of that name, built by llama-quantize, read back and checked.

    ``imatrix``: its file; by default the plan's own, for a stock quant none. ``calibration``: the text that the plan was made
    with (itself, or its path), which plans with compensated rounding need; ``cache``: as in ``sensitivities``. Raises BadFile,
    BadUsage, ModelMismatch, NoSpace, NotAsPlanned, NothingSelected, ToolFailed.
    """
    threads = execution.threads
    if isinstance(plan, str):
        return build_stock_quant(model, plan, Path(out), imatrix, threads=threads, **how)
    report = how.get("report", SILENT)
    text = read_texts([calibration], model, report=report) if isinstance(calibration, Path) else calibration
    compensation = compensation_for(plan, model, text, execution, cache or user_cache(), report)
    return build(plan, model, Path(out), imatrix_path=imatrix, threads=threads, compensation=compensation, **how)


def read_plan(path: Path | str) -> Plan:
    """A plan file; BadFile where it is none."""
    return PLANS.read(path)


def write_plan(plan: Plan, path: Path | str) -> None:
    """Writes a plan file, which ``quantplan quantize`` and ``quantplan emit`` read too."""
    PLANS.write(plan, path)
