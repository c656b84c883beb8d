"""quantplan surgery apply: the edits of a text made to a model."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantplan.cli import console, options
from quantplan.surgery import edits as grammar

if TYPE_CHECKING:
    from quantplan.imatrix import Imatrix
    from quantplan.plan import Plan
    from quantplan.surgery.layer_map import LayerMap
    from quantplan.surgery.operation import Operation
    from quantplan.surgery.products import OperationOptions, Products
    from quantplan.tensor import Model

_LONGEST_NAME = 60  # of the edits in a file name


def _forms() -> str:
    """The grammar as the library has it, a form and what it does a line, folded for narrow terminals."""
    lines = (grammar.__doc__ or "").partition("\n\n")[2].strip().splitlines()
    pairs = (re.split(r"\s{2,}", line, maxsplit=1) for line in lines)
    return "\n".join(
        textwrap.fill(what, 78, initial_indent=form.ljust(19), subsequent_indent=" " * 19) for form, what in pairs
    )


HELP = (
    "Delete, repeat, move, swap, blend and scale layers of a GGUF, and write the result.\n\n"
    "Layers are counted from 0, each edit counts them as the one before left them. Copied layers keep their bytes, whatever "
    "they are stored as; blended and scaled ones are encoded anew. The result is read back and run by llama.cpp before it is "
    "there; the layer map is kept beside it as OUT.layers.json, which can be given in place of the edits.\n\n"
    "\b\n" + _forms() + "\n\n"
    'Example: quantplan surgery apply prose-10m-f16.gguf "delete 3; swap 3 4" --dry-run'
)


def apply(
    model: Annotated[Path, typer.Argument(help="GGUF model (any shard of a split one), or hf://owner/repo/file.")],
    edits: Annotated[
        str, typer.Argument(help='Edits with ";" between them, a file with them, a .layers.json, or a .surgery.json.')
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write (default: MODEL-EDITS.gguf in this folder).")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", help="The model's importance matrix: follows as OUT.imatrix.gguf.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan of the model: follows as OUT.plan.json.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the new model in its metadata (default: as it was).")
    ] = None,
    split_max_size: Annotated[
        str | None, typer.Option("--split-max-size", help="Write shards of at most this size: 5G, 500M.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what the rules for the architecture cannot vouch for.")
    ] = False,
    threads: options.ThreadsOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the layer map, the exact size and what is encoded anew, and stop.")
    ] = False,
    as_json: options.JsonOption = False,
) -> None:
    from quantplan.build.preflight import check_apart
    from quantplan.gguf.reader import read_model
    from quantplan.surgery.edit_sources import edits_file_of
    from quantplan.surgery.operation import operate
    from quantplan.surgery.products import OperationOptions, check_options

    source = read_model(options.local(model))
    text, layer_map = _edits(edits, source, force)
    weights, followed = _followed(imatrix, plan)
    orders = OperationOptions(
        text, out or default_out(source, text, layer_map), weights, followed, split_max_size, threads
    )
    check_options(source, orders)
    followers = (weights and orders.imatrix_file, followed and orders.plan_file)
    check_apart((orders.out, *followers), (weights and Path(weights.path), plan, edits_file_of(edits)))
    operation = operate(source, layer_map, imatrix=weights, name=name, skip_check=force)
    if layer_map.is_identity:
        console.warn("these edits leave every layer where it is")
    if dry_run:
        _show(operation, orders, as_json)
        return
    _write(operation, orders, as_json)


apply.__doc__ = HELP


def _edits(what: str, model: Model, force: bool) -> tuple[str, LayerMap]:
    """The edits as they are typed, and their map."""
    from quantplan.errors import BadUsage
    from quantplan.surgery.architectures.suggestions import checked_map
    from quantplan.surgery.edit_sources import edits_from
    from quantplan.surgery.edits import edits_text

    if not model.blocks:
        raise BadUsage(
            f"{model.path}: its header counts no layers ({model.architecture}.block_count); is it a language model?"
        )
    edits = edits_from(what, model)
    layer_map, _ = checked_map(model, edits, force)
    return edits_text(edits), layer_map


def _followed(imatrix: Path | None, plan: Path | None) -> tuple[Imatrix | None, Plan | None]:
    """Imatrix and plan that are to follow; a plan brings the imatrix that it was made with, where that is still there."""
    from quantplan.build.preflight import check_imatrix
    from quantplan.gguf.imatrix_files import read_imatrix
    from quantplan.records.formats import PLANS

    followed = PLANS.read(plan) if plan else None
    if followed and followed.imatrix:
        imatrix = imatrix or Path(followed.imatrix.path)
        check_imatrix(followed.imatrix, imatrix)
    return (read_imatrix(imatrix) if imatrix else None), followed


def default_out(model: Model, edits: str, layer_map: LayerMap) -> Path:
    """The model's file name with the edits in it, in the project's or this folder."""
    slug = re.sub(r"[^\w.]+", "-", re.sub(r";\s*", "_", edits)).strip("-")
    if len(slug) > _LONGEST_NAME:
        slug = f"edits-{layer_map.digest[:8]}"
    from quantplan.gguf.shards import model_stem

    stem = model_stem(model.path.name)
    here = options.project()
    return (here.folder if here else Path()) / f"{stem}-{slug}.gguf"


# --- printing


def _write(operation: Operation, orders: OperationOptions, as_json: bool) -> None:
    from quantplan.surgery.products import produce

    with console.terminal() as report:
        made = produce(operation, orders, report)
    for note in made.record.notes:
        console.warn(note)
    for left in (orders.imatrix_file, orders.plan_file):
        if left not in (made.imatrix_file, made.plan_file) and left.exists():
            console.warn(f"{left} was there before and did not follow: it may be another model's")
    if as_json:
        console.put_json(_json(operation, orders, made))
        return
    console.say(_counts(operation))
    console.say(_encoded(operation))
    beside = (made.record_file, made.imatrix_file, made.plan_file)
    console.say(f"beside it: {', '.join(path.name for path in beside if path)}")
    console.put(str(made.model.path))


def _show(operation: Operation, orders: OperationOptions, as_json: bool) -> None:
    if orders.shards:
        from quantplan.surgery.write_shards import check_shard_size

        check_shard_size(operation, orders.shards)
    for note in operation.notes:
        console.warn(note)
    if as_json:
        console.put_json(_json(operation, orders))
        return
    from quantplan.report.layer_table import layer_table

    console.put_table(layer_table(operation.layer_map, f"{operation.model.path.name}: {orders.edits}"))
    console.put(_counts(operation))
    console.put(f"file      {operation.file_bytes:,} bytes, the source has {operation.model.file_bytes:,}")
    console.put(_encoded(operation))
    console.put(f"writes    {orders.out}")


def _counts(operation: Operation) -> str:
    model = operation.model
    layers = f"layers    {model.blocks} -> {len(operation.layer_map)}"
    return f"{layers}, parameters {model.elements:,} -> {operation.elements:,}"


def _encoded(operation: Operation) -> str:
    anew = operation.reencoded
    if not anew:
        return f"tensors   {len(operation.tensors)}, all copied byte for byte"
    size = sum(part.bytes for part in anew)
    kinds = ", ".join(sorted({part.type.name for part in anew}))
    return f"tensors   {len(operation.tensors)}, {len(anew)} of them encoded anew as {kinds} ({size:,} bytes), the others copied"


def _json(operation: Operation, orders: OperationOptions, made: Products | None = None) -> dict[str, Any]:
    from dataclasses import asdict

    from quantplan.surgery.layer_map_files import layers_content
    from quantplan.surgery.products import reencoded_record

    def path(file: Path | None) -> str | None:
        return str(file) if file else None

    model, record = operation.model, made.record if made else None
    return {
        "out": str(made.model.path if made else orders.out),
        "written": made is not None,
        "edits": orders.edits,
        "map": str(operation.layer_map),
        "original": model.blocks,
        "layers": layers_content(operation.layer_map),
        "layers_after": len(operation.layer_map),
        "parameters_before": model.elements,
        "parameters_after": operation.elements,
        "file_bytes": operation.file_bytes,
        "result_digest": record.result.digest if record else None,
        "reencoded": [asdict(each) for each in reencoded_record(operation)],
        "notes": list(record.notes if record else operation.notes),
        "record": path(made.record_file) if made else None,
        "imatrix": path(made.imatrix_file) if made else None,
        "plan": path(made.plan_file) if made else None,
    }
