"""All that is known of one model, for its report: plans of every size, stock quants, statistics, measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.analyze.statistics import Statistics, statistics
from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.comparison import Comparison
from quantplan.devices.speed.table import SpeedTable
from quantplan.evaluate.model_records import ModelRecords, model_records
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.measurement import Measurement
from quantplan.planning.request import PlanRequest, goal_of
from quantplan.planning.size_range import Planned, size_range
from quantplan.planning.stock_quants import StockQuant
from quantplan.report.spikes import spike_lines
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model

OPENS_AT = "Q4_K_M"  # the stock quant that most people take


@dataclass(frozen=True)
class ReportData:
    """``plans`` from the smallest to the largest; ``opens_at`` is the index of the one to show first."""

    request: PlanRequest
    table: SensitivityTable
    fixed_bytes: int  # of every file: header and tensors that are copied
    plans: tuple[Planned, ...]
    opens_at: int
    stock_quants: tuple[StockQuant, ...]
    statistics: Statistics | None
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]  # what is missing, and why
    caches: tuple[CacheSensitivity, ...] = ()
    scores: tuple[SuiteScore, ...] = ()
    originals: tuple[SuiteScore, ...] = ()  # scores of the model itself

    @property
    def model(self) -> Model:
        return self.request.model


def report_data(
    request: PlanRequest,
    table: SensitivityTable,
    points: int = 100,
    reports: Path | None = None,
    speeds: SpeedTable | None = None,
) -> ReportData:
    """The plans of ``size_range``, the statistics of the imatrix, and the records below the folder ``reports``."""
    sizes = size_range(request, table, points, speeds)
    records = model_records(reports, request.model) if reports else ModelRecords()
    notes = records.notes + _spikes(records.measurements, records.comparisons)
    of_imatrix = statistics(request.imatrix) if request.imatrix else None
    if of_imatrix is None:
        notes += ("no imatrix: types that need one are no candidates, and there are no statistics",)
    opens_at = _opening(request, sizes.plans)
    return ReportData(
        request,
        table,
        sizes.fixed_bytes,
        sizes.plans,
        opens_at,
        sizes.stock_quants,
        of_imatrix,
        records.measurements,
        records.comparisons,
        notes,
        records.caches,
        records.scores,
        records.originals,
    )


def _spikes(measurements: Sequence[Measurement], comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Where the measured files break, each said once."""
    files = [(Path(each.file).name, each) for each in measurements]
    files += [(row.name, row.measurement) for comparison in comparisons for row in comparison.rows]
    return tuple(dict.fromkeys(line for name, measured in files for line in spike_lines(name, measured)))


def _opening(request: PlanRequest, plans: Sequence[Planned]) -> int:
    """The plan of the request's own budget, else the one of the size of Q4_K_M, else the middle one."""
    budget = goal_of(request).budget
    words = budget.asked if budget else OPENS_AT
    return next((at for at, plan in enumerate(plans) if plan.asked == words), len(plans) // 2)
