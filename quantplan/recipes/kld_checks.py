"""Whether published figures behave as KL divergences do: tables of perplexities and of same-top shares have the same form.

A table is looked at as a whole. The KLD of a single tensor, even at one bit, is 0 or next to it for many tensors (at most .003
for the least of each table that was seen); perplexities are 1 and more, and shares lie near 1 or 100 for all. KLDs of whole
models are near 0 for types that lose next to nothing, and fall with bits.
"""

from collections.abc import Collection, Mapping

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type

_LEAST_VALUES = 8  # fewer tensors prove nothing
_LARGEST_LEAST = 0.3  # nats per token: no model has only tensors that cost so much
_NEAR_ZERO = 0.25  # of the median: what nearly lossless types may cost
_LOSSLESS_BITS, _LOSSY_BITS = 6.0, 4.6
_NEEDED = "a table of KLDs in nats per token is needed"


def check_sensitivities(name: str, values: Collection[float]) -> None:
    """BadFile where the figures of single tensors cannot be KLDs: even the least is large, or all are 0."""
    if len(values) >= _LEAST_VALUES and not any(values):
        raise BadFile(f"{name}: all {len(values)} figures are 0, so nothing was measured; {_NEEDED}")
    if len(values) >= _LEAST_VALUES and min(values) > _LARGEST_LEAST:
        raise BadFile(f"{name}: {_looks_like(min(values), max(values))}; {_NEEDED}")


def check_curve(name: str, costs: Mapping[str, float]) -> None:
    """BadFile where what whole models cost by type cannot be KLDs: not near 0 for nearly lossless types, or not falling with
    bits. Types of BitNet models are left out: they ruin any other model."""
    known = {label: quant for label in costs if not label.lower().endswith("_bn") and (quant := _type(label))}
    near = [costs[label] for label, quant in known.items() if quant.bits >= _LOSSLESS_BITS]
    lossy = sorted(costs[label] for label, quant in known.items() if quant.bits < _LOSSY_BITS)
    if not near or not lossy:
        return
    if min(near) > _NEAR_ZERO * lossy[len(lossy) // 2]:
        best = min((label for label in known if known[label].bits >= _LOSSLESS_BITS), key=lambda label: costs[label])
        values = [costs[label] for label in known]
        raise BadFile(
            f"{name}: the curve is {costs[best]:.4g} at {best}, where next to nothing is lost, and {lossy[len(lossy) // 2]:.4g} "
            f"at the median of the smaller types: {_looks_like(min(values), max(values))}; {_NEEDED}"
        )


def _looks_like(low: float, high: float) -> str:
    if high <= 1:
        return f"these look like shares ({low:.4g} to {high:.4g}), such as same top"
    if low > 20 and high <= 100:
        return f"these look like percentages ({low:.4g} to {high:.4g}), such as same top"
    return f"these look like perplexities ({low:.4g} to {high:.4g}, the base model's not subtracted)"


def _type(label: str) -> QuantType | None:
    try:
        return any_type(label)
    except NothingSelected:
        return None
