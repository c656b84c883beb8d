"""Tables that look like tables of KLDs, and are none."""

import numpy as np
import pytest

from quantplan.errors import BadFile
from quantplan.recipes.kld_checks import check_curve, check_sensitivities

RANDOM = np.random.default_rng(0)
KLDS = RANDOM.lognormal(-5, 1.5, 200)
CURVE = {
    "bf16": 0.0,
    "q8_0": 0.005,
    "q6_K": 0.008,
    "q5_K": 0.015,
    "q4_K": 0.04,
    "iq3_s": 0.2,
    "q2_K": 0.9,
    "iq1_bn": 15.0,
}


def test_klds_pass():
    check_sensitivities("t", KLDS)
    check_sensitivities("t", [0.03] * 9)  # made up, or groups
    check_curve("t", CURVE)
    check_curve("t", {name: cost for name, cost in CURVE.items() if name not in ("bf16", "q8_0")})
    check_curve("t", {"q4_K": 0.04, "q2_K": 0.9})
    check_curve("t", {"q6_K": 0.0, "iq4_ks": 0.0, "q2_K": 0.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (4.72 + KLDS, "perplexities .4.72"),
        (4.72 * np.exp(30 * KLDS), "perplexities"),  # some tensors ruin the model
        (np.log(4.72) + KLDS, "perplexities"),
        (1 - KLDS / 10, "shares .*same top"),
        (100 - 10 * KLDS, "percentages .*same top"),
    ],
)
def test_perplexities_and_shares_of_tensors(values, words):
    with pytest.raises(BadFile, match=f"t: these look like {words}.*a table of KLDs"):
        check_sensitivities("t", values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kld: 4.5 * np.exp(kld), "perplexities"),
        (lambda kld: np.exp(-kld), "shares"),
        (lambda kld: 100 * np.exp(-kld / 4), "percentages"),
    ],
)
@pytest.mark.parametrize("left_out", [(), ("bf16",), ("bf16", "q8_0")])
def test_perplexities_and_shares_of_types(change, words, left_out):
    curve = {name: float(change(cost)) for name, cost in CURVE.items() if name not in left_out}
    with pytest.raises(BadFile, match=f"t: the curve is .* look like {words}"):
        check_curve("t", curve)


def test_a_table_of_nothing_but_zeros():
    with pytest.raises(BadFile, match="t: all 50 figures are 0, so nothing was measured"):
        check_sensitivities("t", np.zeros(50))
