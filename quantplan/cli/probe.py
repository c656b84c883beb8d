"""`quantplan probe`: what each tensor costs in KL divergence, measured in the loaded model."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantplan.cli import console, options
from quantplan.cli.estimate_output import estimate_fields, put_estimate
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    ImatrixOptions,
    InputTextOptions,
    ModelOptions,
    MomentExecutionOptions,
    TypesOptions,
)
from quantplan.cli.plan_options import ProbingOptions
from quantplan.cli.plan_requests import warn_of_activation_quantization
from quantplan.estimates.table_work import of_table, timed
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.measurement import Estimate
from quantplan.planning.kept_tables import read_table
from quantplan.planning.request import quantizable
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.report.cells import estimate
from quantplan.report.domain_table import WORST
from quantplan.report.sibling_table import sibling_table
from quantplan.report.table import Columns, Table, table_of
from quantplan.sensitivity.domain_scales import level
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.probe import Probe, Scale
from quantplan.sensitivity.sibling import check_sibling, spread_over_costs
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

_SHOWN = 12  # the most sensitive tensors tell the story; hundreds of rows would hide it


@command
def probe(
    model: ModelOptions,
    imatrix: ImatrixOptions,
    calibration: InputTextOptions,
    types: TypesOptions,
    probing: ProbingOptions,
    execution: MomentExecutionOptions,
    output: OutputOptions,
    out: Path | None = out_option("Write the sensitivity table here, for solve --sensitivity FILE."),
    against: Path | None = option(
        "Instead: probe --sibling-probes tensors and say whether this table of a sibling holds.", metavar="FILE"
    ),
) -> None:
    """Measure what each tensor costs: swap it, rounded, into the loaded model and take the KL divergence.

    One swap prices every type of a tensor. Each finished tensor is kept: after an interruption the same command resumes. The
    sensitivity table joins the scales with the rounding error of every type.

    With --against TABLE (hf:// too), the table of a model with the same names and shapes, a few tensors are probed, spread
    over the costs in the table: whether it holds for this model, too, before a whole probe is paid for.

    Example, in a project: quantplan probe --chunks 8
    """
    source = options.model(model.file)
    importance = options.checked_imatrix(imatrix.imatrix, source)
    text = calibration.required(source)
    how = probing.estimation(source, parse_writable(types.types), execution)
    how = replace(how, probe=how.probe.on(text))
    tensors = quantizable(source)
    if against is not None:
        _against(against, source, importance, text, how, output)
        return
    if output.dry_run:
        _announce(source, tensors, importance, text, how, output.as_json)
        return
    with options.alone(), console.terminal() as report:
        estimated = price(source, tensors, importance, text, how, options.cache_folder(), report)
    warn_of_activation_quantization(estimated.table)
    if out:
        SENSITIVITY_TABLES.write(estimated.table, out)
        console.say(f"sensitivity table written to {out}")
    assert estimated.probe is not None
    if output.as_json:
        console.put_json(
            _as_json(source, estimated.probe) | {"encodings": estimated.table.made_from.get("encodings", {})}
        )
    else:
        _print(source, estimated.probe)


def _against(
    path: Path, source: Model, imatrix: Imatrix | None, text: Text, how: SensitivityOptions, output: OutputOptions
) -> None:
    with options.alone(), console.terminal() as report:
        table = read_table(path, source, report)
        if output.dry_run:
            chosen = spread_over_costs(table, source, imatrix, how.sibling_probes)
            console.put(f"would probe {len(chosen)} tensors: {', '.join(tensor.name for tensor in chosen)}")
            return
        cache = options.cache_folder()
        check = check_sibling(table, source, imatrix, text, how, how.sibling_probes, cache, report)
    if output.as_json:
        console.put_json({"model": str(source.path), "table": str(path)} | check.fields())
        return
    console.put_table(sibling_table(check))
    console.put(check.in_words())


def _announce(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    text: Text,
    how: SensitivityOptions,
    as_json: bool,
) -> None:
    """What would be measured, and the time that it takes by a short timing; tensors that are finished are not left out."""
    stages = of_table(model, tensors, imatrix, text, how, options.cache_folder(), timed(model, tensors, how.probe))
    chunks = how.probe.base_chunks(sys.maxsize)
    if as_json:
        console.put_json({"tensors": len(tensors), "chunks": chunks, "expected": estimate_fields(stages)})
        return
    console.put(f"{len(tensors)} tensors, {chunks} chunks of {how.probe.n_ctx} tokens each, one swap per tensor")
    put_estimate(stages)


def _as_json(model: Model, measured: Probe) -> dict[str, Any]:
    scales = [
        {
            "name": scale.tensor,
            "scale": scale.value,
            "scale_err": scale.stderr,
            "kld": scale.kld,
            "error": scale.error,
            "windows": scale.chunks,
        }
        for scale in measured.scales.values()
    ]
    return {
        "model": str(model.path),
        "tensors": scales,
        "domains": {name: {"kld_q4_k": kld.value, "err": kld.stderr} for name, kld in _by_text(measured).items()},
        "noise_floor": measured.floor,
        "not_found": list(measured.not_found),
        "overhead": measured.overhead,
        "forward_passes": measured.forward_passes,
        "seconds": measured.seconds,
    }


def _by_text(measured: Probe) -> dict[str, Estimate]:
    return level(measured) if measured.domains and measured.uniform else {}


def _print(model: Model, measured: Probe) -> None:
    columns: Columns[Scale] = (
        ("tensor", lambda scale: scale.tensor),
        ("scale", lambda scale: f"{scale.value:.5f}"),
        ("± s.e.", lambda scale: f"{scale.stderr:.5f}"),
        ("KLD of the swap", lambda scale: f"{scale.kld:.3e}"),
        ("chunks", lambda scale: str(scale.chunks)),
    )
    ordered = sorted(measured.scales.values(), key=lambda scale: -scale.value)
    console.put_table(table_of(f"{model.name}: KLD per unit of relative squared error", columns, ordered[:_SHOWN]))
    if len(ordered) > _SHOWN:
        console.say(f"{len(ordered) - _SHOWN} more tensors, down to {ordered[-1].value:.5f}; --json shows all")
    if by_text := _by_text(measured):
        worst = max(by_text, key=lambda name: by_text[name].value)
        rows = tuple((name, estimate(kld), WORST if name == worst else "") for name, kld in by_text.items())
        title = f"{model.name}: everything at Q4_K"
        console.put_table(Table(title, ("text", "KLD", "remark"), rows, texts=(0, 2)))
    console.say(f"noise floor of the forward pass: a KLD of {measured.floor:.1e}")
    if measured.not_found:
        console.warn(
            f"{len(measured.not_found)} tensors take no part in a forward pass; their scale is that of their role: "
            + ", ".join(measured.not_found[:3])
        )
    if measured.overhead is not None:
        console.say(
            f"{measured.forward_passes} forward passes in {measured.seconds:.0f} s; swapping and scoring took "
            f"{100 * measured.overhead:.0f} % on top of the passes"
        )
