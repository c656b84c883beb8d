"""The files that a model card describes: built from plans, or as they are, each with its types, sizes and use of memory."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.build.build import stock_plan
from quantplan.devices.fit_params import memory_needs
from quantplan.devices.memory import MemoryUse, placement
from quantplan.errors import BadFile, BadUsage, NotAsPlanned
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import ftypes
from quantplan.plan import Plan
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.records.formats import PLANS
from quantplan.selector import Selector
from quantplan.tensor import Model

_BUILT_NAME = re.compile(r"-[0-9a-f]{12}$")  # how evaluate.baselines ends the names of files that it builds


@dataclass(frozen=True)
class PublishedFile:
    """A GGUF under the name it is published with. ``header``: the file's own, or of the model that the plan was made for.

    ``digest`` None: the file is not built, so nothing that was measured can be known to be its.
    """

    name: str
    header: Model
    types: Mapping[str, QuantType]
    sizes: Mapping[str, int]  # bytes of each tensor, padding not included
    file_bytes: int
    plan: Plan | None = None
    digest: str | None = None
    path: Path | None = None  # of the built file
    shards: int = 1
    stock_quant: str = ""  # the stock quant that it is, to the byte, made of the file ``made_of``
    made_of: str = ""
    memory: tuple[MemoryUse, ...] = ()

    @property
    def bpw(self) -> float:
        return self.header.bits_per_weight(self.types)

    @property
    def bytes_per_token(self) -> int | None:
        """See ``Model.bytes_per_token``."""
        return self.header.bytes_per_token(self.types)

    @property
    def bytes_at_16_bits(self) -> int:
        """Of the file with all matrices in F16, as converters write it."""
        f16 = BY_NAME["F16"]
        matrices = [tensor for tensor in self.header.tensors if len(tensor.shape) > 1]
        return self.file_bytes + sum(tensor.bytes_as(f16) - self.sizes[tensor.name] for tensor in matrices)

    @property
    def by_type(self) -> dict[str, int]:
        """Bytes in each type, largest first."""
        by_type: dict[str, int] = {}
        for tensor, kind in self.types.items():
            by_type[kind.name] = by_type.get(kind.name, 0) + self.sizes[tensor]
        return dict(sorted(by_type.items(), key=lambda item: -item[1]))


def published_plan(path: Path, source: Model, name: str, places: Iterable[Path]) -> PublishedFile:
    """The file that a plan describes. ``places``: files that may be it; the first that is as planned counts as built."""
    plan = PLANS.read(path)
    plan.check_belongs_to(source)
    built = next((model for model in map(_readable, places) if model and _as_planned(model, plan)), None)
    sizes = {tensor.name: tensor.bytes for tensor in plan.tensors}
    file = PublishedFile(name, source, plan.types, sizes, plan.file_bytes, plan)
    return replace(file, digest=built.digest, path=built.path) if built else file


def published_gguf(path: Path) -> PublishedFile:
    """A GGUF as it is, all shards together."""
    model = read_model(path)
    return PublishedFile(
        model.path.name,
        model,
        {tensor.name: tensor.type for tensor in model.tensors},
        {tensor.name: tensor.bytes for tensor in model.tensors},
        model.file_bytes,
        digest=model.digest,
        path=model.path,
        shards=len(model.paths),
    )


def with_stock_quant(file: PublishedFile, source: Model, imatrix: Imatrix | None) -> PublishedFile:
    """The file with the name of the stock quant that it is, where llama-quantize makes exactly this file of ``source``."""
    stock_quant = _ftype_name(file.header)
    if stock_quant not in ftypes():
        return file
    noted = "quantize.imatrix.file" in file.header.metadata
    try:
        plan = stock_plan(source, stock_quant, imatrix if noted else None)
    except BadUsage:  # it needs an imatrix, and there is none
        return file
    return replace(file, stock_quant=stock_quant, made_of=source.path.name) if _as_planned(file.header, plan) else file


def _ftype_name(model: Model) -> str:
    """What the header says that it was made as (enum llama_ftype), empty where it says nothing known."""
    from gguf import LlamaFileType

    number = model.metadata.get("general.file_type")
    try:
        return LlamaFileType(number).name.removeprefix("MOSTLY_") if isinstance(number, int) else ""
    except ValueError:
        return ""


def plan_of(gguf: Path, plans: Iterable[Path]) -> Path | None:
    """The plan that describes the file to the byte, if one of them does."""
    built = read_model(gguf)
    return next((path for path in plans if _as_planned(built, PLANS.read(path))), None)


def places_of(plan: Path, name: str, folders: Iterable[Path]) -> list[Path]:
    """Where a plan's file may be: under its own name, or as `quantplan compare` names what it builds."""
    places = []
    for folder in folders:
        candidates = sorted(folder.glob(f"{_glob_safe(plan.stem)}-*.gguf"))
        places += [folder / name, *(path for path in candidates if _BUILT_NAME.sub("", path.stem) == plan.stem)]
    return [path for path in places if path.is_file()]


def _glob_safe(text: str) -> str:
    return re.sub(r"([*?\[\]])", r"[\1]", text)


def _readable(path: Path) -> Model | None:
    try:
        return read_model(path)
    except BadFile:  # an unfinished file
        return None


def _as_planned(built: Model, plan: Plan) -> bool:
    try:
        plan.check_built(built)
    except NotAsPlanned:
        return False
    return True


def with_memory(file: PublishedFile, contexts: Sequence[int]) -> PublishedFile:
    """The file with what it takes at those contexts that the model was trained for, at its longest one if all are longer."""
    trained = file.header.metadata.get(f"{file.header.architecture}.context_length")
    limit = trained if isinstance(trained, int) and trained >= 8 else max(contexts)
    fitting = [ctx for ctx in contexts if ctx <= limit] or [limit]
    moved = file.plan.on_cpu if file.plan else ()
    where = placement(file.header, [Selector(f"/{rule.rpartition('=')[0]}/") for rule in moved])
    return replace(file, memory=tuple(where.use(memory_needs(file.header, ctx), file.sizes) for ctx in fitting))
