"""Weights that lie on the grid of a quantized type: the model was quantized before, and that type loses nothing more."""

from collections import Counter
from collections.abc import Mapping

from quantplan.quant_type import BY_NAME
from quantplan.tensor import Model

LOSSLESS = (
    1e-6  # relative squared error: F16 rounds decoded values by 4e-8, the types that are meant lose 3e-5 and more
)


def lossless_types(model: Model, errors: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """By tensor the smallest quantized type that holds its weights exactly, its own left out; nothing for tensors of zeros."""
    found = {}
    for name, by_type in errors.items():
        own = model.by_name[name].type
        others = [BY_NAME[kind] for kind in by_type if kind != own.name and BY_NAME[kind].block > 1]
        exact = [kind for kind in others if by_type[kind.name] < LOSSLESS]
        if exact and not all(by_type[kind.name] == 0 for kind in others):
            found[name] = min(exact, key=lambda kind: kind.bits).name
    return found


def grid_note(lossless: Mapping[str, str], tensors: int) -> str | None:
    """What a person should know of it; None where no weights lie on a grid."""
    if not lossless:
        return None
    counts = ", ".join(f"{kind} ({count})" for kind, count in Counter(lossless.values()).most_common())
    return (
        f"the weights of {len(lossless)} of {tensors} tensors lie on the grid of a quantized type: this model was quantized "
        f"before. Lossless types: {counts}. Every KLD is against this file, not against the model that it was made from"
    )
