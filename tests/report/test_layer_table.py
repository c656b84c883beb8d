"""Layer maps as tables: runs of one fate in a row, every layer accounted for."""

import pytest

from quantplan.report.layer_table import layer_kinds, layer_table
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import parse_edits


def grid(blocks, text):
    return layer_table(apply_edits(blocks, parse_edits(text)), "title")


def test_the_published_models():
    assert grid(28, "delete 10; swap 11 12").rows == (
        ("0-9", "0-9", "in place"),
        ("10", "11", "moved"),
        ("11", "13", "moved"),
        ("12", "12", "in place"),
        ("13-26", "14-27", "moved"),
    )
    assert grid(28, "delete 10; swap 11 12").notes == ("left out: 10",)
    assert grid(24, "repeat 8-11").rows == (
        ("0-11", "0-11", "in place"),
        ("12-15", "8-11", "copy"),
        ("16-27", "12-23", "moved"),
    )


def test_what_is_computed_stands_alone():
    assert grid(6, "blend 1 2 0.25 into 1; scale 2-3 0.5").rows == (
        ("0", "0", "in place"),
        ("1", "0.75 of 1 + 0.25 of 2", "blend"),
        ("2", "2 x 0.5", "scaled"),
        ("3", "3 x 0.5", "scaled"),
        ("4-5", "4-5", "in place"),
    )


def test_layers_that_nothing_is_made_of():
    assert grid(10, "delete 1-3 7; blend 0 1 into 1").notes == ("left out: 1-3 7",)
    assert grid(10, "swap 0 1").notes == ()


@pytest.mark.parametrize("text", ["keep 0 0 0 5 4 3", "reverse 0-9", "repeat 0-9 x3", "delete 0-8"])
def test_rows_hold_every_layer_once(text):
    made = apply_edits(10, parse_edits(text))
    counted, kinds = [], layer_kinds(made)
    for span, _, kind in layer_table(made, "title").rows:
        first, _, last = span.partition("-")
        layers = range(int(first), int(last or first) + 1)
        assert {kinds[layer] for layer in layers} == {kind}
        counted += layers
    assert counted == list(range(len(made)))
