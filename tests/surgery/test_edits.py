"""Edits: what they do to the order of layers, how they are read and written back, what is refused and why."""

import pytest

from quantplan.errors import BadUsage
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import edits_text, parse_edits
from quantplan.surgery.layer_map import Layer, LayerMap, Term


def made(text, blocks=10):
    return apply_edits(blocks, parse_edits(text))


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("delete 3", "0-2 4-9"),
        ("delete 3 7-9", "0-2 4-6"),
        ("keep 0-5 3-9", "0-5 3-9"),
        ("swap 3 4", "0-2 4 3 5-9"),
        ("swap 1 2, 5 6", "0 2 1 3-4 6 5 7-9"),
        ("swap 0-1 4-7", "4-7 2-3 0-1 8-9"),
        ("swap 4-7 0-1", "4-7 2-3 0-1 8-9"),
        ("move 5 after 8", "0-4 6-8 5 9"),
        ("move 5-6 after 0", "0 5-6 1-4 7-9"),
        ("bridge 5 after 8", "0-8 5 9"),
        ("bridge 5-6 after 9", "0-9 5-6"),
        ("repeat 3-5", "0-5 3-9"),
        ("triple 3-4", "0-4 3-4 3-9"),
        ("repeat 3 x4", "0-3 3 3 3-9"),
        ("reverse 2-4", "0-1 4 3 2 5-9"),
        ("cycle 2-5", "0-1 3-5 2 6-9"),
        ("cycle 2-5 by 3", "0-1 5 2-4 6-9"),
        ("cycle 2-5 by -1", "0-1 5 2-4 6-9"),
        ("blend 3 5 0.25", "0-3 (0.75 of 3 + 0.25 of 5) 4-9"),
        ("blend 3 5", "0-3 (0.5 of 3 + 0.5 of 5) 4-9"),
        ("blend 5 3 1 into 4", "0-3 3 5-9"),
        ("blend 3 5 0.5 after 4", "0-4 (0.5 of 3 + 0.5 of 5) 5-9"),
        ("merge 3-4", "0-2 (0.5 of 3 + 0.5 of 4) 5-9"),
        ("merge 1-2 7-8", "0 (0.5 of 1 + 0.5 of 7) (0.5 of 2 + 0.5 of 8) 3-6 9"),
        ("merge 7-8 1-2", "0 3-6 (0.5 of 1 + 0.5 of 7) (0.5 of 2 + 0.5 of 8) 9"),
        ("scale 7 0.5", "0-6 (7 x 0.5) 8-9"),
        ("scale 7 0.5 ffn_down attn_output", "0-6 (7 x 0.5 attn_output x 0.5 ffn_down) 8-9"),
        ("delete 3; swap 3 4", "0-2 5 4 6-9"),
    ],
)
def test_what_edits_do(text, order):
    assert str(made(text)) == order


@pytest.mark.parametrize(
    ("text", "blocks", "layers"),
    [
        ("delete 10; swap 11 12", 28, 27),
        ("swap 12 13; swap 16 17; blend 20 22 0.5; bridge 5 after 20", 28, 30),
        ("repeat 8-11", 24, 28),
        ("repeat 7-10", 24, 28),
    ],
)
def test_the_published_models_have_so_many_layers(text, blocks, layers):
    assert len(made(text, blocks)) == layers


def test_the_first_published_model_layer_by_layer():
    assert str(made("delete 10; swap 11 12", 28)) == "0-9 11 13 12 14-27"


def test_the_second_published_model_layer_by_layer():
    found = made("swap 12 13; swap 16 17; blend 20 22 0.5; bridge 5 after 20", 28)
    assert str(found) == "0-11 13 12 14-15 17 16 18-20 5 (0.5 of 20 + 0.5 of 22) 21-27"


@pytest.mark.parametrize("text", ["swap 3 8", "reverse 2-7", "swap 1 2, 5 6", "swap 0-2 5-7"])
def test_done_twice_is_undone(text):
    assert made(f"{text}; {text}").is_identity


def test_a_turn_all_the_way_round_is_undone():
    assert made("cycle 2-5; cycle 2-5; cycle 2-5; cycle 2-5").is_identity


def test_scales_that_cancel_leave_a_copy():
    assert made("scale 3 2; scale 3 0.5").is_identity


def test_a_blend_of_a_blend_keeps_shares_of_the_original():
    found = made("blend 0 1 0.5; blend 1 3 0.5 into 1").layers[1]
    assert found == Layer((Term(0, 0.25), Term(1, 0.25), Term(2, 0.5)))


def test_scales_and_shares_multiply():
    term = made("scale 3 0.5; scale 3 3 ffn_down").layers[3].terms[0]
    assert term.factor("ffn_down", True) == 1.5
    assert term.factor("attn_q", True) == 0.5
    assert term.factor("attn_norm", False) == 1


