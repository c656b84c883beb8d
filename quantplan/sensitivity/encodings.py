"""Both encodings of a tensor, with importance and without, swapped into the loaded model at two types: what each type costs
in either.

Where the two types agree about the scale (KLD over the error weighted by importance) one swap prices all types, as everywhere.
Where they do not, or where the encoding without importance loses less, every type is priced by the swap whose error is spread
over the columns like its own, in both encodings, and the program takes the better one of the type that it chooses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantplan.imatrix import Imatrix
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import text_digest
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.collapse import VERSION, SampledErrors, Suspect, sampled_errors, suspects
from quantplan.sensitivity.swap_scale import scale_of
from quantplan.sensitivity.tensor_swap import ProbeOptions, Swap, TensorSwapper
from quantplan.sensitivity_table import SensitivityRow
from quantplan.tensor import Model
from quantplan.text import Text

# Scales of Q2_K to Q5_K differ by 1.13 times in the median and 1.30 at most on the reference model (31 tensors, 2048 tokens;
# standard deviation of the logarithm 0.09), by 23 with columns ten orders of magnitude apart
DISAGREE = 2.0


@dataclass(frozen=True)
class Encodings:
    """Two types of a tensor swapped with importance and without: KLD in nats per token and scale of each, by type."""

    klds: dict[str, float]
    klds_without: dict[str, float]
    scales: dict[str, float]
    scales_without: dict[str, float]

    @property
    def disagreement(self) -> float:
        """The larger scale over the smaller, with importance; 1 where a swap has no signal."""
        low, high = min(self.scales.values()), max(self.scales.values())
        return high / low if low > 0 else 1.0

    @property
    def better_without(self) -> tuple[str, ...]:
        """The types that lose less without importance."""
        return tuple(kind for kind, kld in self.klds.items() if self.klds_without[kind] < kld)

    def __bool__(self) -> bool:
        """Whether there is anything to choose."""
        return bool(self.better_without) or self.disagreement > DISAGREE

    def fields(self) -> dict[str, object]:
        """For JSON."""
        return {**vars(self), "disagreement": self.disagreement, "in_words": self.in_words()}

    def in_words(self) -> str:
        """What was measured, for a warning or an explanation."""
        pairs = (f"{kind}: KLD {kld:.3g}, {self.klds_without[kind]:.3g} without" for kind, kld in self.klds.items())
        scales = f"; scales {self.disagreement:.1f} times apart" if self.disagreement > DISAGREE else ""
        return f"{', '.join(pairs)}{scales}"


def better_encodings(
    model: Model,
    rows: Mapping[str, SensitivityRow],
    imatrix: Imatrix,
    text: Text,
    types: tuple[QuantType, ...],
    options: ProbeOptions,
    floor: float,
    cache: Path,
) -> dict[str, tuple[SensitivityRow, Encodings]]:
    """The rows that change when both encodings are offered, and why; empty for nearly every model."""
    tensors = [model.by_name[name] for name in rows]
    found = suspects(model, tensors, imatrix, cache)
    measured = both_encodings(model, found, imatrix, text, options, floor, cache) if found else {}
    changed = {}
    for name, encodings in measured.items():
        importance = imatrix.quantize_weights(model.by_name[name])
        if encodings and importance is not None:
            kinds = (*candidates(model.by_name[name], types, imatrix), *found[name].kinds)
            errors = sampled_errors(model, model.by_name[name], importance, dict.fromkeys(kinds))
            changed[name] = with_choice(rows[name], encodings, errors), encodings
    return changed


def both_encodings(
    model: Model,
    suspects: Mapping[str, Suspect],
    imatrix: Imatrix,
    text: Text,
    options: ProbeOptions,
    floor: float,
    cache: Path,
) -> dict[str, Encodings]:
    """By tensor what its swaps say, of those that take part in a forward pass. ``floor``: of the probe."""
    made_from = (VERSION, model.digest, imatrix.digest, text_digest(text), options.n_ctx, options.chunks)
    results: Cache[Any] = Cache(Plain(), cache, "importance", *made_from)
    missing = [name for name in suspects if name not in results]
    if missing:
        entries: dict[str, dict[str, list[Any]]] = {name: {} for name in missing}
        for given in (imatrix, imatrix.without(missing)):
            with TensorSwapper(model, given, text, replace(options, moments=None)) as swapper:
                survey = swapper.survey(missing)
                chunks = options.base_chunks(survey.chunks)
                for name in survey.reachable:
                    for kind in dict.fromkeys(suspects[name].kinds):
                        swapped = swapper.run(Swap(name, (name,), kind.name, 0, chunks))
                        entry = {"klds": swapped.klds, "error": swapped.errors[name]}
                        entries[name].setdefault(kind.name, []).append(entry)
        for name in missing:
            results.put(name, entries[name])
    return {name: _of(name, results[name], floor) for name in suspects if results[name]}


def _of(name: str, entries: Mapping[str, list[dict]], floor: float) -> Encodings:
    scales = {kind: [scale_of(name, entry, floor) for entry in pair] for kind, pair in entries.items()}
    return Encodings(
        klds={kind: pair[0].kld for kind, pair in scales.items()},
        klds_without={kind: pair[1].kld for kind, pair in scales.items()},
        scales={kind: pair[0].value for kind, pair in scales.items()},
        scales_without={kind: pair[1].value for kind, pair in scales.items()},
    )


def with_choice(row: SensitivityRow, encodings: Encodings, errors: Mapping[QuantType, SampledErrors]) -> SensitivityRow:
    """The row with the better encoding of every type. ``errors``: of the types on sampled rows.

    Types whose ``weights`` are those of error-compensated rounding keep it where that loses less.
    """
    weights, stock, without = dict(row.weights), dict(row.stock), []
    for kind, error in errors.items():
        if (
            kind.name not in weights or not weights[kind.name]
        ):  # nothing to lose: a lossless type, or a tensor that is not run
            continue
        cost = error.weighted * _nearest(encodings.scales, errors, error, lambda each: each.share)
        plain = error.unweighted * _nearest(encodings.scales_without, errors, error, lambda each: each.unweighted)
        if plain < cost:
            without.append(kind.name)
        best = min(cost, plain)
        if kind.name in stock and weights[kind.name] < best:
            stock[kind.name] = best
        else:
            stock.pop(kind.name, None)
            weights[kind.name] = best
    return replace(row, weights=weights, stock=stock, without_importance=tuple(without))


def _nearest(
    scales: Mapping[str, float],
    errors: Mapping[QuantType, SampledErrors],
    error: SampledErrors,
    likeness: Callable[[SampledErrors], float],
) -> float:
    """The scale of the swapped type that is most like a type with this error."""

    def distance(kind: str) -> float:
        one, other = (max(likeness(each), 1e-12) for each in (errors[BY_NAME[kind]], error))
        return abs(math.log(one) - math.log(other))

    return scales[min(scales, key=distance)]


def encodings_note(imatrix: Imatrix, changed: Mapping[str, tuple[SensitivityRow, Encodings]]) -> str:
    """What a person should know of tensors whose types are planned in the better of both encodings."""
    shown = "; ".join(f"{name} ({each.in_words()})" for name, (_, each) in list(changed.items())[:3])
    return (
        f"{imatrix.path.name}: extreme columns spoil the encoding of {len(changed)} tensors with importance, or types disagree "
        f"about what their errors cost: {shown}{' and more' if len(changed) > 3 else ''}. Each type is planned in the better of "
        "both encodings"
    )
