"""Options of the commands that price tensors, and the progress that they show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.execution import Execution

if TYPE_CHECKING:
    from quantplan.quant_type import QuantType
    from quantplan.sensitivity.estimate import SensitivityOptions
    from quantplan.sensitivity_table import SensitivityTable
    from quantplan.tensor import Model

ChunksOption = Annotated[
    int,
    typer.Option("--windows", "-w", help="Windows per tensor; 0 takes 2048 tokens, and more where the error decides."),
]
SampleOption = Annotated[
    str, typer.Option("--sample", help="Weights of a tensor to round-trip: a number such as 512k or 2M, or full.")
]


def sensitivity_options(
    model: Model,
    types: tuple[QuantType, ...],
    ctx: int | None,
    chunks: int,
    sample: str,
    execution: Execution,
) -> SensitivityOptions:
    from quantplan.errors import BadUsage
    from quantplan.sensitivity.estimate import SensitivityOptions
    from quantplan.sensitivity.tensor_swap import ProbeOptions

    if chunks < 0:
        raise BadUsage(f"--windows {chunks}: a number of windows, or 0 for the default")
    probe = ProbeOptions(options.ctx(ctx, model), chunks, chunks == 0, execution)
    return SensitivityOptions(types, probe, parse_sample(sample))


def parse_sample(text: str) -> int | None:
    """512k, 2M or 100000 weights; None for "full"."""
    from quantplan.errors import BadUsage

    if text.lower() == "full":
        return None
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isdigit() or int(digits) == 0:
        raise BadUsage(f"--sample {text}: write a number of weights such as 512k or 2M, or full")
    return int(digits) * factor


def warn_of_activation_quantization(table: SensitivityTable) -> None:
    """Says so where a measured table lacks the rounding of activations."""
    if table.calibrated and not table.backend:
        console.warn(
            "this backend's kernels round activations in a way of their own, which is not in the table: "
            "above 5.5 bits predictions are too low"
        )


def calibration_text(option: Path | None) -> str | None:
    from quantplan.project import read_text

    path = options.calibration(option)
    return read_text(path) if path else None
