"""quantplan surgery apply: the edits of a text made to a model."""

import re
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from quantplan.build.preflight import check_apart, check_imatrix
from quantplan.cli import console, options
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import ImatrixOptions, ThreadOptions
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import model_stem
from quantplan.imatrix import Imatrix, foreign_notes
from quantplan.plan import Plan
from quantplan.records.codec import encode
from quantplan.records.formats import PLANS
from quantplan.report.layer_table import layer_table
from quantplan.surgery import edits as grammar
from quantplan.surgery.architectures.suggestions import checked_map
from quantplan.surgery.edit_sources import edits_file_of, edits_from
from quantplan.surgery.edits import edits_text
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.operation import Operation, operate
from quantplan.surgery.products import OperationOptions, Products, check_options, produce, reencoded_record
from quantplan.surgery.write_model import try_header
from quantplan.surgery.write_shards import check_shard_size
from quantplan.tensor import Model

_LONGEST_NAME = 60  # of the edits in a file name


def skip_check_option() -> Any:
    return option(
        "Skip the architecture check: the model may not load or work.", "--skip-architecture-check", default=False
    )


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
    "they are stored as; blended and scaled ones are encoded again. The result is read back and run by llama.cpp before it "
    "gets its name; the layer map is kept next to it as OUT.layers.json, which can be given in place of the edits. The "
    "imatrix of --imatrix follows as OUT.imatrix.gguf, the plan of --plan as OUT.plan.json.\n\n"
    "\b\n" + _forms() + "\n\n"
    'Example: quantplan surgery apply prose-10m-f16.gguf "delete 3; swap 3 4" --dry-run'
)


def apply(
    model: Annotated[Path, typer.Argument(help="GGUF model (any shard of a split one), or hf://owner/repo/file.")],
    edits: Annotated[
        str, typer.Argument(help='Edits with ";" between them, a file with them, a .layers.json, or a .surgery.json.')
    ],
    imatrix: ImatrixOptions,
    execution: ThreadOptions,
    output: OutputOptions,
    plan: Path | None = option("A plan of the model, to follow the edits."),
    name: str | None = option("Name of the new model in its metadata (default: as it was)."),
    split_max_size: str | None = option("Write shards of at most this size: 5G, 500M."),
    skip_check: bool = skip_check_option(),
    out: Path | None = out_option("File to write (default: MODEL-EDITS.gguf in this folder)."),
) -> None:
    source = read_model(options.local(model))
    text, layer_map = edits_and_map(edits, source, skip_check)
    weights, followed = _followed(imatrix.imatrix, plan)
    target = out or default_out(source, text, layer_map)
    job = OperationOptions(text, target, weights, followed, split_max_size, execution.threads)
    check_options(source, job)
    for note in foreign_notes(weights, source) if weights else ():
        console.warn(note)
    followers = (job.imatrix_file if weights else None, job.plan_file if followed else None)
    check_apart((job.out, *followers), (weights.path if weights else None, plan, edits_file_of(edits)))
    operation = operate(source, layer_map, imatrix=weights, name=name, skip_check=skip_check)
    if layer_map.is_identity:
        console.warn("these edits leave every layer where it is")
    if output.dry_run:
        _show(operation, job, output.as_json)
        return
    _write(operation, job, output.as_json)


apply.__doc__ = HELP
apply = command(apply)


def edits_and_map(what: str, model: Model, skip_check: bool) -> tuple[str, LayerMap]:
    """The edits as they are typed, of a file, of a layer map's record, or the best of a search; and their map, checked."""
    if not model.blocks:
        raise BadUsage(
            f"{model.path}: its header counts no layers ({model.architecture}.block_count); is it a language model?"
        )
    edits = edits_from(what, model)
    layer_map, _ = checked_map(model, edits, skip_check)
    return edits_text(edits), layer_map


def _followed(imatrix: Path | None, plan: Path | None) -> tuple[Imatrix | None, Plan | None]:
    """Imatrix and plan that are to follow; a plan brings the imatrix that it was made with, where that is still there."""
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
    stem = model_stem(model.path.name)
    return options.folder(None) / f"{stem}-{slug}.gguf"


# --- printing


def _write(operation: Operation, job: OperationOptions, as_json: bool) -> None:
    with console.terminal() as report:
        made = produce(operation, job, report)
    for note in made.record.notes:
        console.warn(note)
    for left in (job.imatrix_file, job.plan_file):
        if left not in (made.imatrix_file, made.plan_file) and left.exists():
            console.warn(f"{left} is from before and does not follow the edits: it may be of another model")
    if as_json:
        console.put_json(_json(operation, job, made))
        return
    console.say(_counts(operation))
    console.say(_encoded(operation))
    more = (made.record_file, made.imatrix_file, made.plan_file)
    console.say(f"next to it: {', '.join(path.name for path in more if path)}")
    console.put(str(made.model.path))


def _show(operation: Operation, job: OperationOptions, as_json: bool) -> None:
    if job.shards:
        check_shard_size(operation, job.shards)
    for note in operation.notes:
        console.warn(note)
    try_header(operation)
    if as_json:
        console.put_json(_json(operation, job))
        return
    console.put_table(layer_table(operation.layer_map, f"{operation.model.path.name}: {job.edits}"))
    console.put(_counts(operation))
    console.put(f"file      {operation.file_bytes:,} bytes, the source has {operation.model.file_bytes:,}")
    console.put(_encoded(operation))
    console.put(f"writes    {job.out}")


def _counts(operation: Operation) -> str:
    model = operation.model
    layers = f"layers    {model.blocks} -> {len(operation.layer_map)}"
    return f"{layers}, parameters {model.elements:,} -> {operation.elements:,}"


def _encoded(operation: Operation) -> str:
    again = operation.reencoded
    if not again:
        return f"tensors   {len(operation.tensors)}, all copied byte for byte"
    size = sum(part.bytes for part in again)
    types = ", ".join(sorted({part.type.name for part in again}))
    return f"tensors   {len(operation.tensors)}, {len(again)} of them encoded as {types} ({size:,} bytes), the others copied"


def _json(operation: Operation, job: OperationOptions, made: Products | None = None) -> dict[str, Any]:
    def path(file: Path | None) -> str | None:
        return str(file) if file else None

    model, record = operation.model, made.record if made else None
    return {
        "out": str(made.model.path if made else job.out),
        "written": made is not None,
        "edits": job.edits,
        "map": str(operation.layer_map),
        "original": model.blocks,
        "layers": encode(operation.layer_map.layers),
        "layers_after": len(operation.layer_map),
        "parameters_before": model.elements,
        "parameters_after": operation.elements,
        "file_bytes": operation.file_bytes,
        "result_digest": record.result.digest if record else None,
        "reencoded": [asdict(tensor) for tensor in reencoded_record(operation)],
        "notes": list(record.notes if record else operation.notes),
        "record": path(made.record_file) if made else None,
        "imatrix": path(made.imatrix_file) if made else None,
        "plan": path(made.plan_file) if made else None,
    }
