"""The sizes of a card's files next to those of other publishers, and how much smaller they are."""

from collections.abc import Iterable, Sequence

from quantplan.comparison import Row
from quantplan.evaluate.other_publishers import OtherFile, quant_of
from quantplan.evaluate.published_files import PublishedFile
from quantplan.evaluate.significance import kld_gap
from quantplan.llamacpp.quantize import looks_like_ftype
from quantplan.measurement import Conditions, Measurement
from quantplan.report.card_data import CardData
from quantplan.report.cells import UNKNOWN, estimate, percent
from quantplan.report.markdown import code, escaped, table

STOCK = "llama.cpp"  # the publisher of stock quants
_GB = 1e9


def sizes(data: CardData) -> list[str]:
    """Parts of Markdown: a row for each file and each further quant of others, a column for each publisher."""
    others = [*data.others, *_stock_quants(data)]
    publishers = list(dict.fromkeys(other.publisher for other in others))
    conditions, measured = data.comparable()
    rows = [
        [
            code(file.name),
            *(_cell(others, publisher, quant, conditions) for publisher in publishers),
            _size(file.file_bytes, measured.get(file.name)),
            percent(1 - file.file_bytes / file.bytes_at_16_bits, 1),
            *([_than_theirs(file, quant, others)] if others else []),
            *([_at_the_same_kld(file, measured.get(file.name), others, conditions)] if others else []),
        ]
        for file, quant in ((file, own_quant(file)) for file in data.files)
    ]
    rows += _further(data, others, publishers, conditions)
    headings = ["File or quant", *map(escaped, publishers), "This repository", "Smaller than F16"]
    headings += ["Smaller than theirs", "Smaller at the same KLD"] if others else []
    return [table(headings, rows, texts=(0,)), " ".join(_notes(others, conditions))]


def own_quant(file: PublishedFile) -> str:
    """The quant of others that it stands next to: the stock quant that it is or has the size of, else what its name says."""
    asked = file.plan.budget_asked.upper() if file.plan else ""
    return file.stock_quant or (asked if looks_like_ftype(asked) else quant_of(file.name))


def _stock_quants(data: CardData) -> list[OtherFile]:
    """Those that the files were compared with."""
    known = {file.digest for file in data.files} | {other.digest for other in data.others}
    rows = [row for comparison in data.compared for row in comparison.rows if looks_like_ftype(row.name)]
    by_digest: dict[str, list[Row]] = {}
    for row in rows:
        by_digest.setdefault(row.measurement.model_digest, []).append(row)
    return [
        OtherFile(STOCK, own[0].name, own[0].measurement.file_bytes, digest, tuple(row.measurement for row in own))
        for digest, own in by_digest.items()
        if digest not in known
    ]


def _further(
    data: CardData, others: Sequence[OtherFile], publishers: Sequence[str], conditions: Conditions | None
) -> list[list[str]]:
    """Rows of quants that no file of ours stands for, from the smallest."""
    ours = {own_quant(file) for file in data.files}
    by_size = sorted(others, key=lambda other: other.file_bytes)
    quants = dict.fromkeys(other.quant for other in by_size if other.quant not in ours)
    return [
        [escaped(quant), *(_cell(others, publisher, quant, conditions) for publisher in publishers), *[UNKNOWN] * 4]
        for quant in quants
    ]


def _cell(others: Iterable[OtherFile], publisher: str, quant: str, conditions: Conditions | None) -> str:
    files = [other for other in others if (other.publisher, other.quant) == (publisher, quant)]
    return ", ".join(_size(file.file_bytes, _under(file, conditions)) for file in files) or UNKNOWN


def _size(file_bytes: int, measured: Measurement | None) -> str:
    size = f"{file_bytes / _GB:.{2 if file_bytes >= _GB else 4}f}"
    return f"{size} (KLD {estimate(measured.kld)})" if measured else size


def _under(other: OtherFile, conditions: Conditions | None) -> Measurement | None:
    """What was measured of it under the conditions of our own files."""
    return next((measured for measured in other.measured if measured.conditions == conditions), None)


def _than_theirs(file: PublishedFile, quant: str, others: Iterable[OtherFile]) -> str:
    """Against the smallest file of others of the same quant."""
    sizes = [other.file_bytes for other in others if other.quant == quant]
    return percent(1 - file.file_bytes / min(sizes), 1) if sizes else UNKNOWN


def _at_the_same_kld(
    file: PublishedFile, measured: Measurement | None, others: Sequence[OtherFile], conditions: Conditions | None
) -> str:
    """Against the smallest file of others whose KLD is not significantly higher."""
    known = [(other, theirs) for other in others if (theirs := _under(other, conditions))]
    if measured is None or not known:
        return UNKNOWN
    gaps = [(other, kld_gap(theirs, measured)) for other, theirs in known]
    as_good = [other for other, gap in gaps if gap and not (gap.decided and gap.difference > 0)]
    if not as_good:
        return "none of them has as low a KLD" if all(gap for _, gap in gaps) else UNKNOWN
    best = min(as_good, key=lambda other: other.file_bytes)
    return (
        f"{percent(1 - file.file_bytes / best.file_bytes, 1)} than {escaped(best.quant)} of {escaped(best.publisher)}"
    )


def _notes(others: Sequence[OtherFile], conditions: Conditions | None) -> list[str]:
    notes = ["Sizes in GB. F16: the model with all matrices in 16 bits."]
    if others:
        notes.append(
            "Theirs: the smallest file of that quant. The same KLD: against the smallest file of others whose KLD is not "
            "significantly higher (p > 0.05, paired by chunk); below 0 that file is smaller still."
        )
    if any(not _under(other, conditions) for other in others):
        notes.append("Files without a KLD were not measured on this text.")
    return notes
