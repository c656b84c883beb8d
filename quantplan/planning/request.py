"""From options to a plan: prices the tensors, solves, and writes down what the plan was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan import __version__
from quantplan.budget import Budget
from quantplan.build.build import stock_plan
from quantplan.devices import limits as devices
from quantplan.devices.limits import Devices
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadFile, BadUsage, BudgetImpossible, ModelMismatch
from quantplan.gguf.imatrix_need import without_imatrix_data
from quantplan.gguf.shards import shard_paths
from quantplan.gguf.sized_plan import imatrix_note, imatrix_use, make_plan
from quantplan.gguf.writer import metadata_bytes
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import quantize
from quantplan.plan import Outcome, Plan
from quantplan.quant_type import QuantType
from quantplan.recipes.layer_types import flags_for
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.records.journal import digest_of
from quantplan.sensitivity import estimate as pricing
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solve import layers
from quantplan.solve.constraints import Allowed, Constraints, allowed, permission, types_by_tensor, unsafe
from quantplan.solve.grouping import tensor_groups
from quantplan.solve.planner import (
    Formulation,
    Goal,
    best_answer,
    check_budget,
    fixed_bytes,
    formulate,
    solve_formulation,
)
from quantplan.solve.search import Solution
from quantplan.tensor import Model, Tensor

# one mix of each size and kind; S and L variants give layer mode its fine steps
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

    ``budget`` None: no limit on the file; then ``most_kld`` or another limit must say what is wanted.
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


def quantizable(model: Model) -> tuple[Tensor, ...]:
    """The tensors that a plan decides; BadUsage where there are none."""
    tensors = quantize.quantizable(model)
    if not tensors:
        raise BadUsage(f"{model.path}: llama-quantize would quantize no tensor of this model; is it a language model?")
    return tensors


def types_to_estimate(request: PlanRequest) -> tuple[QuantType, ...]:
    """The candidate types, those that wishes name, and in layer mode those that the mixes consist of; largest first."""
    constraints, tensors = request.constraints, quantizable(request.model)
    named = [
        *request.types,
        *(kind for _, kind in constraints.pins),
        *(kind for _, kinds in constraints.only for kind in kinds),
    ]
    names = {
        kind.name: kind for kind in named if constraints.one_bit or not all(unsafe(each, kind) for each in tensors)
    }
    if request.per == "layer":
        planned = {tensor.name for tensor in tensors}
        stock_quants = layer_ftypes(request)
        names |= {kind.name: kind for types in stock_quants.values() for name, kind in types.items() if name in planned}
    return tuple(sorted(names.values(), key=lambda kind: (-kind.bits, kind.name)))


def layer_ftypes(request: PlanRequest) -> dict[str, dict[str, QuantType]]:
    """What each FTYPE that the candidate types allow makes of the model; mixes that need a missing imatrix are left out."""
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
        raise BadUsage("layer mode: none of the FTYPE mixes can be made of the --types given; allow more types")
    return possible


def parse_budget(request: PlanRequest) -> Budget | None:
    """The budget in bytes; the name of a stock mix such as Q4_K_M means the size of that mix, made with the same imatrix."""
    if request.budget is None:
        return None
    if request.budget.strip().upper() in quantize.ftypes():
        return Budget(
            stock_plan(request.model, request.budget.strip(), request.imatrix).file_bytes, request.budget.strip()
        )
    if request.budget.startswith("="):
        shards = shard_paths(Path(request.budget[1:].strip()).expanduser())
        return Budget(sum(Budget.parse(f"={each}", request.model).bytes for each in shards), request.budget)
    return Budget.parse(request.budget, request.model, _metadata_bytes(request))


def goal_of(request: PlanRequest) -> Goal:
    """What the request asks for; BadUsage where it sets no limit at all."""
    return Goal(parse_budget(request), request.objective, request.most_kld)


def check(request: PlanRequest) -> None:
    """What can be known before anything is measured: a typing mistake shall not cost a probe.

    Raises BadUsage, BadFile, NothingSelected, BudgetImpossible.
    """
    tensors = quantizable(request.model)
    nothing_known = {
        tensor.name: SensitivityRow(tensor.name, {kind.name: 0.0 for kind in _every_type(request, tensor)})
        for tensor in tensors
    }
    formulation = formulate_request(request, SensitivityTable(request.model.digest, nothing_known))
    for _ in _problems(replace(request, least_tps=None), formulation, None):
        pass
    budget = goal_of(request).budget
    if budget is not None:
        check_budget(request.model, budget, formulation.fixed_bytes + formulation.problem.smallest_bytes)


def _every_type(request: PlanRequest, tensor: Tensor) -> tuple[QuantType, ...]:
    constraints = request.constraints
    named = (*types_to_estimate(request), *(kind for _, kind in constraints.pins))
    return pricing.candidates(tensor, named, request.imatrix)


def allowed_types(request: PlanRequest) -> Allowed:
    """What types and wishes leave to each tensor; NothingSelected where that is nothing."""
    tensors = quantizable(request.model)
    wanted = types_by_tensor(tensors, request.types, request.constraints)
    candidates = {tensor.name: pricing.candidates(tensor, wanted[tensor.name], request.imatrix) for tensor in tensors}
    found = allowed(tensors, candidates, request.constraints)
    for tensor in tensors:
        pricing.check_storable(tensor, found.left[tensor.name] or wanted[tensor.name], request.imatrix)
    return found


def formulate_request(request: PlanRequest, table: SensitivityTable) -> Formulation:
    """The problem that a request and a damage table make.

    Raises ModelMismatch for a table without a row for some tensor, NothingSelected, BadUsage.
    """
    tensors = quantizable(request.model)
    table.check_belongs_to(request.model, (tensor.name for tensor in tensors))
    fixed = fixed_bytes(request.model, tensors, _metadata_bytes(request))
    left = allowed_types(request).left
    if request.per != "layer":
        return formulate(tensor_groups(tensors, left, table), fixed, parse_budget(request), request.constraints)
    stock_quants = layer_ftypes(request)
    permits = permission(tensors, request.constraints)
    grouping = layers.layer_groups(tensors, stock_quants, table, lambda tensor: left[tensor.name], permits)
    sizes = {ftype: sum(each.bytes_as(types[each.name]) for each in tensors) for ftype, types in stock_quants.items()}
    return formulate(
        grouping, fixed, parse_budget(request), request.constraints, sorted(sizes, key=lambda name: sizes[name])
    )


def plan_for(request: PlanRequest, table: SensitivityTable, speeds: SpeedTable | None = None) -> tuple[Plan, bool]:
    """The plan, and whether everything fits at the largest types. ``speeds`` must be there for ``least_tps``.

    Raises BudgetImpossible and what posing raises.
    """
    problems = list(_problems(request, formulate_request(request, table), speeds))
    formulation, solution = _best(request, problems, table)
    plan = plan_of(request, table, formulation, solution.choices, solution.outcome)
    if request.devices is not None:
        plan = devices.with_devices(plan, request.model, request.devices)
    if speeds is not None:
        plan = devices.with_speed(plan, speeds)
    return plan, any(each.everything_fits for each in problems)


def _problems(request: PlanRequest, formulation: Formulation, speeds: SpeedTable | None) -> Iterator[Formulation]:
    """One problem, or with memory to keep one for each size of the largest moved tensor."""
    every = (
        [formulation] if request.devices is None else devices.within_memory(formulation, request.model, request.devices)
    )
    for each in every:
        yield each if request.least_tps is None else devices.fast_enough(each, _given(speeds), request.least_tps)


def _given(speeds: SpeedTable | None) -> SpeedTable:
    if speeds is None:
        raise BadUsage("a limit on tokens per second needs this machine's speeds; run `quantplan speed`")
    return speeds


def _best(
    request: PlanRequest, problems: Sequence[Formulation], table: SensitivityTable
) -> tuple[Formulation, Solution]:
    """The best answer of all problems, with the bound that holds for all of them."""
    answers, refused = [], []
    for formulation in problems:
        try:
            answers.append((formulation, solve_formulation(request.model, formulation, goal_of(request), table)))
        except BudgetImpossible as error:
            refused.append(error)
    if not answers:
        raise refused[-1]  # the smallest copy on the GPU: no other leaves more room
    formulation, best = answers[best_answer([solution for _, solution in answers])]
    outcome = best.outcome
    bound = min(solution.outcome.bound for _, solution in answers)
    gap = (outcome.objective - bound) / outcome.objective if outcome.objective else 0.0
    return formulation, replace(best, outcome=replace(outcome, bound=bound, gap=gap))


def plan_of(
    request: PlanRequest, table: SensitivityTable, formulation: Formulation, choices: Sequence[int], outcome: Outcome
) -> Plan:
    """The plan that these choices make."""
    types = formulation.grouping.types(choices)
    predicted, error = table.predict(formulation.grouping.priced(choices, table))
    budget = parse_budget(request)
    plan = make_plan(
        request.model,
        types,
        request.imatrix,
        budget_bytes=budget.bytes if budget else None,
        budget_asked=budget.asked if budget else "",
        predicted_kld=predicted,
        predicted_kld_err=error,
        calibrated=table.calibrated,
        outcome=outcome,
        made_from=_made_from(request, table),
        limits=formulation.limits(choices),
    )
    if request.per != "layer":
        return plan
    flags = flags_for({name: kind for name, kind in types.items() if request.model.by_name[name].block is None})
    return replace(plan, layer_types=formulation.grouping.layer_types(choices), flags=flags)


def _made_from(request: PlanRequest, table: SensitivityTable) -> dict[str, object]:
    return table.made_from | {
        "quantplan": __version__,
        "command": request.command,
        "types": [kind.name for kind in request.types],
        "backend": table.backend,
        "per": request.per,
        "wishes": _spelled(request),
        "damage_table": table_digest(table),
    }


def _spelled(request: PlanRequest) -> dict[str, object]:
    """The wishes as options, those that were made."""
    constraints = request.constraints
    spelled: dict[str, object] = {
        "pin": [f"{selector.text}={kind}" for selector, kind in constraints.pins],
        "min": [f"{selector.text}={kind}" for selector, kind in constraints.floors],
        "max": [f"{selector.text}={kind}" for selector, kind in constraints.ceilings],
        "only": [f"{selector.text}={','.join(map(str, kinds))}" for selector, kinds in constraints.only],
        "tie": list(constraints.ties),
        "max_types": constraints.most_types,
        "course": constraints.course,
        "allow_1_bit": constraints.one_bit,
        "objective": request.objective,
        "max_kld": request.most_kld,
        "min_tps": request.least_tps,
    } | _spelled_devices(request.devices)
    return {name: value for name, value in spelled.items() if value}


def _spelled_devices(wanted: Devices | None) -> dict[str, object]:
    if wanted is None:
        return {}
    return {
        "vram": wanted.vram,
        "ram": wanted.ram,
        "ctx": wanted.ctx,
        "kv": ",".join(kind.name.lower() for kind in wanted.kv),
        "on_cpu": [selector.text for selector in wanted.on_cpu],
    }


# --- the damage table of a plan, kept for questions about it


def table_digest(table: SensitivityTable) -> str:
    return digest_of(SENSITIVITY_TABLES.encode(table))


def keep_table(table: SensitivityTable, cache: Path) -> Path:
    """The table in the cache under its digest, where ``table_of`` finds it."""
    path = _table_path(cache, table_digest(table))
    if not path.exists():
        SENSITIVITY_TABLES.write(table, path)
    return path


def table_of(plan: Plan, cache: Path) -> SensitivityTable:
    """The damage table that a plan was made from; BadFile where the cache has lost it, or the plan was not solved."""
    digest = plan.made_from.get("damage_table")
    if not isinstance(digest, str):
        raise BadFile("the plan was not made from a damage table; give one with --damage FILE")
    path = _table_path(cache, digest)
    if not path.exists():
        raise BadFile(
            f"the damage table of the plan is no longer in the cache ({path}); give it with --damage FILE, or solve again"
        )
    table = SENSITIVITY_TABLES.read(path)
    if table_digest(table) != digest:
        raise BadFile(f"{path}: the table was altered; delete it, and solve again")
    return table


def read_table(path: Path | str, model: Model) -> SensitivityTable:
    """A damage table file for a model; ModelMismatch where it was made for another."""
    table = SENSITIVITY_TABLES.read(path)
    if table.model_digest and table.model_digest != model.digest:
        raise ModelMismatch(
            f"{path} was made for another model (digest {table.model_digest[:12]}, this is {model.digest[:12]})"
        )
    return table


def _table_path(cache: Path, digest: str) -> Path:
    return cache / f"damage-{digest[:32]}.json"


def _metadata_bytes(request: PlanRequest) -> int:
    note = imatrix_note(imatrix_use(request.imatrix)) if request.imatrix else None
    return metadata_bytes(request.model, note)


def _ftype_allowed(ftype: str, names: set[str]) -> bool:
    """Whether the main type of a mix is among the types to choose from: Q4_K_M needs Q4_K."""
    return ftype in names or ftype.rsplit("_", 1)[0] in names or (ftype == "IQ2_M" and "IQ2_S" in names)
