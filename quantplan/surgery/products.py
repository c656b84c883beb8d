"""All files of an operation: the model in one file or in shards, its record, and the imatrix and plan that followed."""

from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.imatrix import Imatrix
from quantplan.plan import Plan
from quantplan.progress import SILENT, Reporter
from quantplan.records.formats import PLANS
from quantplan.surgery.follow import follow_imatrix, follow_plan, imatrix_notes
from quantplan.surgery.layer_map_files import LAYER_MAPS, LayerMapRecord, NamedFile, Reencoded, record_path
from quantplan.surgery.operation import Operation
from quantplan.surgery.write_model import check_target, write
from quantplan.surgery.write_shards import write_shards
from quantplan.tensor import Model


@dataclass(frozen=True)
class OperationOptions:
    """``edits``: their text, for the record. ``imatrix`` and ``plan``: the original's, which are to follow. ``shards``: their
    largest size (5G, 500M); None: one file.
    """

    edits: str
    out: Path
    imatrix: Imatrix | None = None
    plan: Plan | None = None
    shards: str | None = None
    threads: int = 0

    @property
    def imatrix_file(self) -> Path:
        return self._next_to_out(".imatrix.gguf")

    @property
    def plan_file(self) -> Path:
        return self._next_to_out(".plan.json")

    def _next_to_out(self, suffix: str) -> Path:
        return self.out.with_name(self.out.name.removesuffix(".gguf") + suffix)


@dataclass(frozen=True)
class Products:
    """``record``: as written to ``record_file``; ``imatrix_file`` and ``plan_file``: None where none was to follow."""

    model: Model
    record: LayerMapRecord
    record_file: Path
    imatrix_file: Path | None = None
    plan_file: Path | None = None


def check_options(model: Model, options: OperationOptions) -> None:
    """ModelMismatch where imatrix or plan belong to another model; BadUsage for a plan without the imatrix that it was made with
    and for an output that would overwrite the model.
    """
    check_target(model, options.out)
    if options.imatrix:
        options.imatrix.check_belongs_to(model)
    if options.plan is None:
        return
    options.plan.check_belongs_to(model)
    if options.plan.imatrix and options.imatrix is None:
        raise BadUsage(f"the plan was made with the imatrix {options.plan.imatrix.path}; give it with --imatrix")


def produce(operation: Operation, options: OperationOptions, report: Reporter = SILENT) -> Products:
    """Writes the model, then the files next to it. Raises what ``write``, ``write_shards`` and ``check_options`` raise."""
    check_options(operation.model, options)
    if options.shards is None:
        written = write(operation, options.out, threads=options.threads, report=report)
    else:
        written = write_shards(operation, options.out, options.shards, threads=options.threads, report=report)
    imatrix, notes = _write_imatrix(operation, options)
    plan_notes = _write_plan(operation, options, written, imatrix)
    record = LayerMapRecord(
        edits=options.edits,
        layer_map=operation.layer_map,
        source=_named(operation.model),
        result=_named(written),
        reencoded=reencoded_record(operation),
        notes=(*operation.notes, *notes, *plan_notes),
    )
    LAYER_MAPS.write(record, record_path(options.out))
    plan_file = options.plan_file if options.plan else None
    return Products(written, record, record_path(options.out), options.imatrix_file if imatrix else None, plan_file)


def _write_imatrix(operation: Operation, options: OperationOptions) -> tuple[Imatrix | None, tuple[str, ...]]:
    """The imatrix of the new model as it was written, and notes on it."""
    if options.imatrix is None:
        return None, ()
    followed = follow_imatrix(options.imatrix, operation.tensors, options.imatrix_file)
    write_imatrix(followed, followed.path)
    return read_imatrix(followed.path), imatrix_notes(options.imatrix, operation.tensors)


def _write_plan(
    operation: Operation, options: OperationOptions, written: Model, imatrix: Imatrix | None
) -> tuple[str, ...]:
    if options.plan is None:
        return ()
    made_with = imatrix if options.plan.imatrix else None
    plan, notes = follow_plan(options.plan, operation.tensors, operation.layer_map, written, made_with)
    PLANS.write(plan, options.plan_file)
    return notes


def reencoded_record(operation: Operation) -> tuple[Reencoded, ...]:
    """The tensors that are not copies, as the record lists them."""
    return tuple(
        Reencoded(tensor.name, tensor.type.name, tuple(source.name for source, _ in tensor.sources))
        for tensor in operation.reencoded
    )


def _named(model: Model) -> NamedFile:
    return NamedFile(model.path.name, model.name, model.digest, model.file_bytes)
