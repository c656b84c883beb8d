"""Whether the sensitivity table of one model holds for its sibling: a few tensors are probed there and compared.

What counts is how the two agree tensor by tensor. A factor that all tensors share changes no plan, only its expected KLD.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantplan.imatrix import Imatrix
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType, quant_type
from quantplan.records.codec import finite
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

HOLDS, ROUGH, FAILS, UNKNOWN = "holds", "rough", "fails", "unknown"
# What plans lose in KLD by scales with random errors, per squared standard deviation of ln(scale): 0.32 +- 0.03 on the reference
# model for deviations from 0.15 (0.7 %) to 1 (33 %) and sizes from 3.5 to 6 bpw (benchmarks/wrong_scales.py)
_LOSS = 0.32
_HOLDS_BELOW, _ROUGH_BELOW = 0.03, 0.1  # of that loss
_ADVICE = {
    HOLDS: "the table holds, plan with it",
    ROUGH: "the table is a rough guide; `quantplan probe` measures this model's own",
    FAILS: "the table does not hold; leave out --sensitivity, so that this model is probed",
}
_KERNEL_SHIFT = 1.5  # a shift of 2.4 cost plans of a fine-tune 11 % at 5 bpw and 26 % at 6, and 1 to 2 % below
_FEWEST = 3
_BITS = 4.5  # where most tensors of a plan end, and errors are clear of the noise floor


@dataclass(frozen=True)
class SiblingProbe:
    """One tensor at one type, in nats per token: what the table says of the weights' rounding and what was measured;
    ``relative_error``: of both. ``kernel``: the same pair of activation quantization, zeros where it is not known.
    """

    tensor: str
    type: str
    table: float
    measured: float
    relative_error: float
    kernel: tuple[float, float] = (0.0, 0.0)

    @property
    def log_ratio(self) -> float:
        """ln(table / measured)."""
        return math.log(self.table / self.measured)


@dataclass(frozen=True)
class SiblingCheck:
    """Tensors that were probed in the sibling, from the most to the least expensive. Those without a signal are left out."""

    probes: tuple[SiblingProbe, ...]

    @property
    def ratio(self) -> float:
        """KLD of the table over that measured, all probed tensors together; NaN where nothing was measured."""
        measured = sum(probe.measured for probe in self.probes)
        return sum(probe.table for probe in self.probes) / measured if measured else math.nan

    @property
    def kernel_shift(self) -> float:
        """How many times too large the table has activation quantization against the rounding of weights; NaN if not known."""
        table, measured = (sum(probe.kernel[side] for probe in self.probes) for side in (0, 1))
        return table / measured / self.ratio if table > 0 and measured > 0 else math.nan

    @property
    def correlation(self) -> float:
        """Pearson's r of the logarithms; NaN below three tensors."""
        if len(self.probes) < _FEWEST:
            return math.nan
        pairs = np.log([(probe.table, probe.measured) for probe in self.probes])
        return float(np.corrcoef(pairs.T)[0, 1])

    @property
    def spread(self) -> float:
        """Standard deviation of ln(table / measured) less what the errors of the probes explain; NaN below three tensors."""
        if len(self.probes) < _FEWEST:
            return math.nan
        seen = float(np.var([probe.log_ratio for probe in self.probes], ddof=1))
        explained = float(np.mean([probe.relative_error**2 for probe in self.probes]))
        return math.sqrt(max(0.0, seen - explained))

    @property
    def loss(self) -> float:
        """By what part the KLD of plans from this table is about above that of plans from a probe of the model itself."""
        return _LOSS * self.spread**2

    @property
    def verdict(self) -> str:
        """HOLDS, ROUGH, FAILS, or UNKNOWN where too little could be measured."""
        loss = self.loss
        if math.isnan(loss):
            return UNKNOWN
        return HOLDS if loss < _HOLDS_BELOW else ROUGH if loss < _ROUGH_BELOW else FAILS

    def in_words(self) -> str:
        """The figures and the verdict in a sentence, and what to do."""
        if self.verdict == UNKNOWN:
            return (
                f"{len(self.probes)} of its tensors gave a signal, too few to tell whether the table holds; probe more with "
                "--sibling-probes N, or the whole model with `quantplan probe`"
            )
        return (
            f"{len(self.probes)} tensors were probed: correlation of log KLD {self.correlation:.3f}, table / measured "
            f"{self.ratio:.2f} in sum, {math.exp(self.spread):.2f} times up or down by tensor, which costs plans about "
            f"{self.loss:.1%}: {_ADVICE[self.verdict]}{self._of_kernels()}"
        )

    def _of_kernels(self) -> str:
        shift = self.kernel_shift
        if math.isnan(shift) or abs(math.log(shift)) < math.log(_KERNEL_SHIFT):
            return ""
        times, which = (shift, "large") if shift > 1 else (1 / shift, "small")
        return (
            f". From 5 bits per weight on activation quantization decides, which the table has {times:.1f} times too {which} "
            "against the weights: for such files probe this model"
        )

    def fields(self) -> dict[str, object]:
        """For JSON."""
        return {
            "verdict": self.verdict,
            "tensors": [
                {
                    "name": probe.tensor,
                    "type": probe.type,
                    "kld_table": probe.table,
                    "kld": probe.measured,
                    "relative_error": probe.relative_error,
                }
                for probe in self.probes
            ],
            "correlation": finite(self.correlation),
            "ratio": finite(self.ratio),
            "spread": finite(self.spread),
            "loss": finite(self.loss),
            "kernel_shift": finite(self.kernel_shift),
        }


