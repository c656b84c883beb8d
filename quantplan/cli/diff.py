"""`quantplan diff`: two plans or GGUFs, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options

if TYPE_CHECKING:
    from quantplan.planning.tensor_types import TensorTypes
    from quantplan.sensitivity_table import SensitivityTable

_FileArgument = Annotated[
    Path, typer.Argument(help="A plan (.json) or a GGUF of the same model, hf:// too.", show_default=False)
]


def diff(
    one: _FileArgument,
    other: _FileArgument,
    damage: Annotated[
        Path | None, typer.Option("--damage", help="Damage table to judge both by (default: a plan's own).")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show tensors that are stored alike, too.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show where two plans or GGUFs of one model differ, tensor by tensor: types, bytes and expected damage.

    Only headers are read. Damage comes from --damage, else from the table that one of the plans was made from, while
    the cache has it; without one, types and bytes are shown.

    Example: quantplan diff plans/prose-10m-q4_k_m.json prose-10m-f16.gguf
    """
    from quantplan.planning.difference import difference
    from quantplan.planning.tensor_types import read_tensor_types
    from quantplan.report.difference_table import difference_fields, difference_table

    one, other = options.local(one), options.local(other)
    both = (read_tensor_types(one), read_tensor_types(other))
    found = difference(*both, _table(damage, both))
    if as_json:
        console.put_json(difference_fields(found, every))
        return
    console.put_table(difference_table(found, _names(one, other), every))
    console.put(f"{len(found.changed)} of {len(found.lines)} tensors differ")


def _names(one: Path, other: Path) -> tuple[str, str]:
    """Headings: file names where they tell the two apart."""
    return (one.stem, other.stem) if one.stem != other.stem else (str(one), str(other))


def _table(damage: Path | None, both: tuple[TensorTypes, TensorTypes]) -> SensitivityTable | None:
    from quantplan.errors import BadFile
    from quantplan.planning.request import table_of
    from quantplan.records.formats import SENSITIVITY_TABLES

    if damage is not None:
        return SENSITIVITY_TABLES.read(damage)
    reasons = []
    for plan in (each.plan for each in both if each.plan):
        try:
            return table_of(plan, options.cache_folder())
        except BadFile as error:
            reasons.append(str(error))
    if reasons:
        console.say(f"no damage is shown: {reasons[0]}")
    return None
