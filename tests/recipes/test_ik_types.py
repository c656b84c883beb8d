import pytest

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.recipes.ik_types import any_type, ik_name, is_foreign, nearest, replace_foreign


def fits_all(kind):
    return not kind.needs_imatrix


@pytest.mark.parametrize(
    ("asked", "bits", "taken"),
    [
        ("iq4_kt", 4.0, "IQ4_XS"),
        ("iq2_k", 2.375, "Q2_K"),
        ("q6_0", 6.5, "Q6_K"),
        ("iq5_ks", 5.25, "Q5_K"),
        ("iq6_k", 6.625, "Q6_K"),
        ("q8_kv", 8.0, "Q8_0"),
        ("iq3_k", 3.4375, "Q3_K"),
        ("q4_0_r8", 4.5, "Q4_0"),
        ("iq4_nl_r4", 4.5, "IQ4_NL"),
        ("q8_k_r8", 8.0625, "Q8_0"),
        ("iq5_k_r4", 5.5, "Q5_K"),
        ("q4_0_4_8", 4.5, "Q4_0"),
    ],
)
def test_nearest_by_bits(asked, bits, taken):
    kind = any_type(asked)
    assert is_foreign(kind) and kind.bits == bits
    assert nearest(kind, fits_all).name == taken


def test_types_with_a_row_length_or_imatrix_that_is_not_there_are_passed_over():
    assert nearest(any_type("iq4_kt"), lambda kind: kind.fits(1408)).name == "IQ4_NL"  # 4.5 bits: nothing of 256
    assert nearest(any_type("iq2_kt"), fits_all).name == "Q2_K"
    assert nearest(any_type("iq2_kt"), lambda kind: True).name == "IQ2_XXS"
    assert nearest(any_type("iq2_xxs_r4"), fits_all).name == "Q2_K"  # the same bits, but they need an imatrix


def test_names():
    assert any_type("Q4_K") is BY_NAME["Q4_K"]
    assert not is_foreign(any_type("iq4_xs"))
    assert [ik_name(BY_NAME[name]) for name in ("Q4_K", "IQ4_XS", "Q8_0", "F32", "MXFP4")] == [
        "q4_K",
        "iq4_xs",
        "q8_0",
        "f32",
        "mxfp4",
    ]
    with pytest.raises(BadUsage, match="no type TQ2_0"):
        ik_name(BY_NAME["TQ2_0"])
    with pytest.raises(NothingSelected, match="Q6_K"):
        any_type("q6k")


def test_replacements_are_told_by_type():
    asked = {"a": any_type("iq4_kt"), "b": any_type("iq4_kt"), "c": BY_NAME["Q8_0"], "d": any_type("q6_0")}
    types, replaced = replace_foreign(
        asked, lambda name, kind: kind.fits(64 if name == "b" else 256) and fits_all(kind)
    )
    assert {name: kind.name for name, kind in types.items()} == {"a": "IQ4_XS", "b": "IQ4_NL", "c": "Q8_0", "d": "Q6_K"}
    assert str(replaced[0]) == (
        "IQ4_KT (4 bits; 2 tensors, first a), nearest: IQ4_XS (4.25 bits, 1 of them), IQ4_NL (4.5 bits, 1 of them)"
    )
    assert str(replaced[1]) == "Q6_0 (6.5 bits; d), nearest: Q6_K (6.562 bits)"
    with pytest.raises(NothingSelected, match="no type of llama.cpp fits"):
        replace_foreign(asked, lambda name, kind: False)