def check_sibling(
    table: SensitivityTable,
    model: Model,
    imatrix: Imatrix | None,
    calibration: Text,
    options: SensitivityOptions,
    count: int,
    cache: Path,
    report: Reporter = SILENT,
) -> SiblingCheck:
    """Probes ``count`` tensors of ``model`` that are spread over the costs in the table; raises what ``price`` raises."""
    chosen = spread_over_costs(table, model, imatrix, count)
    if not chosen:
        return SiblingCheck(())
    kinds = tuple(dict.fromkeys(chosen.values()))
    compensated = any(row.stock for row in table.rows.values())
    probe = replace(options.probe, level=False, extend=False)
    how = replace(options, types=kinds, probe=probe, compensate=compensated)
    rows = price(model, tuple(chosen), imatrix, calibration, how, cache, report).table.rows
    pairs = [
        _compared(table.rows[tensor.name], rows[tensor.name], kind.name)
        for tensor, kind in chosen.items()
        if kind.name in rows[tensor.name].weights
    ]
    return SiblingCheck(tuple(pair for pair in pairs if pair.table > 0 and pair.measured > 0))


def _compared(known: SensitivityRow, here: SensitivityRow, kind: str) -> SiblingProbe:
    error = math.hypot(known.relative_error, here.relative_error)
    kernel = (known.kernel.get(kind, 0.0), here.kernel.get(kind, 0.0))
    return SiblingProbe(known.tensor, kind, known.weights[kind], here.weights[kind], error, kernel)


def spread_over_costs(
    table: SensitivityTable, model: Model, imatrix: Imatrix | None, count: int
) -> dict[Tensor, QuantType]:
    """Tensors at even steps of rank from the most expensive to the least, each with the type that it is compared at."""
    priced = []
    for row in table.rows.values():
        tensor = model.by_name[row.tensor]
        kind = _compared_at(row, tensor, imatrix)
        if kind is not None and model.runs(tensor) and row.weights[kind.name] > 0:
            priced.append((row.weights[kind.name], tensor, kind))
    priced.sort(key=lambda each: (-each[0], each[1].name))
    steps = np.unique(np.linspace(0, len(priced) - 1, min(count, len(priced))).round().astype(int))
    return {priced[step][1]: priced[step][2] for step in steps}


def _compared_at(row: SensitivityRow, tensor: Tensor, imatrix: Imatrix | None) -> QuantType | None:
    kinds = [quant_type(name) for name in row.weights]
    smaller = [kind for kind in candidates(tensor, tuple(kinds), imatrix) if kind.bits < tensor.type.bits]
    return min(smaller, key=lambda kind: (abs(kind.bits - _BITS), kind.name != "Q4_K", kind.name), default=None)
