"""Options that say what is to be planned, shared by the commands that solve, and what they stand for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.execution import Execution

if TYPE_CHECKING:
    from quantplan.devices.limits import Devices
    from quantplan.devices.speed.table import SpeedTable
    from quantplan.planning.request import PlanRequest
    from quantplan.quant_type import QuantType
    from quantplan.sensitivity.estimate import SensitivityOptions
    from quantplan.sensitivity_table import SensitivityTable
    from quantplan.solve.constraints import Constraints
    from quantplan.tensor import Model

DEFAULT_CONTEXT = 4096  # llama.cpp's own default

PinOption = Annotated[list[str] | None, typer.Option("--pin", help="SELECTOR=TYPE: these tensors take this type.")]
FloorOption = Annotated[list[str] | None, typer.Option("--min", help="SELECTOR=TYPE: at least as many bits as TYPE.")]
CeilingOption = Annotated[list[str] | None, typer.Option("--max", help="SELECTOR=TYPE: at most as many bits as TYPE.")]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="SELECTOR=TYPES: choose among these types there, not among --types.")
]
TieOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tie", help="One type for: qkv, gate-up, experts, SELECTOR,SELECTOR (in each block), blocks=4, blocks=0-7."
    ),
]
MostTypesOption = Annotated[
    int | None, typer.Option("--max-types", min=1, help="At most so many different types (or mixes).")
]
PerOption = Annotated[str, typer.Option("--per", help="tensor, or layer: one FTYPE mix for each block (LAYER_TYPES).")]
MonotoneOption = Annotated[
    bool,
    typer.Option("--monotone", help="Layer mode: mixes only grow, or only shrink, from the first block to the last."),
]
ValleyOption = Annotated[
    bool, typer.Option("--valley", help="Layer mode: mixes shrink from the first block on, then grow to the last.")
]
OneBitOption = Annotated[
    bool, typer.Option("--allow-1-bit", help="Types below 2 bits outside experts too: they ruin most models.")
]
SensitivityOption = Annotated[
    str | None, typer.Option("--damage", help="A damage table (FILE), or prior: read no weights.")
]
NoProbeOption = Annotated[bool, typer.Option("--no-probe", help="Weights and imatrix only; the plan is uncalibrated.")]

VramOption = Annotated[
    str | None,
    typer.Option("--vram", "--gpu", help="What the file, its KV cache and buffers may take on the GPU: 24GiB."),
]
RamOption = Annotated[
    str | None,
    typer.Option("--ram", "--cpu", help="What may be taken in RAM by what --on-cpu names (default: experts)."),
]
ContextOption = Annotated[
    int | None, typer.Option("--ctx", "-c", min=1, help="Context to run with, for --vram (default 4096).")
]
KvOption = Annotated[str | None, typer.Option("--kv", help="Type of the KV cache for --vram: f16, q8_0, or K,V.")]
OnCpuOption = Annotated[list[str] | None, typer.Option("--on-cpu", help="SELECTOR: these tensors stay in RAM.")]
MinTpsOption = Annotated[
    float | None,
    typer.Option("--min-tps", help="At least so many tokens/s at generation, by this machine's measured speeds."),
]


def constraints(
    pin: list[str] | None = None,
    minimum: list[str] | None = None,
    maximum: list[str] | None = None,
    only: list[str] | None = None,
    tie: list[str] | None = None,
    most_types: int | None = None,
    monotone: bool = False,
    valley: bool = False,
    one_bit: bool = False,
) -> Constraints:
    """Raises BadUsage, NothingSelected for words that are no wish."""
    from quantplan.errors import BadUsage
    from quantplan.llamacpp.encodable_types import parse_writable
    from quantplan.quant_type import weight_type
    from quantplan.selector import parse_assignment
    from quantplan.solve.constraints import Constraints

    def parsed(texts: list[str] | None) -> tuple:
        pairs = [parse_assignment(text) for text in texts or []]
        return tuple((selector, weight_type(kind)) for selector, kind in pairs)

    if monotone and valley:
        raise BadUsage("--monotone and --valley: choose one course over the blocks")
    sets = [parse_assignment(text) for text in only or []]
    course = "monotone" if monotone else "valley" if valley else None
    choices = tuple((selector, parse_writable(kinds)) for selector, kinds in sets)
    ties = tuple(tie or ())
    return Constraints(parsed(pin), parsed(minimum), parsed(maximum), choices, ties, most_types, course, one_bit)


def request(
    model: Path | None,
    imatrix: Path | None,
    types: str,
    budget: str | None,
    wanted: Constraints,
    per: str,
    objective: str = "sum",
    most_kld: float | None = None,
    devices: Callable[[Model], Devices | None] = lambda _: None,
    least_tps: float | None = None,
) -> PlanRequest:
    """The request that the options make, checked as far as nothing need be measured for it."""
    from quantplan.errors import BadUsage
    from quantplan.imatrix import coverage_notes
    from quantplan.llamacpp.encodable_types import parse_writable
    from quantplan.planning import request as planning

    if per not in ("tensor", "layer"):
        raise BadUsage(f"--per {per}: tensor or layer")
    source = options.model(model)
    importance = options.imatrix(imatrix, source)
    if importance is None:
        console.warn("no imatrix: types that need one are left out; make one with `quantplan imatrix`")
    for note in coverage_notes(importance, source) if importance else ():
        console.warn(note)
    command = shlex.join(["quantplan", *sys.argv[1:]])
    made = planning.PlanRequest(
        source,
        importance,
        parse_writable(types),
        budget,
        wanted,
        per,
        command,
        objective,
        most_kld,
        devices(source),
        least_tps,
    )
    planning.check(made)
    return made


def devices(
    vram: str | None, ram: str | None, ctx: int | None, kv: str | None, on_cpu: list[str] | None
) -> Callable[[Model], Devices | None]:
    """What the options say of the machine that shall run the file, for a model; BadUsage where they do not go together."""
    from quantplan.budget import parse_size
    from quantplan.devices.limits import Devices, default_on_cpu
    from quantplan.devices.memory import parse_kv
    from quantplan.errors import BadUsage
    from quantplan.selector import Selector

    if vram is None and ram is None:
        alone = {"--ctx": ctx, "--kv": kv, "--on-cpu": on_cpu}
        if odd := [name for name, value in alone.items() if value]:
            raise BadUsage(
                f"{odd[0]} speaks of memory: give --vram (and --ram) too; the probe's windows are set with --window"
            )
        return lambda _: None
    sizes = [parse_size(text, name) if text else None for text, name in ((vram, "--vram"), (ram, "--ram"))]
    selectors = tuple(Selector(text) for text in on_cpu or ())

    def for_model(model: Model) -> Devices:
        moved = selectors or (default_on_cpu(model) if ram is not None else ())
        return Devices(*sizes, ctx or DEFAULT_CONTEXT, parse_kv(kv or "f16"), moved)

    return for_model


def sensitivity_table(
    made: PlanRequest, wanted: SensitivityOptions, damage: str | None, no_probe: bool, calibration: Path | None
) -> SensitivityTable:
    """The damage table for a request: from a file, from the prior, or measured."""
    from quantplan.cli.probe_options import calibration_text, warn_of_activation_quantization
    from quantplan.errors import BadUsage
    from quantplan.planning.request import quantizable, read_table
    from quantplan.sensitivity.estimate import price, prior_table

    model, tensors = made.model, quantizable(made.model)
    if damage == "prior":
        return prior_table(model, tensors, wanted.types, made.imatrix)
    if damage is not None:
        return read_table(damage, model)
    text = None if no_probe else calibration_text(calibration)
    if text is None and not no_probe:
        raise BadUsage(
            "no calibration text: give --calibration FILE to probe, or --no-probe to plan from weights and imatrix alone"
        )
    with console.terminal() as report:
        priced = price(model, tensors, made.imatrix, text, wanted, options.cache_folder(), report)
    warn_of_activation_quantization(priced.table)
    if priced.probe and priced.probe.overhead is not None:
        console.say(f"probed {len(priced.probe.scales)} tensors in {priced.probe.seconds:.0f} s")
    return priced.table


def speeds(made: PlanRequest, types: tuple[QuantType, ...], execution: Execution) -> SpeedTable | None:
    """This machine's speeds: measured where a limit needs them, else only where they are all known already."""
    from quantplan.devices.speed.measure import SpeedOptions, pending, speed_table

    wanted, folder = SpeedOptions(execution), options.cache_folder()
    if made.least_tps is None and (execution.gpu_layers or pending(made.model, types, wanted, folder)[0]):
        return None
    with console.terminal() as report:
        return speed_table(made.model, types, wanted, folder, report)


def sensitivity_source(damage: str | None, no_probe: bool, calibration: Path | None) -> str:
    """Where the damage would come from, in words."""
    if damage:
        return f"damage table {damage}"
    return "weights and prior" if no_probe else f"probe on {options.calibration(calibration)}"
