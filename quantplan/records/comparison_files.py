"""Comparisons as JSON and CSV, for programs that read them. See docs/formats.md."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.comparison import KLD, Comparison, Row
from quantplan.measurement import Estimate
from quantplan.records import measurement_files, task_score_files, throughput_files
from quantplan.records.codec import finite, write_record

COMPARISON_FORMAT, COMPARISON_VERSION = "quantplan-comparison", 2  # 2: tasks, speed, gaps, shrinkage; 1: first


def comparison_fields(comparison: Comparison) -> dict[str, Any]:
    """``rows`` with all figures of each file, and the ``verdict``. A ratio without end is null."""
    return {
        "rows": [_row(row) for row in comparison.rows],
        "verdict": comparison.verdict,
        "reference": comparison.reference,
        "sorted_by": comparison.sorted_by,
    }


def write_comparison(comparison: Comparison, path: Path) -> None:
    write_record(path, COMPARISON_FORMAT, COMPARISON_VERSION, comparison_fields(comparison))


def _row(row: Row) -> dict[str, Any]:
    own = {
        "name": row.name,
        "kld_ratio": finite(row.kld_ratio),
        "kld_ratio_low": finite(row.low),
        "kld_ratio_high": finite(row.high),
        "size_difference": row.size_difference,
        "shrinkage": row.shrinkage,
        "larger": row.larger,
        "told_apart": row.significant,
        "windows_needed": row.chunks_needed,
        "blocks": row.blocks,
        "weights": row.elements,
        "tasks": [task_score_files.as_fields(score) for score in row.tasks],
        "average": row.average.value if row.average else None,
        "average_err": row.average.stderr if row.average else None,
        "throughput": throughput_files.as_fields(row.throughput) if row.throughput else None,
        "gaps": {
            name: {key: finite(value) if isinstance(value, float) else value for key, value in asdict(gap).items()}
            for name, gap in row.gaps.items()
        },
    }
    return own | measurement_files.as_fields(row.measurement)


def comparison_csv(comparison: Comparison) -> str:
    """One line a file, figures as plain numbers: ``X``, its standard error ``X_err``, ``X_alike`` 1 where the difference
    from the first file's is inside the noise. What was not measured is empty."""
    lines = [_flat(row) for row in comparison.rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    own, gap = row.measurement, row.gaps.get(KLD)
    line: dict[str, Any] = {
        "name": row.name,
        "file_bytes": own.file_bytes,
        "shrinkage": row.shrinkage,
        "bpw": own.bpw,
        "layers": row.blocks,
        "weights": row.elements,
        "ppl_correlation": own.ppl_correlation,
        "kld_ratio": finite(row.kld_ratio),
        "kld_ratio_low": finite(row.low),
        "kld_ratio_high": finite(row.high),
        "kld_difference": gap.difference if gap else None,
        "kld_difference_low": gap.low if gap else None,
        "kld_difference_high": gap.high if gap else None,
        "windows_needed": row.chunks_needed,
    }
    for name, figure in _figures(row).items():
        line |= {name: figure.value, f"{name}_err": figure.stderr, f"{name}_alike": int(row.alike(name))}
    return line


def _figures(row: Row) -> dict[str, Estimate]:
    own = row.measurement
    found = {"ppl": own.ppl, "kld": own.kld, "rms_dp": own.rms_dp, "same_top": own.same_top}
    found |= {score.task: score.score for score in row.tasks}
    if row.average:
        found["average"] = row.average
    return found | {test.name: test.speed for test in (row.throughput.tests if row.throughput else ())}
