"""What a model takes in VRAM and RAM, as a table. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantplan.devices.memory import Figure, MemoryUse

if TYPE_CHECKING:
    from rich.table import Table

_HEADINGS = (
    "Context",
    "VRAM weights",
    "KV cache",
    "Buffers",
    "VRAM",
    "RAM weights",
    "Buffers",
    "RAM",
)
_GIB = 1 << 30
_MARK = "*"


def memory_table(uses: Sequence[MemoryUse], title: str) -> Table:
    """One row a context; figures that were computed, not asked of llama.cpp, have a star."""
    from rich.table import Table

    table = Table(title=f"{title}, GiB", title_justify="left")
    for index, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="right", no_wrap=True, style="bold" if index in (4, 7) else None)
    for use in uses:
        table.add_row(*memory_cells(use))
    return table


def memory_cells(use: MemoryUse) -> list[str]:
    """The row of one context, as text."""
    needs = use.needs
    gpu_buffers = [needs.compute_buffer, *([needs.crossing] if use.largest_moved else [])]
    cpu_buffers = [needs.host_buffer, *([needs.crossing] if use.largest_moved else [])]
    return [
        f"{needs.ctx:,}",
        gibibytes(use.gpu_weights),
        _starred(needs.kv_cache.bytes, [needs.kv_cache]),
        _starred(use.gpu_buffers, gpu_buffers),
        gibibytes(use.vram),
        gibibytes(use.cpu_weights),
        _starred(use.cpu_buffers, cpu_buffers),
        gibibytes(use.ram),
    ]


def memory_notes(uses: Sequence[MemoryUse]) -> list[str]:
    """Where the figures of the first row come from, a line each."""
    needs = uses[0].needs
    figures = {"KV cache": needs.kv_cache, "VRAM buffers": needs.compute_buffer, "RAM buffers": needs.host_buffer}
    lines = [f"{name}: {each.source}, {each.how}" for name, each in figures.items()]
    if uses[0].largest_moved:
        lines.append(f"moved tensors: computed, {needs.crossing.how}; in VRAM a copy of the largest one, too")
    return lines


def memory_fields(use: MemoryUse) -> dict[str, Any]:
    """The row of one context as JSON has it, in bytes."""
    needs = use.needs
    return {
        "ctx": needs.ctx,
        "kv": [kind.name.lower() for kind in needs.kv],
        "ubatch": needs.ubatch,
        "vram": use.vram,
        "ram": use.ram,
        "gpu_weights": use.gpu_weights,
        "cpu_weights": use.cpu_weights,
        "largest_moved": use.largest_moved,
        "kv_cache": _figure(needs.kv_cache),
        "compute_buffer": _figure(needs.compute_buffer),
        "host_buffer": _figure(needs.host_buffer),
        "crossing": _figure(needs.crossing),
        "not_asked": needs.not_asked or None,
    }


def gibibytes(size: int) -> str:
    return f"{size / _GIB:.2f}" if size >= _GIB else f"{size / _GIB:.3f}"


def _starred(size: int, figures: Sequence[Figure]) -> str:
    return gibibytes(size) + ("" if all(each.asked for each in figures) else _MARK)


def _figure(figure: Figure) -> dict[str, Any]:
    return {"bytes": figure.bytes, "source": figure.source, "how": figure.how}
