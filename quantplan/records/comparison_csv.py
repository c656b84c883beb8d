"""Comparisons as CSV, for programs that read them. See docs/formats.md."""

import csv
import io
from typing import Any

from quantplan.comparison import KLD, Comparison, Row, of_domain
from quantplan.measurement import Estimate
from quantplan.records.codec import finite


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
        "bytes_per_token": own.bytes_per_token,
        "layers": row.blocks,
        "weights": row.elements,
        "ppl_correlation": own.ppl_correlation,
        "kld_ratio": finite(row.kld_ratio),
        "kld_ratio_low": finite(row.low),
        "kld_ratio_high": finite(row.high),
        "kld_difference": gap.difference if gap else None,
        "kld_difference_low": finite(gap.low) if gap else None,
        "kld_difference_high": finite(gap.high) if gap else None,
        "windows_needed": row.chunks_needed,
    }
    for name, figure in _figures(row).items():
        line |= {name: figure.value, f"{name}_err": figure.stderr, f"{name}_alike": int(row.alike(name))}
    return line


def _figures(row: Row) -> dict[str, Estimate]:
    own = row.measurement
    found = {"ppl": own.ppl, "kld": own.kld, "rms_dp": own.rms_dp, "same_top": own.same_top}
    found |= {score.task: score.score for score in row.tasks}
    found |= {of_domain(domain.name): domain.kld for domain in own.domains}
    if row.average:
        found["average"] = row.average
    return found | {test.name: test.speed for test in (row.throughput.tests if row.throughput else ())}
