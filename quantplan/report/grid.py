"""Tables of text as they go to a terminal, into Markdown and into a web page. What stands in them is decided elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #8886;text-align:right;"
    "white-space:nowrap}th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid}"
    "p.note{opacity:.75;margin:.2rem 0}:root{color-scheme:light dark}div.wide{overflow-x:auto}"
)


@dataclass(frozen=True)
class Grid:
    """``rows`` are as long as ``headings``; the first column names the row. ``notes`` stand below."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def as_rich(grid: Grid) -> Table:
    from rich.table import Table

    table = Table(title=grid.title, title_justify="left", caption="\n".join(grid.notes) or None, caption_justify="left")
    table.add_column(grid.headings[0], overflow="fold", min_width=16)
    for heading in grid.headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    return table


def as_markdown(grids: Sequence[Grid], closing: str) -> str:
    """Sections of a model card: heading, table, notes; ``closing`` at the end."""
    return "\n".join(line for grid in grids for line in _markdown(grid)) + f"\n{closing}\n"


def _markdown(grid: Grid) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---", *["---:"] * (len(grid.headings) - 1)]
    notes = [line for note in grid.notes for line in (note, "")]
    return [f"### {grid.title}", "", line(grid.headings), line(rule), *map(line, grid.rows), "", *notes]


def as_html(grids: Sequence[Grid], title: str, closing: str) -> str:
    """A page that needs nothing else: no script, no font, no picture from anywhere."""
    sections = "\n".join(_html(grid) for grid in grids)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n<p>{escape(closing)}</p>\n{sections}\n</body></html>\n"
    )


def _html(grid: Grid) -> str:
    def cells(kind: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row) + "</tr>"

    body = "\n".join(cells("td", row) for row in grid.rows)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in grid.notes)
    return (
        f'<h2>{escape(grid.title)}</h2>\n<div class="wide"><table><thead>{cells("th", grid.headings)}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n{notes}"
    )
