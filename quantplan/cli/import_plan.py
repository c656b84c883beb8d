"""quantplan import: what others publish as a plan, or as a damage table."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.plan_output import default_plan_path, print_plan

if TYPE_CHECKING:
    from quantplan.recipes.import_sensitivities import ImportedSensitivities, ImportTarget


_SUFFIXES = (".gguf", ".txt", ".recipe", ".sh", ".md")  # others may be part of a name, as in GLM-4.5


class ImportResult(str, Enum):
    """What becomes of the file."""

    auto = "auto"
    plan = "plan"
    damage = "damage"


class Fill(str, Enum):
    """Where tensors without a measurement take one from."""

    role = "role"
    most = "most"


def import_plan(
    file: Annotated[
        Path,
        typer.Argument(
            help="LAYER_TYPES, rules of any form, a recipe, a quantized GGUF (hf:// too), or published KLDs."
        ),
    ],
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    result: Annotated[
        ImportResult, typer.Option("--as", help="A plan or a damage table (auto: by the file).")
    ] = ImportResult.auto,
    base: Annotated[
        str | None,
        typer.Option("--base", help="FTYPE (Q4_K_M ...) whose mix decides what the text leaves open."),
    ] = None,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Take the nearest type for each that llama.cpp lacks, with a warning.")
    ] = False,
    damage: Annotated[
        Path | None, typer.Option("--damage", help="A damage table that predicts the plan's KLD.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option("--curve", help="Of a table of KLDs: what types cost, group0/kld_results.csv.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option("--groups", help="Of a table of KLDs: which tensors were measured together.")
    ] = None,
    row: Annotated[
        str | None, typer.Option("--row", help="Of a table of KLDs: the type that tensors were degraded to.")
    ] = None,
    fill: Annotated[
        Fill | None,
        typer.Option("--fill", help="Tensors without a measurement borrow of their role, or take the most there is."),
    ] = None,
    whole_groups: Annotated[
        bool, typer.Option("--whole-groups", help="Each tensor of a group counts the group's KLD, not its share.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Plan file (default: plans/MODEL-FILE.json).")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Turn LAYER_TYPES, rules, a recipe or a quantized GGUF into a plan, or published KLDs into a damage table.

    The plan has the exact size of the file that `quantplan quantize` will build, and with --damage the KLD that is expected
    of it. Models may be given as a header without weights.

    Example: quantplan emit plans/prose-10m-q4_k_m.json --out rules.txt && quantplan import rules.txt
    """
    file, model = options.local(file), options.local_or_hub(model, hub)
    if result is ImportResult.damage or (result is ImportResult.auto and _is_damage(file)):
        _import_damage(file, model, (curve, groups, row), fill and fill.value, whole_groups, out, as_json)
        return
    from quantplan.planning.score import scored
    from quantplan.recipes.import_plan import import_file
    from quantplan.records.formats import PLANS, SENSITIVITY_TABLES

    of = options.model(model)
    imported = import_file(file, of, options.imatrix(imatrix, of), base, nearest)
    for warning in imported.warnings:
        console.warn(warning)
    plan = scored(imported.plan, SENSITIVITY_TABLES.read(damage), of) if damage else imported.plan
    path = out or default_plan_path(of, file.stem if file.suffix in _SUFFIXES else file.name)
    PLANS.write(plan, path)
    print_plan(plan, of, path, as_json)


def _is_damage(file: Path) -> bool:
    from quantplan.recipes.published_sensitivities import looks_like_sensitivities

    try:
        return looks_like_sensitivities(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return False


def _import_damage(
    file: Path,
    model: Path | None,
    further: tuple[Path | None, Path | None, str | None],
    fill: str | None,
    whole_groups: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    from quantplan.recipes.import_sensitivities import sensitivity_table
    from quantplan.recipes.published_sensitivities import read_published
    from quantplan.records.formats import SENSITIVITY_TABLES

    target = _target(model)
    imported = sensitivity_table(read_published(file, *further), target, fill, not whole_groups)
    for warning in imported.warnings:
        console.warn(warning)
    path = out or Path(f"{file.stem}-damage.json")
    SENSITIVITY_TABLES.write(imported.table, path)
    _print_damage(imported, target, path, as_json)


def _target(model: Path | None) -> ImportTarget | None:
    """The model that is meant, if any: a table may do without."""
    if model is None and options.project() is None:
        return None
    from quantplan.planning.request import quantizable
    from quantplan.recipes.import_sensitivities import ImportTarget

    of = options.model(model)
    return ImportTarget(of, quantizable(of))


def _print_damage(imported: ImportedSensitivities, target: ImportTarget | None, path: Path, as_json: bool) -> None:
    rows = imported.table.rows.values()
    kinds = list(dict.fromkeys(kind for each in rows for kind in each.weights))
    borrowed = sum(each.source == "borrowed" for each in rows)
    if as_json:
        figures = {"damage": str(path), "tensors": len(rows), "types": kinds, "borrowed": borrowed}
        console.put_json(figures | {"model_digest": imported.table.model_digest})
        return
    console.put(f"tensors   {len(rows)}" + (f", {borrowed} of them borrowed" if borrowed else ""))
    console.put(f"types     {', '.join(kinds)}")
    console.put(
        f"model     {target.model.path}"
        if target and imported.table.model_digest
        else "model     any with these tensors"
    )
    console.put(f"damage    {path}")
