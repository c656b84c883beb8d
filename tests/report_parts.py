"""Findings that were never measured: as many tensors and budgets as are wanted, plans as a Lagrangian would choose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from model_parts import imatrix_of

from quantplan.analyze.statistics import statistics
from quantplan.planning.request import PlanRequest
from quantplan.planning.size_range import Planned
from quantplan.planning.stock_quants import StockQuant
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.report.commands import Commands
from quantplan.report.page_data import LETTERS, page_data
from quantplan.report.report_data import ReportData
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor

ROLES = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
    "ffn_gate_exps",
    "ffn_up_exps",
    "ffn_down_exps",
    "ffn_gate_shexp",
    "ffn_up_shexp",
    "ffn_down_shexp",
    "attn_q_a",
    "attn_q_b",
    "attn_kv_a_mqa",
    "attn_k_b",
    "attn_v_b",
)
TYPES = parse_types("all")


def made_up(
    blocks: int = 3, roles: int = 4, budgets: int = 5, name: str = "made-up", notes: tuple[str, ...] = (), **further
) -> ReportData:
    """``blocks * roles + 2`` tensors; ``further``: fields of Findings."""
    names = [
        "token_embd.weight",
        *(f"blk.{b}.{r}.weight" for b in range(blocks) for r in ROLES[:roles]),
        "output.weight",
    ]
    tensors = tuple(Tensor(each, (1024, 2048), BY_NAME["F16"]) for each in names)
    random = np.random.default_rng(0)
    model = Model((Path("made-up.gguf"),), "qwen3", name, blocks, tensors, sum(t.bytes for t in tensors), "0" * 64)
    bits = np.array([kind.bits for kind in TYPES])
    scales = random.lognormal(-8, 1.5, len(tensors))
    damage = scales[:, None] * 4.0**-bits * random.lognormal(0, 0.1, (len(tensors), len(TYPES)))
    rows = {
        each.name: SensitivityRow(
            each.name, dict(zip((k.name for k in TYPES), row.tolist(), strict=True)), {}, 0.05, "probed"
        )
        for each, row in zip(tensors, damage, strict=True)
    }
    table = SensitivityTable(model.digest, rows, calibrated=True, made_from={"scales": "probe"})
    imatrix = imatrix_of({each.name: random.lognormal(0, 1, (1, 64)).astype(np.float32) for each in tensors[1:]})
    plans = [
        _sized(model, table, (damage + price * bits).argmin(axis=1)) for price in np.geomspace(1e-3, 1e-12, budgets)
    ]
    stock_quants = {kind: np.full(len(tensors), [each.name for each in TYPES].index(kind)) for kind in ("Q4_K", "Q8_0")}
    stock_shown = tuple(StockQuant(**_sized(model, table, each), name=name) for name, each in stock_quants.items())
    # smaller than every plan, and without a value in the table
    tiny = StockQuant("IQ1_S", 1000, 0.1, None, None, stock_shown[0].types, "IQ1_S")
    request = PlanRequest(model, imatrix, TYPES, None)
    fields = {
        "plans": tuple(
            Planned(**each, budget_bytes=each["file_bytes"] + 7, asked=str(each["file_bytes"] + 7), gap=0.0)
            for each in plans
        ),
        "opens_at": budgets // 2,
        "stock_quants": (tiny, *stock_shown),
        "statistics": statistics(imatrix),
        "measurements": (),
        "comparisons": (),
        "notes": notes,
    }
    return ReportData(request=request, table=table, fixed_bytes=0, **fields | further)


def _sized(model: Model, table: SensitivityTable, choices: np.ndarray) -> dict:
    types = {each.name: TYPES[at] for each, at in zip(model.tensors, choices, strict=True)}
    size = sum(each.bytes_as(types[each.name]) for each in model.tensors)
    kld, error = table.predict({name: kind.name for name, kind in types.items()})
    return {"file_bytes": size, "bpw": 8 * size / model.elements, "kld": kld, "kld_err": error, "types": types}


def made_up_data(*args, **further) -> dict:
    """The data of a page about them."""
    commands = Commands(["quantplan", "solve", "--types", "all"], Path("plans"), "made-up")
    return page_data(made_up(*args, **further), commands, "quantplan report", "2026-01-01 00:00 UTC")


def types_of(data, sized):
    """{tensor: name of its type} of a plan or stock quant of the data."""
    names = {letter: kind["name"] for kind, letter in zip(data["types"], LETTERS, strict=False)}
    return {tensor["name"]: names[letter] for tensor, letter in zip(data["tensors"], sized["types"], strict=True)}
