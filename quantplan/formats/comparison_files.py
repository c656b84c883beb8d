"""Comparisons as JSON, for programs that read a verdict. See docs/formats.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantplan.comparison import Comparison, Row
from quantplan.formats.measurement_files import as_fields
from quantplan.formats.records import finite, write_record

COMPARISON_FORMAT, COMPARISON_VERSION = "quantplan-comparison", 1  # 1: first


def comparison_fields(comparison: Comparison) -> dict[str, Any]:
    """``rows`` with all figures of each file, and the ``verdict``. A ratio without end is null."""
    return {"rows": [_row(row) for row in comparison.rows], "verdict": comparison.verdict}


def write_comparison(comparison: Comparison, path: Path) -> None:
    write_record(path, COMPARISON_FORMAT, COMPARISON_VERSION, comparison_fields(comparison))


def _row(row: Row) -> dict[str, Any]:
    own = {
        "name": row.name,
        "kld_ratio": finite(row.kld_ratio),
        "kld_ratio_low": finite(row.low),
        "kld_ratio_high": finite(row.high),
        "size_difference": row.size_difference,
        "larger": row.larger,
        "told_apart": row.told_apart,
        "windows_needed": row.windows_needed,
    }
    return own | as_fields(row.measurement)
