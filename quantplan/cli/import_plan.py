"""`quantplan import`: what others publish as a plan, or as a sensitivity table."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import command, json_option, option, out_option
from quantplan.cli.option_groups import ImatrixOptions, ModelOptions
from quantplan.cli.plan_output import default_plan_path, print_plan
from quantplan.planning.request import quantizable
from quantplan.planning.score import scored
from quantplan.recipes.import_plan import import_file
from quantplan.recipes.import_sensitivities import ImportedSensitivities, ImportTarget, sensitivity_table
from quantplan.recipes.published_sensitivities import looks_like_sensitivities, read_published
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES
from quantplan.text_files import is_gguf, read_text_file

_SUFFIXES = (".gguf", ".txt", ".recipe", ".sh", ".md")  # others may be part of a name, as in GLM-4.5
_PLAN, _TABLE = "A plan", "A sensitivity table"  # panels


class ImportResult(str, Enum):
    """What becomes of the file."""

    auto = "auto"
    plan = "plan"
    sensitivity = "sensitivity"


class Fill(str, Enum):
    """What tensors without a measurement get."""

    role = "role"
    max = "max"


@dataclass(frozen=True)
class TableOptions:
    """For published KLDs."""

    panel: ClassVar[str] = _TABLE
    curve: Path | None = option("What types cost relative to each other: group0/kld_results.csv.")
    groups: Path | None = option("Which tensors were measured together.")
    row: str | None = option("The type that tensors were degraded to.")
    fill: Fill | None = option(
        "Fill missing tensors: role = mean of the nearest blocks of the same role, max = the largest value measured."
    )
    whole_groups: bool = option("Each tensor of a group counts the group's KLD, not its share.", default=False)


@command
def import_plan(
    file: Annotated[
        Path,
        typer.Argument(
            help="LAYER_TYPES, rules of any form, a recipe, a quantized GGUF (hf:// too), or published KLDs."
        ),
    ],
    model: ModelOptions,
    imatrix: ImatrixOptions,
    table: TableOptions,
    result: ImportResult = option(
        "Import as a plan or as a sensitivity table (auto: by the file).", "--as", default=ImportResult.auto
    ),
    stock_quant: str | None = option("Stock quant (Q4_K_M ...) that decides what the file leaves open.", panel=_PLAN),
    nearest: bool = option(
        "Take the nearest type for each that llama.cpp does not have, with a warning.", default=False, panel=_PLAN
    ),
    sensitivity: Path | None = option("Sensitivity table that predicts the plan's KLD.", panel=_PLAN, metavar="FILE"),
    out: Path | None = out_option("File to write (default: plans/MODEL-FILE.json)."),
    as_json: bool = json_option(),
) -> None:
    """Turn LAYER_TYPES, rules, a recipe or a quantized GGUF into a plan, or published KLDs into a sensitivity table.

    The plan has the exact size of the file that `quantplan quantize` will build, and with --sensitivity its expected KLD.
    Models may be given as a header without weights.

    Example: quantplan emit plans/prose-10m-q4_k_m.json --out rules.txt && quantplan import rules.txt
    """
    path = options.local(file)
    if result is ImportResult.sensitivity or (result is ImportResult.auto and _is_table(path)):
        _import_table(path, model.file, table, out, as_json)
        return
    source = options.model(model.file)
    imported = import_file(path, source, options.imatrix(imatrix.imatrix, source), stock_quant, nearest)
    for warning in imported.warnings:
        console.warn(warning)
    plan = scored(imported.plan, SENSITIVITY_TABLES.read(sensitivity), source) if sensitivity else imported.plan
    target = out or default_plan_path(source, path.stem if path.suffix in _SUFFIXES else path.name)
    PLANS.write(plan, target)
    print_plan(plan, source, target, as_json)


def _is_table(file: Path) -> bool:
    return not is_gguf(file) and looks_like_sensitivities(read_text_file(file, "a plan's source or a table of KLDs"))


def _import_table(file: Path, model: Path | None, how: TableOptions, out: Path | None, as_json: bool) -> None:
    target = _target(model)
    published = read_published(file, how.curve, how.groups, how.row)
    imported = sensitivity_table(published, target, how.fill.value if how.fill else None, not how.whole_groups)
    for warning in imported.warnings:
        console.warn(warning)
    path = out or Path(f"{file.stem}-damage.json")
    SENSITIVITY_TABLES.write(imported.table, path)
    _print_table(imported, target, path, as_json)


def _target(model: Path | None) -> ImportTarget | None:
    """The model, if there is one: a table may do without."""
    if model is None and options.project() is None:
        return None
    source = options.model(model)
    return ImportTarget(source, quantizable(source))


def _print_table(imported: ImportedSensitivities, target: ImportTarget | None, path: Path, as_json: bool) -> None:
    rows = imported.table.rows.values()
    types = list(dict.fromkeys(name for row in rows for name in row.weights))
    filled = sum(row.source == "borrowed" for row in rows)
    if as_json:
        figures = {"damage": str(path), "tensors": len(rows), "types": types, "borrowed": filled}
        console.put_json(figures | {"model_digest": imported.table.model_digest})
        return
    pinned = target and imported.table.model_digest
    console.put(f"tensors   {len(rows)}" + (f", {filled} of them filled in" if filled else ""))
    console.put(f"types     {', '.join(types)}")
    console.put(f"model     {target.model.path if target and pinned else 'any with these tensors'}")
    console.put(f"table     {path}")
