"""`quantplan diff`: two plans or GGUFs, tensor by tensor."""

from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import command, json_option, option
from quantplan.cli.option_groups import sensitivity_file_option
from quantplan.errors import BadFile
from quantplan.planning.difference import difference
from quantplan.planning.kept_tables import table_file, table_of
from quantplan.planning.tensor_types import TensorTypes, read_tensor_types
from quantplan.report.difference_table import difference_fields, difference_table, rounding_lines
from quantplan.sensitivity_table import SensitivityTable

_FileArgument = Annotated[
    Path, typer.Argument(help="A plan (.json) or a GGUF of the same model, hf:// too.", show_default=False)
]


@command
def diff(
    first: _FileArgument,
    second: _FileArgument,
    sensitivity: Path | None = sensitivity_file_option(),
    every: bool = option("Show tensors that are stored alike, too.", "--all", default=False),
    as_json: bool = json_option(),
) -> None:
    """Show where two plans or GGUFs of one model differ, tensor by tensor: types, rounding, bytes and expected KLD.

    Only headers are read; they do not tell how a GGUF was rounded, so its KLDs are those of llama-quantize's rounding. KLDs
    come from --sensitivity, else from the table that one of the plans was made from, while the cache has it; without one,
    types and bytes are shown.

    Example: quantplan diff plans/prose-10m-q4_k_m.json prose-10m-f16.gguf
    """
    paths = options.local(first), options.local(second)
    both = read_tensor_types(paths[0]), read_tensor_types(paths[1])
    found = difference(*both, _table(sensitivity, both))
    if as_json:
        console.put_json(difference_fields(found, every))
        return
    names = [path.stem for path in paths]
    headings = (names[0], names[1]) if names[0] != names[1] else (str(paths[0]), str(paths[1]))
    console.put_table(difference_table(found, headings, every))
    console.put(f"{len(found.changed)} of {len(found.lines)} tensors differ")
    for line in rounding_lines(found, headings):
        console.put(line)


def _table(option: Path | None, both: tuple[TensorTypes, TensorTypes]) -> SensitivityTable | None:
    if option is not None:
        with console.terminal() as report:
            return table_file(option, report)
    reasons = []
    for plan in (types.plan for types in both if types.plan):
        try:
            return table_of(plan, options.cache_folder())
        except BadFile as error:
            reasons.append(str(error))
    if reasons:
        console.say(f"no KLD is shown: {reasons[0]}")
    return None
