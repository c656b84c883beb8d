"""Everything that an operation leaves: the model in one file or in shards, the record, the imatrix and the plan that followed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.imatrix import Imatrix
from quantplan.plan import Plan
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.formats import PLANS
from quantplan.surgery.apply import check_target, write
from quantplan.surgery.follow_imatrix import follow_imatrix, imatrix_notes
from quantplan.surgery.follow_plan import follow_plan
from quantplan.surgery.layer_map_files import LAYER_MAPS, LayerMapRecord, NamedFile, Reencoded, record_path
from quantplan.surgery.operation import Operation
from quantplan.surgery.shards import write_shards
from quantplan.tensor import Model


@dataclass(frozen=True)
class OperationOptions:
    """``edits``: their text, for the record. ``imatrix`` and ``plan``: the source's, which are to follow. ``shards``: at most
    so large (5G, 500M); None: one file.
    """

    edits: str
    out: Path
    imatrix: Imatrix | None = None
    plan: Plan | None = None
    shards: str | None = None
    threads: int = 0

    @property
    def imatrix_file(self) -> Path:
        return self._beside(".imatrix.gguf")

    @property
    def plan_file(self) -> Path:
        return self._beside(".plan.json")

    def _beside(self, suffix: str) -> Path:
        return self.out.with_name(self.out.name.removesuffix(".gguf") + suffix)


@dataclass(frozen=True)
class Products:
    """``record``: as it was written to ``record_file``; paths of what followed, None for what was not asked for."""

    model: Model
    record: LayerMapRecord
    record_file: Path
    imatrix_file: Path | None = None
    plan_file: Path | None = None


def check_options(model: Model, orders: OperationOptions) -> None:
    """ModelMismatch where imatrix or plan are another model's, BadUsage for a plan whose imatrix is not given and for an output
    that would overwrite the model.
    """
    check_target(model, orders.out)
    if orders.imatrix:
        orders.imatrix.check_belongs_to(model)
    if orders.plan is None:
        return
    orders.plan.check_belongs_to(model)
    if orders.plan.imatrix and orders.imatrix is None:
        raise BadUsage(f"the plan was made with the imatrix {orders.plan.imatrix.path}; give it with --imatrix")


def produce(
    operation: Operation, orders: OperationOptions, advance: Advance | None = None, report: Reporter = SILENT
) -> Products:
    """Writes the model, then what goes beside it. Raises what ``write``, ``write_shards`` and ``check_options`` raise."""
    check_options(operation.model, orders)
    if orders.shards is None:
        written = write(operation, orders.out, threads=orders.threads, advance=advance)
    else:
        written = write_shards(
            operation, orders.out, orders.shards, threads=orders.threads, advance=advance, report=report
        )
    notes = list(operation.notes)
    followed = None
    if orders.imatrix:
        followed = follow_imatrix(orders.imatrix, operation.parts, orders.imatrix_file)
        notes += imatrix_notes(orders.imatrix, operation.parts)
        write_imatrix(followed, followed.path)
        followed = read_imatrix(followed.path)
    plan_file = None
    if orders.plan:
        used = followed if orders.plan.imatrix else None
        plan, more = follow_plan(orders.plan, operation.parts, operation.layer_map, written, used)
        notes += more
        plan_file = orders.plan_file
        PLANS.write(plan, plan_file)
    record = replace(record_of(operation, orders.edits, written), notes=tuple(notes))
    LAYER_MAPS.write(record, record_path(orders.out))
    return Products(written, record, record_path(orders.out), followed and followed.path, plan_file)


def record_of(operation: Operation, edits: str, written: Model) -> LayerMapRecord:
    return LayerMapRecord(
        edits,
        operation.layer_map,
        _named(operation.model),
        _named(written),
        reencoded_record(operation),
        operation.notes,
    )


def reencoded_record(operation: Operation) -> tuple[Reencoded, ...]:
    return tuple(
        Reencoded(part.name, part.type.name, tuple(tensor.name for tensor, _ in part.sources))
        for part in operation.reencoded
    )


def _named(model: Model) -> NamedFile:
    return NamedFile(model.path.name, model.name, model.digest, model.file_bytes)
