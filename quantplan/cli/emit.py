"""quantplan emit: a plan in the words of other tools."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options


class EmitFormat(str, Enum):
    """What a plan can be written as."""

    tensor_types = "tensor-types"
    args = "args"
    layer_types = "layer-types"
    custom_q = "custom-q"
    recipe = "recipe"


def emit(
    plan: Annotated[Path, typer.Argument(help="A plan file.")],
    form: Annotated[
        EmitFormat,
        typer.Option(
            "--as",
            help="A rules file, a llama-quantize command line, LAYER_TYPES, --custom-q of ik_llama.cpp, or a recipe "
            "of GGUF-Tool-Suite.",
        ),
    ] = EmitFormat.tensor_types,
    model: options.ModelOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write there instead of to stdout.")] = None,
) -> None:
    """Write a plan as rules for llama-quantize, as its whole command line, as LAYER_TYPES, or for ik_llama.cpp.

    The rules are few, anchored and disjoint: they mean the same whichever match wins. A type that the other tool lacks is
    refused by name.

    Example: quantplan emit plans/prose-10m-q4_k_m.json --as args
    """
    from quantplan.recipes.emit import plan_text
    from quantplan.records.files import replacing
    from quantplan.records.formats import PLANS

    text = plan_text(PLANS.read(plan), form.value, model and options.local(model))
    if out is None:
        console.put(text.removesuffix("\n"))
        return
    with replacing(out) as file:
        file.write(text)
    console.say(f"wrote {out}")
