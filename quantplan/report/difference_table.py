"""Two plans or files side by side."""

from quantplan.planning.difference import PlanDifference, TensorDifference
from quantplan.report.cells import UNKNOWN, number
from quantplan.report.rounding import rules_note
from quantplan.report.table import Table


def difference_table(difference: PlanDifference, names: tuple[str, str], every: bool) -> Table:
    """One row a tensor that differs (``every``: all tensors), the totals of the files in the last row."""
    headings = ("tensor", *names, "bytes", "bytes", "more", "damage", "damage", "more")
    rows = [
        (line.tensor, *_stored(line), *_bytes(line.bytes), *_damages(line.damage)) for line in _lines(difference, every)
    ]
    first, second = (None if kld is None else kld[0] for kld in difference.kld)
    total = ("file, expected KLD", "", "", *_bytes(difference.file_bytes), *_damages((first, second)))
    return Table("", headings, (*rows, total), texts=(0, 1, 2), totals=1)


def _stored(line: TensorDifference) -> tuple[str, str]:
    first, second = (
        f"{kind} compensated" if compensated else kind or UNKNOWN
        for kind, compensated in zip(line.types, line.compensated, strict=True)
    )
    return first, second


def rounding_lines(difference: PlanDifference, names: tuple[str, str]) -> list[str]:
    """How many tensors are compensated in each, where one has any, and what rules leave out."""
    counts = [sum(bool(line.compensated[at]) for line in difference.lines) for at in range(2)]
    if not any(counts):
        return []
    unknown = [any(line.compensated[at] is None for line in difference.lines) for at in range(2)]
    words = [
        f"{name}: {'not known, taken for stock' if is_unknown else f'{count} tensors compensated'}"
        for name, count, is_unknown in zip(names, counts, unknown, strict=True)
    ]
    return [f"rounding of {'; of '.join(words)}", rules_note(max(counts))]


def _lines(difference: PlanDifference, every: bool) -> tuple[TensorDifference, ...]:
    return difference.lines if every else difference.changed


def _bytes(pair: tuple[int, int]) -> tuple[str, str, str]:
    return f"{pair[0]:,}", f"{pair[1]:,}", f"{pair[1] - pair[0]:+,}"


def _damages(pair: tuple[float | None, float | None]) -> tuple[str, str, str]:
    first, second = pair
    more = UNKNOWN if first is None or second is None else f"{second - first:+.3g}"
    return number(first), number(second), more


def difference_fields(difference: PlanDifference, every: bool) -> dict[str, object]:
    return {
        "file_bytes": list(difference.file_bytes),
        "predicted_kld": [kld and kld[0] for kld in difference.kld],
        "predicted_kld_err": [kld and kld[1] for kld in difference.kld],
        "differing": len(difference.changed),
        "compensated": [sum(bool(line.compensated[at]) for line in difference.lines) for at in range(2)],
        "tensors": [_fields(line) for line in _lines(difference, every)],
    }


def _fields(line: TensorDifference) -> dict[str, object]:
    return {
        "name": line.tensor,
        "types": list(line.types),
        "bytes": list(line.bytes),
        "damage": list(line.damage),
        "compensated": list(line.compensated),
    }
