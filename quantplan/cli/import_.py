"""quantplan import: what others publish as a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.plan_output import default_plan_path, print_plan


def import_plan(
    file: Annotated[Path, typer.Argument(help="LAYER_TYPES text, --tensor-type rules, or a quantized GGUF.")],
    model: options.ModelOption = None,
    imatrix: options.ImatrixOption = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="FTYPE (Q4_K_M ...) whose mix decides what the text leaves open."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Plan file (default: plans/MODEL-FILE.json).")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Turn a LAYER_TYPES text, --tensor-type rules or a quantized GGUF into a plan.

    The plan has the exact size of the file that `quantplan quantize` will build. Models may be given as a
    header without weights.

    Example: quantplan emit plans/prose-10m-q4_k_m.json --out rules.txt && quantplan import rules.txt
    """
    from quantplan.formats.importing import import_file
    from quantplan.formats.plan_files import write_plan

    of = options.model(model)
    imported = import_file(file, of, options.imatrix(imatrix, of), base)
    for warning in imported.warnings:
        console.warn(warning)
    path = out or default_plan_path(of, file.name.removesuffix(".gguf").removesuffix(".txt"))
    write_plan(imported.plan, path)
    print_plan(imported.plan, of, path, as_json)
