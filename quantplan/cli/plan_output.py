"""How the commands that make plans show them and where they keep them."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from quantplan.block_ranges import runs_text
from quantplan.cli import console, options

if TYPE_CHECKING:
    from quantplan.cache_sensitivity import ChosenCache
    from quantplan.plan import Limit, Plan
    from quantplan.planning.request import PlanRequest
    from quantplan.report.table import Table
    from quantplan.tensor import Model

_SOURCE_TYPE = re.compile(r"[-.](f16|bf16|f32)$", re.IGNORECASE)


def model_stem(model: "Model") -> str:
    """The model's file name without ``.gguf``, shard number and the type of the source, which is not the
    plan's.
    """
    from quantplan.gguf.shards import model_stem as file_stem

    return _SOURCE_TYPE.sub("", file_stem(model.path.name))


def default_plan_path(model: "Model", what: str) -> Path:
    """``<model>-<what>.json`` in the project's plans, or in ./plans outside any project."""
    here = options.project()
    folder = here.plans if here else Path("plans")
    return folder / f"{plan_stem(model_stem(model), what)}.json"


def plan_stem(model: str, what: str) -> str:
    """The name of a plan and its file: the model's stem, and what it was made for as far as file names allow."""
    return with_stem(model, re.sub(r"[^A-Za-z0-9._=%+-]+", "-", what).strip("-"))


def plan_name(request: "PlanRequest") -> str:
    """What a plan is called after: its size and other limits."""
    words = [size_name(request.budget)] if request.budget else []
    words += [f"kld{request.most_kld:g}"] if request.most_kld else []
    words += [f"tps{request.least_tps:g}"] if request.least_tps else []
    if request.devices:
        sizes = (("vram", request.devices.vram), ("ram", request.devices.ram))
        words += [f"{name}{size / 2**30:.4g}GiB" for name, size in sizes if size]
        words += [f"{len(request.devices.gpus)}gpus"] if request.devices.gpus else []
    words += ["layers"] if request.per == "layer" else []
    return "-".join(words)


def size_name(budget: str) -> str:
    """What a budget is called in names of files."""
    return Path(budget[1:]).stem if budget.startswith("=") else budget.lower()


def with_stem(stem: str, name: str) -> str:
    """The name with the model's in front, unless it is there already."""
    return name if name.startswith(f"{stem}-") else f"{stem}-{name}"


def print_plan(plan: "Plan", model: "Model", path: Path | str, as_json: bool) -> None:
    """The plan's figures: a table by role and type, or one JSON object with null for what is not known."""
    if as_json:
        console.put_json(_figures(plan, model, path))
        return
    console.put_table(_types_table(plan, model))
    for line in _summary(plan, model, path):
        console.put(line)


def _figures(plan: "Plan", model: "Model", path: Path | str) -> dict[str, object]:
    from quantplan.records.codec import encode, finite
    from quantplan.report.drafts import draft_tensors
    from quantplan.report.rounding import rounding_fields

    return {
        "plan": str(path),
        "file_bytes": plan.file_bytes,
        "bpw": plan.bits_per_weight(model),
        "bytes_per_token": plan.bytes_per_token(model),
        "predicted_kld": finite(plan.predicted_kld),
        "predicted_kld_err": finite(plan.predicted_kld_err),
        "predicted_domains": {
            name: {"kld": finite(kld), "kld_err": finite(error)}
            for name, (kld, error) in plan.predicted_domains.items()
        },
        "status": plan.outcome.status,
        "gap": finite(plan.outcome.gap),
        "bound": finite(plan.outcome.bound),
        "minimised": plan.outcome.minimised,
        "prices": plan.outcome.prices,
        "limits": [
            {"name": each.name, "unit": each.unit, "limit": each.limit, "used": each.used} for each in plan.limits
        ],
        "override_tensor": list(plan.on_cpu),
        "tensor_split": list(plan.tensor_split),
        "cache": encode(plan.cache) if plan.cache else None,
        "predicted_tps": plan.predicted_tps or None,
        "rounding": rounding_fields(plan),
        "drafts": [tensor.name for tensor in draft_tensors(plan, model)],
    }


def _types_table(plan: "Plan", model: "Model") -> "Table":
    from quantplan.budget import human_bytes
    from quantplan.report.table import Table

    rows = []
    for (role, kind), of_type in _by_role(plan, model).items():
        blocks = [model.by_name[name].block for name, _ in of_type]
        size = human_bytes(sum(size for _, size in of_type))
        rows.append((role, kind, str(len(of_type)), _ranges(blocks), size))
    copied = [each.bytes for each in plan.tensors if not each.rule]
    rows.append(("copied as stored", "", str(len(copied)), "", human_bytes(sum(copied))))
    return Table("", ("role", "type", "tensors", "blocks", "size"), tuple(rows), texts=(0, 1, 3))