def test_the_digest_names_the_result_not_the_way():
    assert made("swap 3 4").digest == made("keep 0-2 4 3 5-9").digest == made("cycle 3-4").digest
    assert made("swap 3 4").digest != made("swap 3 5").digest
    assert made("swap 3 4", 11).digest != made("swap 3 4").digest


@pytest.mark.parametrize(
    "text",
    [
        "delete 3 7-9",
        "keep 0-5 3-9",
        "swap 1 2, 5 6",
        "move 5-6 after 0",
        "bridge 5 after 8",
        "repeat 3-5",
        "repeat 3-4 x3",
        "reverse 2-4",
        "cycle 2-5 by -1",
        "blend 3 5 0.25 after 4",
        "blend 3 5 0.333333333333 into 2",
        "merge 1-2 7-8",
        "scale 7-8 0.9 ffn_down",
        "delete 3; swap 3 4",
    ],
)
def test_edits_are_written_as_they_are_read(text):
    assert edits_text(parse_edits(text)) == text
    assert parse_edits(edits_text(parse_edits(text))) == parse_edits(text)


def test_remarks_lines_capitals_and_synonyms():
    text = "# phase 1\nDelete 10   # harmful\ninterp 20 22 0.5\n\ncopy 5 after 20; Duplicate 1..2"
    assert edits_text(parse_edits(text)) == "delete 10; blend 20 22 0.5; bridge 5 after 20; repeat 1-2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no edits"),
        ("  ; ", "no edits"),
        ("shuffle 3", "unknown edit 'shuffle'; the edits are delete, keep"),
        ("delete", "the form is: delete 10"),
        ("delete ten", "'ten' is not a layer or a range"),
        ("delete 5-3", "the range 5-3 is backwards"),
        ("swap 3", "1 layers or ranges"),
        ("swap 3 4 5", "an odd number"),
        ("bridge 5", "the place is missing"),
        ("bridge 5 before 3", "'before 3' is not understood"),
        ("blend 3 5 1.5", "the share 1.5 is not between 0 and 1"),
        ("blend 3 5 nan", "'nan' is not understood"),
        ("repeat 3-5 x1", "x1 is not between x2 and x100"),
        ("scale 7", "the factor is missing"),
        ("scale 7 inf", "the factor is missing"),
        ("delete 10", "edit 1, 'delete 10': there is no layer 10: at this point the layers are 0-9"),
        ("delete 9; swap 8 9", "edit 2, 'swap 8 9': there is no layer 9: at this point the layers are 0-8"),
        ("bridge 5 after 10", "there is no layer 10"),
        ("delete 0-9", "no layer would remain"),
        ("delete 3 2-4", "3 and 2-4 overlap"),
        ("swap 3-6 5-8", "3-6 and 5-8 overlap"),
        ("swap 3 4, 4 5", "4 and 4 overlap"),
        ("merge 3-5 5-7", "3-5 and 5-7 overlap"),
        ("merge 3-5 7-8", "3-5 has 3 layers and 7-8 has 2"),
        ("merge 3", "a single layer cannot be merged"),
        ("blend 3-4 5", "two single layers"),
        ("blend 3 3 0.5", "with itself"),
        ("reverse 3", "a single layer cannot be reversed"),
        ("cycle 3-5 by 3", "leaves 3-5 as it is"),
        ("move 3-5 after 4", "to a place inside itself"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(BadUsage, match="edit|no edits") as found:
        made(text)
    assert message in str(found.value)


def test_where_a_block_went():
    found = made("delete 3; swap 4 5; blend 0 1 0.5 into 0")
    assert (found.where(3), found.where(5), found.where(6), found.where(0)) == (None, 5, 4, None)
    assert isinstance(found, LayerMap)


def test_blocks_that_predict_further_tokens_go_only_when_asked():
    edits = parse_edits("strip mtp")
    assert str(edits[0]) == "strip mtp" and edits == parse_edits(str(edits[0]))
    assert apply_edits(4, edits, mtp_blocks=1) == apply_edits(4, parse_edits("delete 3"))
    assert str(apply_edits(5, parse_edits("delete 0; strip mtp"), mtp_blocks=2)) == "1-2"
    for text in ("delete 3", "keep 0-2", "delete 2-3"):
        with pytest.raises(BadUsage, match=f"edit 1, '{text}': layer 3 must stay .*'strip mtp' does that"):
            apply_edits(4, parse_edits(text), mtp_blocks=1)
    with pytest.raises(BadUsage, match="no layer here only predicts"):
        apply_edits(4, edits)
    with pytest.raises(BadUsage, match="the form is: strip mtp"):
        parse_edits("strip 3")
