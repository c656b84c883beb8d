"""`quantplan emit`: a plan in the languages of other tools."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console
from quantplan.cli.framework import command, json_option, option, out_option
from quantplan.cli.option_groups import ModelOptions
from quantplan.recipes.emit import alignment_note, plan_text
from quantplan.records.files import replacing
from quantplan.records.formats import PLANS
from quantplan.report.rounding import rounding_fields, rules_note


class EmitFormat(str, Enum):
    """What a plan can be written as."""

    tensor_types = "tensor-types"
    args = "args"
    layer_types = "layer-types"
    custom_q = "custom-q"
    recipe = "recipe"


@command
def emit(
    plan: Annotated[Path, typer.Argument(help="A plan file.")],
    model: ModelOptions,
    form: EmitFormat = option(
        "A --tensor-type-file, a llama-quantize command line, LAYER_TYPES, --custom-q of ik_llama.cpp, or a recipe "
        "of GGUF-Tool-Suite.",
        "--as",
        default=EmitFormat.tensor_types,
    ),
    out: Path | None = out_option("Write to this file instead of stdout."),
    as_json: bool = json_option(),
) -> None:
    """Write a plan as rules for llama-quantize, as its whole command line, as LAYER_TYPES, or for ik_llama.cpp.

    The rules are few, anchored and disjoint: they mean the same whichever match wins. A type that the other tool does not
    have is refused by name.

    Example: quantplan emit plans/prose-10m-q4_k_m.json --as args
    """
    source = PLANS.read(plan)
    text = plan_text(source, form.value, model.file)
    aligned = alignment_note(source, model.file) if form is not EmitFormat.args else None
    for note in filter(None, (rules_note(len(source.compensated)), aligned)):
        console.warn(note)
    if out is not None:
        with replacing(out) as file:
            file.write(text)
        console.say(f"wrote {out}")
    if as_json:
        fields = {"plan": str(plan), "as": form.value, "out": str(out) if out else None, "text": text}
        console.put_json(fields | {"rounding": rounding_fields(source)})
    elif out is None:
        console.put(text.removesuffix("\n"))
