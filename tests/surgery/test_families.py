"""Families of edits and the candidates of a search: which there are, each once, translated to where layers stand."""

import pytest

from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import edits_text, parse_edits
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.candidates import COMBINED, Candidate, CandidateFilter, check_explicit, extended
from quantplan.surgery.search.families import NAMES, Pass, parse_family


def texts(edits):
    return [str(edit) for edit in edits]


def one(text):
    (edit,) = parse_edits(text)
    return edit


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


# -- families


def test_the_two_passes_over_24_layers():
    family = parse_family("repeat:8/4", 24)
    assert family == parse_family("repeat", 24)
    assert texts(family.first(24)) == [f"repeat {at}-{at + 7}" for at in (0, 4, 8, 12, 16)]
    finer = texts(family.around(one("repeat 4-11"), 1, 24))
    assert finer == [f"repeat {at}-{at + 3}" for at in range(13)]
    assert {"repeat 8-11", "repeat 7-10"} <= set(finer)


def test_finer_ranges_stay_inside_the_model():
    family = parse_family("repeat:8/4", 24)
    finer = family.around(one("repeat 16-23"), 1, 24)
    assert [edit.spans[0].first for edit in finer] == list(range(12, 21))


def test_a_stride_leaves_no_layer_out():
    assert [span.first for span in Pass(10, 5).ranges(0, 27)] == [0, 5, 10, 15, 18]
    assert [span.first for span in Pass(8, 4).ranges(0, 23)] == [0, 4, 8, 12, 16]
    assert Pass(5).ranges(0, 3) == []


@pytest.mark.parametrize("blocks", [3, 10, 24, 28])
@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_can_be_typed_and_applied(name, blocks):
    edits = parse_family(name, blocks).first(blocks)
    assert edits and len(set(edits)) == len(edits)
    assert list(parse_edits(edits_text(edits))) == edits
    for edit in edits:
        assert apply_edits(blocks, [edit]).original == blocks


def test_sizes_of_the_families():
    count = {name: len(parse_family(name, 10).first(10)) for name in NAMES}
    assert count["delete"] == 10 and count["swap"] == 45 and count["bridge"] == 45
    assert count["scale"] == 20 and count["merge"] == 9 and count["blend"] == 16
    assert count["move"] == 81  # each of 10 behind each other one, but not behind the one it follows already
    assert count["cycle"] == 16 and count["reverse"] == 8 and count["triple"] == 10


def test_options_of_families():
    assert texts(parse_family("delete:2", 4).first(4)) == ["delete 0-1", "delete 1-2", "delete 2-3"]
    assert texts(parse_family("swap:1", 4).first(4)) == ["swap 0 1", "swap 1 2", "swap 2 3"]
    assert texts(parse_family("blend:0.3", 3).first(3)) == ["blend 0 2 0.3", "blend 0 2 0.3 into 1"]
    assert texts(parse_family("scale:0.9", 2).first(2)) == ["scale 0 0.9", "scale 1 0.9"]
    assert texts(parse_family("triple:2/2", 4).first(4)) == ["repeat 0-1 x3", "repeat 2-3 x3"]
    three = parse_family("repeat:8/4,4/2,2", 24)
    assert len(three.passes) == 3
    assert texts(three.around(one("repeat 8-11"), 2, 24)) == [f"repeat {at}-{at + 1}" for at in range(6, 13)]


def test_a_family_is_named_as_it_is_typed():
    for text in ("repeat:8/4,4", "swap:3", "blend:0.3,0.5", "delete:1", "move"):
        assert str(parse_family(text, 24)) == text
        assert parse_family(str(parse_family(text, 24)), 24) == parse_family(text, 24)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unknown", "the families are delete"),
        ("delete:x", "the form is"),
        ("delete:0", "the form is"),
        ("swap:0", "the form is"),
        ("repeat:4/0", "the form is"),
        ("repeat:25", "the form is"),
        ("delete:10", "ranges of 10 are too long"),
        ("merge:1", "the form is"),
        ("blend:1.5", "the form is"),
        ("blend:much", "the form is"),
        ("scale:nan", "the form is"),
    ],
)
def test_what_is_no_family(text, said):
    with pytest.raises(BadUsage, match=said):
        parse_family(text, 10)


def test_a_family_without_candidates_says_so():
    with pytest.raises(BadUsage, match="no candidate"):
        parse_family("blend", 2)


# -- candidates


def test_each_map_comes_in_once(model):
    admission = CandidateFilter(model)
    first = admission.admit([parse_edits("swap 3 4"), parse_edits("repeat 2")], "mine", 1)
    again = admission.admit([parse_edits("move 3 after 4"), parse_edits("bridge 2 after 2")], "other", 1)
    assert [str(each) for each in first] == ["swap 3 4", "repeat 2"] and again == []
    assert admission.repeated == {"other": 2} and not admission.refused


def test_the_original_is_no_candidate(model):
    admission = CandidateFilter(model)
    assert admission.admit([parse_edits("swap 3 4; swap 3 4")], "mine", 1) == []
    assert admission.repeated == {"mine": 1}


def test_what_cannot_be_run_is_counted_with_its_reason(model):
    admission = CandidateFilter(model)
    found = admission.admit(
        [parse_edits("scale 3 0.9 ffn_dwon"), parse_edits("delete 12"), parse_edits("delete 1")], "a", 1
    )
    assert [str(each) for each in found] == ["delete 1"]
    assert admission.refused == {"a": 2} and "no ffn_dwon to scale" in admission.reasons["a"]


def test_what_is_asked_for_by_name_is_not_left_out(model):
    check_explicit(model, [parse_edits("delete 1")])
    with pytest.raises(BadUsage, match="no layer 12"):
        check_explicit(model, [parse_edits("delete 1"), parse_edits("delete 12")])


def candidate(text, blocks=28):
    edits = parse_edits(text)
    return Candidate(edits, apply_edits(blocks, edits), COMBINED, 1)


@pytest.mark.parametrize(
    ("first", "then", "together"),
    [
        ("delete 10", "swap 12 13", "delete 10; swap 11 12"),
        ("swap 12 13, 16 17", "blend 20 22 0.5", "swap 12 13, 16 17; blend 20 22 0.5"),
        ("repeat 8-11", "delete 12", "repeat 8-11; delete 16"),
        ("repeat 8-11", "bridge 5 after 20", "repeat 8-11; bridge 5 after 24"),
        ("delete 3", "blend 20 22 0.5 into 21", "delete 3; blend 19 21 0.5 into 20"),
        ("swap 3 4", "delete 3", "swap 3 4; delete 4"),
        ("delete 3", "repeat 8-11", "delete 3; repeat 7-10"),
    ],
)
def test_edits_are_translated_to_where_the_layers_stand(first, then, together):
    assert edits_text(extended(candidate(first), one(then))) == together


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("delete 10", "delete 10"),
        ("delete 10", "repeat 8-11"),
        ("scale 5 0.9", "bridge 5 after 20"),
        ("delete 20", "bridge 5 after 20"),
    ],
)
def test_edits_of_layers_that_are_gone_are_none(first, then):
    assert extended(candidate(first), one(then)) is None


def test_the_same_swap_twice_is_the_original():
    edits = extended(candidate("swap 3 4"), one("swap 3 4"))
    assert apply_edits(28, edits) == LayerMap.identity(28)