def _by_role(plan: "Plan", model: "Model") -> dict[tuple[str, str], list[tuple[str, int]]]:
    """(role, type) -> [(tensor, bytes)], roles by size and types from large to small."""
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    sizes: dict[str, int] = {}
    bits = {each.type.name: each.type.bits for each in plan.tensors}
    for each in plan.tensors:
        if each.rule:
            role = model.by_name[each.name].role
            found.setdefault((role, each.type.name), []).append((each.name, each.bytes))
            sizes[role] = sizes.get(role, 0) + each.bytes
    return {key: found[key] for key in sorted(found, key=lambda key: (-sizes[key[0]], key[0], -bits[key[1]], key[1]))}


def _ranges(blocks: list[int | None]) -> str:
    """Block numbers as 0-3 7 12-15; nothing for tensors outside the blocks."""
    return runs_text(sorted({block for block in blocks if block is not None}))


def _summary(plan: "Plan", model: "Model", path: Path | str) -> list[str]:
    from quantplan.budget import human_bytes
    from quantplan.report.drafts import drafts_note

    size = f"file      {plan.file_bytes:,} bytes ({human_bytes(plan.file_bytes)})"
    size += f", {plan.bits_per_weight(model):.3f} bpw"
    if plan.budget_bytes is not None:
        size += f", {plan.budget_bytes - plan.file_bytes:,} bytes below the budget of {plan.budget_bytes:,}"
    read = plan.bytes_per_token(model)
    reads = [f"reads     {human_bytes(read)} of weights per generated token"] if read is not None else []
    note = drafts_note(plan, model)
    drafts = [f"drafts    {note}"] if note else []
    return [size, *reads, *_expectation(plan), *drafts, f"plan      {path}"]


def _limit(limit: "Limit") -> str:
    from quantplan.budget import human_bytes

    if limit.unit == "bytes":
        return f"{limit.name}: {human_bytes(limit.used)} of {human_bytes(limit.limit)} that are left for weights"
    share = 1e-6  # picoseconds to microseconds
    return f"{limit.name}: {limit.used * share:,.0f} of {limit.limit * share:,.0f} us that are left for matrices"


def _cache(cache: "ChosenCache", weights: float) -> str:
    error = f" +- {cache.kld.stderr:.5f}" if cache.kld.stderr is not None else ""
    return (
        f"KV cache  {cache.types}: KLD {cache.kld.value:.5f}{error} alone ({cache.n_ctx:,} tokens), "
        f"{weights + cache.kld.value:.5f} with the weights"
    )


def _expectation(plan: "Plan") -> list[str]:
    from quantplan.report.rounding import plan_rounding

    lines = []
    if plan.predicted_kld is not None:
        error = f" +- {plan.predicted_kld_err:.5f}" if plan.predicted_kld_err is not None else ""
        note = "" if plan.calibrated else " (not calibrated: for ranking only)"
        lines.append(f"expected  KLD {plan.predicted_kld:.5f}{error} nats/token{note}")
    if plan.predicted_domains:
        worst = max(plan.predicted_domains, key=lambda name: plan.predicted_domains[name][0])
        klds = (
            f"{name} {kld:.5f} +- {error:.5f}{' (worst)' if name == worst else ''}"
            for name, (kld, error) in plan.predicted_domains.items()
        )
        lines.append(f"by text   {', '.join(klds)}")
    if plan.compensated:
        lines.append(f"rounding  {plan_rounding(plan)}")
    lines += [f"limit     {_limit(each)}" for each in plan.limits]
    if plan.predicted_tps:
        pairs = (("generation", "generation"), ("prompt", "prompt processing"))
        rates = (
            f"{plan.predicted_tps[key]:.4g} +- {plan.predicted_tps[f'{key}_err']:.2g} ({words})" for key, words in pairs
        )
        lines.append(f"speed     {', '.join(rates)} tokens/s on this machine")
    if plan.cache:
        lines.append(_cache(plan.cache, plan.predicted_kld or 0.0))
    if plan.serve_arguments:
        lines.append(f"run with  {shlex.join(plan.serve_arguments)}")
    if plan.outcome.status != "given":
        gap = f", gap {plan.outcome.gap:.2%}" if plan.outcome.gap is not None else ""
        lines.append(f"solver    {plan.outcome.status}{gap} after {plan.outcome.seconds:.1f} s")
    if plan.imatrix:
        lines.append(f"imatrix   {plan.imatrix.file}")
    return lines
