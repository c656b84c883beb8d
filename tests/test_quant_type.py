"""The table of types against the installed libggml, and the ways to name types."""

import re

import pytest

from quantplan.errors import NothingSelected
from quantplan.llamacpp import ggml
from quantplan.quant_type import (
    BY_ID,
    BY_NAME,
    SETS,
    QuantType,
    fitted,
    foreign_type,
    ggml_type,
    parse_types,
    quant_type,
    register,
    weight_type,
)

ALL = sorted(BY_NAME.values(), key=lambda kind: kind.ggml_id)
# as which ggml's enum stood when the table was made: numbers of types that were removed stay unused
REMOVED = {4, 5, 31, 32, 33, 36, 37, 38}
INTERNAL = {9, 15}  # Q8_1 and Q8_K: what kernels round activations to, never stored


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_table_is_that_of_the_installed_library(kind):
    assert ggml.installed_name(kind.ggml_id).upper() == kind.name
    assert ggml.installed_block(kind.ggml_id) == (kind.block, kind.block_bytes)


def test_no_stored_type_of_the_library_is_missing():
    known = set(BY_ID) | REMOVED | INTERNAL
    unknown = {number: ggml.installed_name(number) for number in range(43) if number not in known}
    assert unknown == {}
    assert ggml_type(9) is None
    assert ggml_type(12) is BY_NAME["Q4_K"]


def test_types_that_ggml_refuses_without_importance_need_an_imatrix():
    refused = {kind.name for kind in ALL if kind.for_weights and ggml.aborts_without_imatrix(kind)}
    assert refused == {"IQ1_S", "IQ2_XXS", "IQ2_XS"}
    assert all(BY_NAME[name].needs_imatrix for name in refused)
    # llama-quantize asks for it for these as well, though ggml could do without
    assert {kind.name for kind in ALL if kind.needs_imatrix} - refused == {"IQ1_M", "IQ2_S", "IQ3_XXS"}


def test_types_for_weights_can_be_encoded_and_the_others_are_refused():
    import numpy as np

    weights = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 256)
    ones = np.ones((1, 256), np.float32)
    for kind in ALL:
        if kind.family == "iq":
            continue  # their tables take seconds to make; tests/llamacpp/test_ggml.py encodes them
        if kind.for_weights:
            assert ggml.quantize(weights, kind, ones).shape == (1, kind.row_bytes(256))
        else:
            with pytest.raises(ValueError, match="encodes no weights"):
                ggml.quantize(weights, kind, ones)
    assert {kind.name for kind in ALL if not kind.for_weights} == {"F64", "I8", "I16", "I32", "I64"}


def test_bits_and_row_bytes():
    assert BY_NAME["Q4_K"].bits == 4.5
    assert BY_NAME["Q4_K"].row_bytes(512) == 288
    assert BY_NAME["F16"].row_bytes(7) == 14
    with pytest.raises(ValueError, match="rows of 288 weights"):
        BY_NAME["Q4_K"].row_bytes(288)


@pytest.mark.parametrize(
    "wanted, columns, stored",
    [
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 288, "Q5_0"),
        ("Q5_K", 288, "Q5_1"),
        ("Q6_K", 288, "Q8_0"),
        ("Q2_K", 288, "Q4_0"),
        ("Q3_K", 288, "Q4_0"),
        ("IQ2_XXS", 288, "IQ4_NL"),
        ("IQ4_XS", 288, "IQ4_NL"),
        ("Q8_0", 288, "Q8_0"),
        ("Q4_K", 100, "F16"),
        ("Q8_0", 100, "F16"),
        ("MXFP4", 100, "F16"),
        ("F32", 100, "F32"),
    ],
)
def test_fitted(wanted, columns, stored):
    assert fitted(BY_NAME[wanted], columns).name == stored


def test_types_of_one_bit():
    assert {kind.name for kind in ALL if kind.one_bit} == {"IQ1_S", "IQ1_M", "TQ1_0", "Q1_0"}


def test_a_type_joins_the_table_only_where_its_name_and_number_are_free(monkeypatch):
    new = QuantType("Q7_X", 99, 32, 30, "other")
    for table, key in ((BY_NAME, "Q7_X"), (BY_ID, 99)):
        monkeypatch.setitem(table, key, new)
        monkeypatch.delitem(table, key)  # gone again after the test
    register(new)
    register(new)
    assert quant_type("q7_x") is ggml_type(99) is new
    for other in (QuantType("Q7_X", 98, 32, 30, "other"), QuantType("Q7_Y", 99, 32, 30, "other")):
        with pytest.raises(ValueError, match="cannot join the table"):
            register(other)


def test_names_in_any_case_and_near_names():
    assert quant_type(" q4_k ").name == "Q4_K"
    with pytest.raises(NothingSelected, match="did you mean Q6_K"):
        quant_type("Q9_K")
    with pytest.raises(NothingSelected, match="known types: F32"):
        quant_type("hello")


def test_weight_type_refuses_what_holds_no_weights():
    assert weight_type("f16") is BY_NAME["F16"]
    with pytest.raises(NothingSelected, match="I8 is no type for weights; choose one of F32"):
        weight_type("i8")


def names(text):
    return [kind.name for kind in parse_types(text)]


def test_parse_types():
    assert names("k") == ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"]
    assert names("Q4_K,q6_k") == names(" q6_k q4_k") == ["Q6_K", "Q4_K"]
    assert set(names("all,-iq")) == set(SETS["all"]) - set(SETS["iq"])
    assert "F16" in names("all") and "TQ1_0" not in names("all")
    assert names("all")[0] == "F16"
    bits = [kind.bits for kind in parse_types("all")]
    assert bits == sorted(bits, reverse=True)
    assert set(names("any")) == {kind.name for kind in ALL if kind.for_weights}
    assert set(names("any")) - set(names("any,-float")) == set(SETS["float"])
    assert "Q3_K" not in names("k,-Q3_K") and len(names("k,-Q3_K")) == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no quantization type is left"),
        ("k,-k", "is left of 'k,-k'"),
        ("k,Q9_K", "sets: k, iq"),
        ("I32", "no type for weights"),
    ],
)
def test_parse_types_errors(text, message):
    with pytest.raises(NothingSelected, match=message):
        parse_types(text)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (31, "Q4_0_4_4, which llama.cpp has removed"),
        (4, "Q4_2, which llama.cpp has removed"),
        (139, "type 139, IQ4_K of ik_llama.cpp"),
        (144, "IQ4_KS of ik_llama.cpp"),
        (152, "IQ5_KS of ik_llama.cpp"),
        (158, "IQ1_KT of ik_llama.cpp"),
        (212, "Q4_K_R4 of ik_llama.cpp"),
        (223, "IQ4_XS_R8 of ik_llama.cpp"),
        (339, "IQ4_K_R4 of ik_llama.cpp"),
        (352, "IQ5_KS_R4 of ik_llama.cpp"),
        (399, "Q8_K_R8 of ik_llama.cpp"),
        (36, "I2_S of bitnet.cpp"),
        (99, "type 99, which this quantplan does not know"),
    ],
)
def test_types_that_llama_cpp_does_not_have_are_named(number, words):
    assert re.search(words, foreign_type(number))
