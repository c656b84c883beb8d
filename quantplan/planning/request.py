"""What is to be planned, and the integer program that it makes with a sensitivity table."""

from dataclasses import dataclass
from pathlib import Path

from quantplan.budget import Budget
from quantplan.build.build import stock_bytes
from quantplan.devices.limits import Devices
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_need import without_imatrix_data
from quantplan.gguf.shards import shard_paths
from quantplan.gguf.sized_plan import imatrix_note, imatrix_use
from quantplan.gguf.writer import metadata_bytes
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import quantize
from quantplan.quant_type import QuantType
from quantplan.sensitivity.candidates import candidates as storable_types
from quantplan.sensitivity.candidates import check_left, check_storable
from quantplan.sensitivity.drafts import with_draft_costs
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver import layers
from quantplan.solver.constraints import Allowed, Constraints, allowed, permission, types_by_tensor, unsafe
from quantplan.solver.grouping import tensor_groups
from quantplan.solver.planner import (
    Formulation,
    Goal,
    fixed_bytes,
    formulate,
)
from quantplan.tensor import Model, Tensor
from quantplan.text_files import starts_as_gguf

# one stock quant of each size and family; S and L variants give layer mode its fine steps
LAYER_FTYPES = (
    "IQ2_M",
    "Q2_K",
    "IQ3_XXS",
    "IQ3_XS",
    "Q3_K_S",
    "IQ3_S",
    "IQ3_M",
    "Q3_K_M",
    "Q3_K_L",
    "IQ4_XS",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
)


@dataclass(frozen=True)
class PlanRequest:
    """What is to be planned. ``per``: "tensor" or "layer"; ``command`` goes into the plan's provenance.

    ``budget`` None: no limit on the file; then ``most_kld``, ``devices`` or ``least_tps`` limit the plan, or nothing does.
    """

    model: Model
    imatrix: Imatrix | None
    types: tuple[QuantType, ...]
    budget: str | None
    constraints: Constraints = Constraints()
    per: str = "tensor"
    command: str = ""
    objective: str = "sum"
    most_kld: float | None = None
    devices: Devices | None = None
    least_tps: float | None = None  # tokens per second at generation

    @property
    def limited(self) -> bool:
        """Whether anything but the types limits the plan."""
        return any(limit is not None for limit in (self.budget, self.most_kld, self.devices, self.least_tps))


def quantizable(model: Model) -> tuple[Tensor, ...]:
    """The tensors that a plan decides; BadUsage where there are none."""
    tensors = quantize.quantizable(model)
    if not tensors:
        raise BadUsage(f"{model.path}: llama-quantize would quantize no tensor of this model; is it a language model?")
    return tensors


def types_to_estimate(request: PlanRequest) -> tuple[QuantType, ...]:
    """The candidate types, those that constraints name, and in layer mode those of the stock quants; largest first."""
    constraints, tensors = request.constraints, quantizable(request.model)
    named = [
        *request.types,
        *(kind for _, kind in constraints.pins),
        *(kind for _, kinds in constraints.only for kind in kinds),
    ]
    names = {
        kind.name: kind for kind in named if constraints.one_bit or not all(unsafe(tensor, kind) for tensor in tensors)
    }
    if request.per == "layer":
        planned = {tensor.name for tensor in tensors}
        stock_quants = layer_ftypes(request)
        names |= {kind.name: kind for types in stock_quants.values() for name, kind in types.items() if name in planned}
    return tuple(sorted(names.values(), key=lambda kind: (-kind.bits, kind.name)))


def layer_ftypes(request: PlanRequest) -> dict[str, dict[str, QuantType]]:
    """The types that each stock quant which the candidate types allow gives the model; without an imatrix those that need one
    are left out."""
    names = {kind.name for kind in request.types}
    imatrix = request.imatrix.path if request.imatrix else None
    stock_quants = {
        ftype: quantize.stock_quant(request.model, ftype, imatrix)
        for ftype in LAYER_FTYPES
        if _ftype_allowed(ftype, names)
    }
    possible = {
        ftype: types
        for ftype, types in stock_quants.items()
        if not without_imatrix_data(request.model, types, request.imatrix)
    }
    if not possible:
        raise BadUsage("layer mode: none of the stock quants consists of the given --types; allow more types")
    return possible


def parse_budget(request: PlanRequest) -> Budget | None:
    """The budget in bytes; the name of a stock quant such as Q4_K_M means its size with the same imatrix."""
    if request.budget is None:
        return None
    word = request.budget.strip()
    if word.upper() in quantize.ftypes() or quantize.looks_like_ftype(word):
        return Budget(stock_bytes(request.model, quantize.known_ftype(word), request.imatrix), word)
    if request.budget.startswith("="):
        file = Path(request.budget[1:].strip()).expanduser()
        shards = shard_paths(file) if file.is_file() and starts_as_gguf(file) else (file,)
        return Budget(sum(Budget.parse(f"={shard}", request.model).bytes for shard in shards), request.budget)
    return Budget.parse(request.budget, request.model, _metadata_bytes(request))


def goal_of(request: PlanRequest) -> Goal:
    """What to minimise, and within what."""
    return Goal(parse_budget(request), request.objective, request.most_kld)


def allowed_types(request: PlanRequest) -> Allowed:
    """The types that constraints leave to each tensor; NothingSelected where none is left."""
    tensors = quantizable(request.model)
    offered = types_by_tensor(tensors, request.types, request.constraints)
    candidates = {tensor.name: storable_types(tensor, offered[tensor.name], request.imatrix) for tensor in tensors}
    permitted = allowed(tensors, candidates, request.constraints)
    for tensor in tensors:
        if permitted.left[tensor.name]:
            check_left(tensor, permitted.left[tensor.name], request.imatrix)
        else:
            check_storable(tensor, offered[tensor.name], request.imatrix)
    return permitted


def formulate_request(request: PlanRequest, table: SensitivityTable) -> Formulation:
    """The integer program of a request and a sensitivity table, without its limits on memory and speed. Blocks that only predict
    further tokens are decided as ``sensitivity.drafts`` says.

    Raises ModelMismatch for a table without a row for some tensor, NothingSelected, BadUsage.
    """
    tensors = quantizable(request.model)
    table.check_belongs_to(request.model, (tensor.name for tensor in tensors))
    table = with_draft_costs(table, request.model)
    fixed = fixed_bytes(request.model, tensors, _metadata_bytes(request))
    left = allowed_types(request).left
    if request.per != "layer":
        return formulate(tensor_groups(tensors, left, table), fixed, parse_budget(request), request.constraints)
    stock_quants = layer_ftypes(request)
    permits = permission(tensors, request.constraints)
    grouping = layers.layer_groups(tensors, stock_quants, table, lambda tensor: left[tensor.name], permits)
    sizes = {
        ftype: sum(tensor.bytes_as(types[tensor.name]) for tensor in tensors) for ftype, types in stock_quants.items()
    }
    return formulate(
        grouping, fixed, parse_budget(request), request.constraints, sorted(sizes, key=lambda name: sizes[name])
    )


def _metadata_bytes(request: PlanRequest) -> int:
    note = imatrix_note(imatrix_use(request.imatrix)) if request.imatrix else None
    return metadata_bytes(request.model, note)


def _ftype_allowed(ftype: str, names: set[str]) -> bool:
    """Whether the main type of a stock quant is among the types to choose from: Q4_K_M needs Q4_K."""
    return ftype in names or ftype.rsplit("_", 1)[0] in names or (ftype == "IQ2_M" and "IQ2_S" in names)
