"""What a run handed over, as a table and as JSON. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantplan.comparison import Row
from quantplan.evaluate.significance import Ratio
from quantplan.records.codec import finite
from quantplan.report.measurement_table import estimate
from quantplan.run.refine import Refinement, Scored
from quantplan.run.targets import RunResult

if TYPE_CHECKING:
    from rich.table import Table

RUN_FORMAT, RUN_VERSION = "quantplan-run", 1  # 1: first


def run_table(results: Sequence[RunResult]) -> Table:
    """One row a budget: the file that was handed over, and the best plan beside the best mix that is no larger."""
    from rich.table import Table

    conditions = results[0].measurement.conditions
    title = (
        f"{conditions.chunks} windows of {conditions.n_ctx} tokens; ratio: KLD of the best plan over that of the mix"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("File", overflow="fold", min_width=16)
    for heading in ("Bytes", "bpw", "PPL", "KLD", "mix", "ratio", "95 % interval", "refined", "is"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in results:
        found, stock_quant = each.measurement, rival(each)
        table.add_row(
            each.order.file.name,
            f"{found.file_bytes:,}",
            f"{found.bpw:.3f}",
            estimate(found.ppl),
            estimate(found.kld),
            stock_quant.name if stock_quant else "",
            f"{stock_quant.kld_ratio:.3f}" if stock_quant else "",
            f"{stock_quant.low:.3f} .. {stock_quant.high:.3f}" if stock_quant else "",
            _gain(each.gain),
            "a stock mix" if each.is_stock_quant else "a plan",
        )
    return table


def rival(result: RunResult) -> Row | None:
    """The stock mix of least KLD among those that are no larger than the plan, else of all."""
    stock_quants = result.comparison.rows[1:]
    fitting = [row for row in stock_quants if not row.larger]
    return min(fitting or stock_quants, key=lambda row: row.measurement.kld.value, default=None)


def _gain(gain: Ratio | None) -> str:
    return "no" if gain is None else f"{100 * (gain.ratio - 1):+.1f} %"


def result_fields(result: RunResult) -> dict[str, Any]:
    """All of it as JSON values. See docs/formats.md."""
    found = result.measurement
    return {
        "budget": result.order.request.budget,
        "budget_bytes": result.order.budget_bytes,
        "file": str(result.order.file),
        "file_bytes": found.file_bytes,
        "bpw": found.bpw,
        "kld": found.kld.value,
        "kld_err": finite(found.kld.stderr),
        "ppl": found.ppl.value,
        "ppl_err": finite(found.ppl.stderr),
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
        "measured": [_measured(each) for each in state.measured],
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


def _measured(one: Scored) -> dict[str, Any]:
    mean = sum(one.klds) / len(one.klds)
    return {
        "name": one.name,
        "file_bytes": one.plan.file_bytes,
        "predicted_kld": finite(one.plan.predicted_kld),
        "kld": mean,
    }


def _gained(result: RunResult) -> dict[str, Any]:
    """On the text that judges."""
    before, gain = result.before, result.gain
    return {
        "kld_before": before.kld.value if before else None,
        "gain": {name: finite(getattr(gain, name)) for name in ("ratio", "low", "high")} if gain else None,
    }
