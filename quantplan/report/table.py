"""A table as a value, and its renderers: terminal, Markdown, a web page, CSV. What is in it is decided elsewhere."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from quantplan.report import markdown

if TYPE_CHECKING:
    import rich.table
    from rich.console import JustifyMethod

T = TypeVar("T")
Columns = Sequence[tuple[str, Callable[[T], str]]]  # heading, cell

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #8886;text-align:right;"
    "white-space:nowrap}th:first-child,td:first-child,.text{text-align:left}thead th{border-bottom:2px solid}"
    "p.note{opacity:.75;margin:.2rem 0}:root{color-scheme:light dark}div.wide{overflow-x:auto}"
)
_NAME_WIDTH = 16  # characters that the first column keeps on a narrow terminal


@dataclass(frozen=True)
class Table:
    """``rows`` are as long as ``headings``; ``notes`` follow the table. ``texts``: columns aligned to the left; ``totals``:
    number of last rows that are set off.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    texts: tuple[int, ...] = (0,)
    totals: int = 0


def table_of(
    title: str, columns: Columns[T], items: Iterable[T], notes: Iterable[str] = (), texts: tuple[int, ...] = (0,)
) -> Table:
    """One row an item, one column a (heading, function of the item)."""
    rows = tuple(tuple(cell(item) for _, cell in columns) for item in items)
    return Table(title, tuple(heading for heading, _ in columns), rows, tuple(notes), texts)


def as_rich(table: Table) -> "rich.table.Table":
    """For a terminal: framed where it has a title. All of it is plain text: ``[i1-Q4_K_M]`` in a name is no markup."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title, "table.title") if table.title else None,
        title_justify="left",
        caption=Text("\n".join(table.notes), "table.caption") if table.notes else None,
        caption_justify="left",
        box=box.HEAVY_HEAD if table.title else None,
        header_style="bold",
    )
    for index, heading in enumerate(table.headings):
        justify: JustifyMethod = "left" if index in table.texts else "right"
        if index == 0:
            shown.add_column(Text(heading), justify=justify, overflow="fold", min_width=_least_width(table))
        else:
            shown.add_column(Text(heading), justify=justify, no_wrap=True)
    for number, row in enumerate(table.rows, 1):
        shown.add_row(*map(Text, row), end_section=number == len(table.rows) - table.totals)
    return shown


def _least_width(table: Table) -> int:
    return min(_NAME_WIDTH, max(len(cell) for cell in (table.headings[0], *(row[0] for row in table.rows))))


def as_markdown(tables: Sequence[Table], closing: str) -> str:
    """Sections of a model card: heading, table, notes; ``closing`` at the end."""
    return "\n\n".join([*(_section(table) for table in tables), closing]) + "\n"


def _section(table: Table) -> str:
    body = markdown.table(table.headings, table.rows, table.texts)
    return "\n\n".join([*([f"### {table.title}"] if table.title else []), body, *table.notes])


def as_card_section(table: Table) -> str:
    """The same with a smaller heading, for tables whose texts come from anywhere: all of them are taken literally."""
    headings, *rows = ([*map(markdown.escaped, line)] for line in (table.headings, *table.rows))
    body = markdown.table(headings, rows, table.texts)
    return "\n\n".join([f"#### {markdown.escaped(table.title)}", body, *map(markdown.escaped, table.notes)])


def as_html(tables: Sequence[Table], title: str, closing: str) -> str:
    """A page without script, font or picture from anywhere."""
    sections = "\n".join(_html(table) for table in tables)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n<p>{escape(closing)}</p>\n{sections}\n</body></html>\n"
    )


def _html(table: Table) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="text"' if index and index in table.texts else "" for index in range(len(row))]
        cells = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(line("td", row) for row in table.rows)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table><thead>{line("th", table.headings)}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n{notes}"
    )


def as_csv(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Plain values, one line a row under the names of the fields."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
