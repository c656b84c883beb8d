"""The results of a run, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quantplan.comparison import Row
from quantplan.records.codec import finite
from quantplan.report.cells import estimate
from quantplan.report.measurement_table import chunks_of
from quantplan.report.table import Columns, Table, table_of
from quantplan.run.refine import Refinement, Scored
from quantplan.run.targets import RunResult

RUN_FORMAT, RUN_VERSION = "quantplan-run", 1  # 1: first


def run_table(results: Sequence[RunResult]) -> Table:
    """One row a budget: the file that the run made, and the best plan against the best stock quant that is no larger."""
    columns: Columns[RunResult] = (
        ("File", lambda result: result.target.file.name),
        ("Bytes", lambda result: f"{result.measurement.file_bytes:,}"),
        ("bpw", lambda result: f"{result.measurement.bpw:.3f}"),
        ("PPL", lambda result: estimate(result.measurement.ppl)),
        ("KLD", lambda result: estimate(result.measurement.kld)),
        ("stock quant", lambda result: _of_rival(result, lambda row: row.name)),
        ("ratio", lambda result: _of_rival(result, lambda row: f"{row.kld_ratio:.3f}")),
        ("95 % interval", lambda result: _of_rival(result, lambda row: f"{row.low:.3f} .. {row.high:.3f}")),
        ("refined", lambda result: "no" if result.gain is None else f"{100 * (result.gain.ratio - 1):+.1f} %"),
        ("is", lambda result: "a stock quant" if result.is_stock_quant else "a plan"),
    )
    chunks = chunks_of(results[0].measurement.conditions)
    return table_of(f"{chunks}; ratio: KLD of the best plan over that of the stock quant", columns, results)


def _of_rival(result: RunResult, cell: Callable[[Row], str]) -> str:
    row = rival(result)
    return cell(row) if row else ""


def rival(result: RunResult) -> Row | None:
    """The stock quant of least KLD among those that are no larger than the plan, else of all."""
    stock_quants = result.comparison.rows[1:]
    fitting = [row for row in stock_quants if not row.larger]
    return min(fitting or stock_quants, key=lambda row: row.measurement.kld.value, default=None)


def result_fields(result: RunResult) -> dict[str, Any]:
    """A result as JSON values; see docs/formats.md."""
    measurement = result.measurement
    return {
        "budget": result.target.request.budget,
        "budget_bytes": result.target.budget_bytes,
        "file": str(result.target.file),
        "file_bytes": measurement.file_bytes,
        "bpw": measurement.bpw,
        "kld": measurement.kld.value,
        "kld_err": finite(measurement.kld.stderr),
        "ppl": measurement.ppl.value,
        "ppl_err": finite(measurement.ppl.stderr),
        "handed_over": "mix" if result.is_stock_quant else "plan",
        "name": result.kept,
        "reason": result.reason,
        "judged": [_judged(row) for row in result.comparison.rows],
        "refinement": _refinement(result.refinement) | _gained(result),
    }


def _judged(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "file_bytes": row.measurement.file_bytes,
        "kld": row.measurement.kld.value,
        "kld_ratio": finite(row.kld_ratio),
        "kld_ratio_low": finite(row.low),
        "kld_ratio_high": finite(row.high),
    }


def _refinement(state: Refinement) -> dict[str, Any]:
    test = state.test
    return {
        "measured": [_measured(scored) for scored in state.measured],
        "rounds": [
            {
                "name": step.name,
                "relative": step.relative,
                "better": step.better,
                "moved": step.moved,
                "factors": step.correction.types,
                "factor_errors": step.correction.type_errors,
            }
            for step in state.steps
        ],
        "leader": state.leader.name,
        "test": {name: getattr(test, name) for name in ("difference", "stderr", "low", "high", "p")} if test else None,
        "counts": state.counts,
        "withdrawn": state.withdrawn,
    }


def _measured(scored: Scored) -> dict[str, Any]:
    mean = sum(scored.klds) / len(scored.klds)
    return {
        "name": scored.name,
        "file_bytes": scored.plan.file_bytes,
        "predicted_kld": finite(scored.plan.predicted_kld),
        "kld": mean,
    }


def _gained(result: RunResult) -> dict[str, Any]:
    """Of refinement, on the evaluation text."""
    before, gain = result.before, result.gain
    return {
        "kld_before": before.kld.value if before else None,
        "gain": {name: finite(getattr(gain, name)) for name in ("ratio", "low", "high")} if gain else None,
    }
