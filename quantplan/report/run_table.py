"""The results of a run, as a table and as a record."""

from collections.abc import Callable, Sequence

from quantplan.comparison import Row
from quantplan.records.codec import finite
from quantplan.report.cells import READ, estimate, interval, per_token
from quantplan.report.measurement_table import chunks_of
from quantplan.report.table import Columns, Table, table_of
from quantplan.run.refine import RefineStep, Scored
from quantplan.run.targets import RunResult
from quantplan.run_record import (
    EvaluatedFile,
    Gain,
    LeaderTest,
    RefinementRecord,
    RefineRound,
    RunRecord,
    ValidatedFile,
)


def run_table(results: Sequence[RunResult]) -> Table:
    """One row a budget: the file that the run made, and the best plan against the best stock quant that is no larger."""
    columns: Columns[RunResult] = (
        ("File", lambda result: result.target.file.name),
        ("Bytes", lambda result: f"{result.measurement.file_bytes:,}"),
        ("bpw", lambda result: f"{result.measurement.bpw:.3f}"),
        (READ, lambda result: per_token(result.measurement.bytes_per_token)),
        ("PPL", lambda result: estimate(result.measurement.ppl)),
        ("KLD", lambda result: estimate(result.measurement.kld)),
        ("stock quant", lambda result: _of_rival(result, lambda row: row.name)),
        ("ratio", lambda result: _of_rival(result, lambda row: f"{row.kld_ratio:.3f}")),
        ("95 % interval", lambda result: _of_rival(result, lambda row: interval(row.low, row.high, ".3f", " .. "))),
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


def run_record(result: RunResult) -> RunRecord:
    """What is kept of a result; see docs/formats.md."""
    measurement = result.measurement
    return RunRecord(
        budget=result.target.request.budget,
        budget_bytes=result.target.budget_bytes,
        file=str(result.target.file),
        file_bytes=measurement.file_bytes,
        bpw=measurement.bpw,
        kld=measurement.kld,
        ppl=measurement.ppl,
        is_stock_quant=result.is_stock_quant,
        kept=result.kept,
        reason=result.reason,
        evaluated=tuple(_evaluated(row) for row in result.comparison.rows),
        refinement=_refinement(result),
    )


def _evaluated(row: Row) -> EvaluatedFile:
    return EvaluatedFile(
        row.name,
        row.measurement.file_bytes,
        row.measurement.kld.value,
        kld_ratio=finite(row.kld_ratio),
        kld_ratio_low=finite(row.low),
        kld_ratio_high=finite(row.high),
    )


def _refinement(result: RunResult) -> RefinementRecord:
    state, test, before, gain = result.refinement, result.refinement.test, result.before, result.gain
    return RefinementRecord(
        measured=tuple(_validated(scored) for scored in state.measured),
        rounds=tuple(_round(step) for step in state.steps),
        leader=state.leader.name,
        test=LeaderTest(test.difference, test.stderr, test.low, test.high, test.p) if test else None,
        counts=state.counts,
        withdrawn=state.withdrawn,
        kld_before=before.kld.value if before else None,
        gain=Gain(finite(gain.ratio), finite(gain.low), finite(gain.high)) if gain else None,
    )


def _validated(scored: Scored) -> ValidatedFile:
    mean = sum(scored.klds) / len(scored.klds)
    return ValidatedFile(scored.name, scored.plan.file_bytes, finite(scored.plan.predicted_kld), mean)


def _round(step: RefineStep) -> RefineRound:
    correction = step.correction
    return RefineRound(step.name, step.relative, step.better, step.moved, correction.types, correction.type_errors)
