"""What commands do in one call each; ``import quantplan as qp`` has these functions, see docs/python.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from quantplan.build.build import build, build_stock_quant
from quantplan.build.compensated_rounding import Compensation
from quantplan.devices.limits import Devices
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.plan import Plan
from quantplan.planning.frontier import Frontier, model_frontier
from quantplan.planning.kept_tables import read_table
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import check, plan_for
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.project import read_text
from quantplan.records.cache import user_cache
from quantplan.records.formats import PLANS
from quantplan.sensitivity.estimate import SensitivityOptions, price, prior_table
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.constraints import Constraints
from quantplan.tensor import Model

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_CTX = 512  # tokens of a chunk, as in llama-perplexity


class PlanLimits(TypedDict, total=False):
    """What may limit a plan besides the budget and the types; see ``PlanRequest``, ``Constraints`` and ``Devices``."""

    constraints: Constraints
    per: str
    objective: str
    most_kld: float | None
    devices: Devices | None
    least_tps: float | None
    command: str


def sensitivities(
    model: Model,
    source: str | Path = "probe",
    *,
    calibration: str | Path | None = None,
    imatrix: Imatrix | None = None,
    options: SensitivityOptions | None = None,
    cache: Path | None = None,
    report: Reporter = SILENT,
) -> SensitivityTable:
    """The expected KLD of every (tensor, type) that ``options`` (default: all types) name.

    ``source``: "probe" measures on ``calibration`` (the text itself, or the path of a file or folder), "weights" reads the
    weights only, "prior" not even those; anything else is the file of a table. What was measured before comes from ``cache``
    (default: the user's cache folder). Raises BadFile, BadUsage, ModelMismatch, NothingSelected, TextTooShort, WorkersLost.
    """
    if source not in ("probe", "weights", "prior"):
        return read_table(source, model)
    tensors = quantizable(model)
    options = options or SensitivityOptions(parse_writable("all"), ProbeOptions(DEFAULT_CTX))
    if source == "prior":
        return prior_table(model, tensors, options.types, imatrix)
    text = None
    if source == "probe":
        if calibration is None:
            raise BadUsage(
                "no calibration text: give --calibration FILE to probe, or --sensitivity weights to plan without a probe"
            )
        text = read_text(calibration) if isinstance(calibration, Path) else calibration
    estimated = price(model, tensors, imatrix, text, options, cache or user_cache(), report)
    if estimated.probe and estimated.probe.overhead is not None:
        report.say(f"probed {len(estimated.probe.scales)} tensors in {estimated.probe.seconds:.0f} s")
    return estimated.table


def plan_request(
    model: Model,
    budget: str | None = None,
    *,
    imatrix: Imatrix | None = None,
    types: str = "all",
    **limits: Unpack[PlanLimits],
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
    **limits: Unpack[PlanLimits],
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
    **limits: Unpack[PlanLimits],
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
    threads: int = 0,
    report: Reporter = SILENT,
    advance: Advance | None = None,
    compensation: Compensation | None = None,
) -> Model:
    """The file of a plan, or of the stock quant of that name, built by llama-quantize, read back and checked.

    ``imatrix``: its file; by default the plan's own, for a stock quant none. ``threads`` 0: all cores. ``advance`` gets 1 for
    each finished tensor. ``compensation``: what plans with compensated rounding need, see
    ``build.compensated_rounding.compensation_for``. Raises BadFile, BadUsage, ModelMismatch, NoSpace, NotAsPlanned,
    NothingSelected, ToolFailed.
    """
    if isinstance(plan, str):
        return build_stock_quant(model, plan, Path(out), imatrix, threads=threads, report=report, advance=advance)
    return build(
        plan,
        model,
        Path(out),
        imatrix_path=imatrix,
        threads=threads,
        report=report,
        advance=advance,
        compensation=compensation,
    )


def read_plan(path: Path | str) -> Plan:
    """A plan file; BadFile where it is none."""
    return PLANS.read(path)


def write_plan(plan: Plan, path: Path | str) -> None:
    """Writes a plan file, which ``quantplan quantize`` and ``quantplan emit`` read too."""
    PLANS.write(plan, path)
