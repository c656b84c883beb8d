"""What a model takes in VRAM and RAM, as a table."""

from collections.abc import Sequence
from typing import Any

from quantplan.devices.largest_context import LargestContext, Machine
from quantplan.devices.memory import Figure, MemoryUse
from quantplan.report.cells import UNKNOWN, gibibytes
from quantplan.report.table import Columns, Table, table_of

_MARK = "*"
_REASONS = 3  # reasons for refused pairs that are shown


def memory_table(uses: Sequence[MemoryUse], title: str) -> Table:
    """One row a context; figures that were computed, not asked of llama.cpp, have a star."""
    return table_of(f"{title}, GiB", _COLUMNS, uses, texts=())


def _gpu_buffers(use: MemoryUse) -> str:
    crossing = [use.needs.crossing] if use.largest_moved else []
    return _starred(use.gpu_buffers, [use.needs.compute_buffer, *crossing])


def _cpu_buffers(use: MemoryUse) -> str:
    crossing = [use.needs.crossing] if use.largest_moved else []
    return _starred(use.cpu_buffers, [use.needs.host_buffer, *crossing])


_COLUMNS: Columns[MemoryUse] = (
    ("Context", lambda use: f"{use.needs.ctx:,}"),
    ("VRAM weights", lambda use: gibibytes(use.gpu_weights)),
    ("KV cache", lambda use: _starred(use.needs.kv_cache.bytes, [use.needs.kv_cache])),
    ("Buffers", _gpu_buffers),
    ("VRAM", lambda use: gibibytes(use.vram)),
    ("RAM weights", lambda use: gibibytes(use.cpu_weights)),
    ("Buffers", _cpu_buffers),
    ("RAM", lambda use: gibibytes(use.ram)),
)


def memory_notes(uses: Sequence[MemoryUse]) -> list[str]:
    """Where the figures of the first row come from, a line each."""
    needs = uses[0].needs
    figures = {"KV cache": needs.kv_cache, "VRAM buffers": needs.compute_buffer, "RAM buffers": needs.host_buffer}
    lines = [f"{name}: {figure.source}, {figure.how}" for name, figure in figures.items()]
    if uses[0].largest_moved:
        lines.append(f"moved tensors: computed, {needs.crossing.how}; in VRAM a copy of the largest one, too")
    return lines


def memory_fields(use: MemoryUse) -> dict[str, Any]:
    """The row of one context as JSON has it, in bytes."""
    needs = use.needs
    return {
        "ctx": needs.ctx,
        "kv": [type_.name.lower() for type_ in needs.kv],
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
        "not_asked": None,  # version 1 said here why llama.cpp was not asked; now that is an error
    }


def largest_table(name: str, machine: Machine, found: Sequence[LargestContext]) -> Table:
    """The largest contexts, a row for each type of K and a column for each of V."""
    by_types = {each.kv: each for each in found}
    keys, values = (list(dict.fromkeys(each.kv[which] for each in found)) for which in (0, 1))
    rows = tuple((key.name.lower(), *(_context(by_types.get((key, value))) for value in values)) for key in keys)
    notes = ["Rows: type of K; columns: type of V."]
    notes += sorted({f"{UNKNOWN}: {each.refused}" for each in found if each.refused})[:_REASONS]
    return Table(
        f"{name}: largest context within {gibibytes(machine.vram)} GiB of VRAM, tokens",
        ("K \\ V", *(value.name.lower() for value in values)),
        rows,
        tuple(notes),
    )


def _context(largest: LargestContext | None) -> str:
    return UNKNOWN if largest is None or largest.refused else f"{largest.ctx:,}"


def largest_fields(machine: Machine, found: Sequence[LargestContext]) -> dict[str, Any]:
    """The same as JSON: for each pair of types the context, what it takes, or why llama.cpp refuses the pair."""
    return {
        "vram": machine.vram,
        "pairs": [
            {
                "kv": [quant.name.lower() for quant in each.kv],
                "ctx": None if each.refused else each.ctx,
                "used": each.use.vram if each.use else None,
                "refused": each.refused or None,
            }
            for each in found
        ],
    }


def _starred(size: int, figures: Sequence[Figure]) -> str:
    return gibibytes(size) + ("" if all(figure.asked for figure in figures) else _MARK)


def _figure(figure: Figure) -> dict[str, Any]:
    return {"bytes": figure.bytes, "source": figure.source, "how": figure.how}
