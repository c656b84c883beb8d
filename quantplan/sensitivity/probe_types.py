"""Which type a tensor is swapped with to price all others."""

from quantplan.quant_type import BY_NAME, QuantType, fitted

# a swap prices types whose errors are like its own: of 3 bits and more, and 2 bits where a model is stored in little more.
# Weights that were quantized before lie on a grid, which some type hits with an error of 1e-8 (F16's rounding) or so
LEAST_ERROR, MOST_ERROR = 3e-4, 0.1


def probe_type(stored: QuantType, columns: int) -> QuantType:
    """The type to probe with: clearly below the stored one, so that its error stands out from re-encoding."""
    wanted = "Q4_K" if stored.bits > 5 else "Q3_K" if stored.bits > 4 else "Q2_K"
    return fitted(BY_NAME[wanted], columns)


def probe_types(stored: QuantType, columns: int) -> tuple[QuantType, ...]:
    """``probe_type`` and what may take its place where the weights lie on its grid, best first."""
    others = (fitted(BY_NAME[name], columns) for name in ("IQ4_XS", "Q3_K", "Q5_K", "Q2_K"))
    return tuple(dict.fromkeys((probe_type(stored, columns), *(kind for kind in others if kind.bits < stored.bits))))
