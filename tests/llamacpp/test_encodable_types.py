"""Which types can be written, as the installed library tells."""

import json
from dataclasses import replace

import pytest

from quantplan.errors import NothingSelected, ToolFailed
from quantplan.llamacpp import encodable_types as writable
from quantplan.llamacpp import ggml
from quantplan.llamacpp.encodable_types import parse_writable, writable_types
from quantplan.quant_type import BY_ID, BY_NAME, SETS, QuantType, quant_type

pytestmark = pytest.mark.llamacpp


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing asked yet; the file of answers."""
    monkeypatch.setattr(writable, "answers_file", lambda: tmp_path / "cache" / "types.json")
    writable_types.cache_clear()
    yield tmp_path / "cache" / "types.json"
    writable_types.cache_clear()


def test_the_library_writes_every_type_for_weights_of_the_table(fresh):
    found = writable_types()
    assert set(found) == {kind for kind in BY_NAME.values() if kind.for_weights}
    assert [kind.bits for kind in found] == sorted((kind.bits for kind in found), reverse=True)
    assert not fresh.exists()  # nobody had to be tried


def test_types_are_counted_by_the_library():
    numbers = range(writable.type_count())
    assert ggml.installed_name(numbers[-1]) in ("q2_0", *(kind.name.lower() for kind in BY_NAME.values()))
    assert max(BY_ID) in numbers


def test_a_type_that_the_table_lacks_is_tried_once_and_joins_it(fresh, monkeypatch):
    monkeypatch.delitem(BY_ID, 42)
    monkeypatch.delitem(BY_NAME, "Q2_0")
    with pytest.raises(NothingSelected):
        quant_type("Q2_0")
    new = QuantType("Q2_0", 42, 64, 18, "other")
    assert new in writable_types() and quant_type("q2_0") == new
    assert json.loads(fresh.read_text()) == {"Q2_0": True}
    assert new in parse_writable("any") and new not in parse_writable("all")

    writable_types.cache_clear()
    monkeypatch.delitem(BY_ID, 42)
    monkeypatch.setattr(writable, "survives", None)  # not asked again
    assert new in writable_types()


def test_a_type_that_ggml_cannot_encode_ends_only_the_process_that_tried(fresh):
    assert writable.installed_type(15) == QuantType("Q8_K", 15, 256, 292, "other")
    assert writable.survives(15) is False
    assert writable.survives(2) is True


def test_what_cannot_be_encoded_is_not_offered(fresh, monkeypatch):
    monkeypatch.delitem(BY_ID, 42)
    monkeypatch.delitem(BY_NAME, "Q2_0")
    monkeypatch.setattr(writable, "survives", lambda _number: False)
    assert "Q2_0" not in {kind.name for kind in writable_types()}
    with pytest.raises(NothingSelected):
        quant_type("Q2_0")


def test_a_library_that_disagrees_with_the_table_is_an_error(fresh, monkeypatch):
    monkeypatch.setitem(BY_ID, 12, replace(BY_NAME["Q4_K"], block_bytes=146))
    with pytest.raises(ToolFailed, match=r"has Q4_K of 256 weights in 144 bytes as type 12, .* 146; update quantplan"):
        writable_types()


def test_sets_hold_what_can_be_written(fresh, monkeypatch):
    assert {kind.name for kind in parse_writable("all")} == set(SETS["all"])
    assert set(parse_writable("any")) == set(writable_types())
    few = tuple(kind for kind in writable_types() if kind.name not in ("IQ4_NL", "Q1_0"))
    monkeypatch.setattr(writable, "writable_types", lambda: few)
    assert "IQ4_NL" not in {kind.name for kind in parse_writable("all,iq")}
    assert "Q1_0" not in {kind.name for kind in parse_writable("any,-IQ1_S")}
    with pytest.raises(NothingSelected, match="installed llama.cpp cannot write Q1_0; it writes F32"):
        parse_writable("k,Q1_0")
