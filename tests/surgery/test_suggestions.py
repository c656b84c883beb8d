"""The edits that an error about a refused edit offers."""

import model_shapes as shapes
import pytest

from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.architectures.check import check
from quantplan.surgery.architectures.suggestions import checked_map, nearest_valid
from quantplan.surgery.edits import parse_edits


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    return read_model(shapes.QWEN3_5_2B.write(tmp_path_factory.mktemp("shapes") / "hybrid.gguf"))


@pytest.fixture(scope="module")
def dense_lead(tmp_path_factory):
    return read_model(shapes.DEEPSEEK_V3.write(tmp_path_factory.mktemp("shapes") / "dense-lead.gguf"))


@pytest.fixture(scope="module")
def predicting(tmp_path_factory):
    return read_model(shapes.GLM_4_5_AIR.write(tmp_path_factory.mktemp("shapes") / "predicting.gguf"))


NEAREST = {
    "repeat 8-10": ["repeat 8-11", "repeat 7-10", "repeat 9-12"],
    "repeat 8": ["repeat 8-11", "repeat 7-10", "repeat 6-9"],
    "repeat 8-10 x3": ["repeat 8-11 x3", "repeat 7-10 x3", "repeat 9-12 x3"],
    "delete 10": ["delete 10-13", "delete 9-12", "delete 8-11"],
    "delete 23": ["delete 20-23", "delete 19-22", "delete 18-21"],
    "swap 11 12": ["swap 10 12", "swap 12 13", "swap 10 13"],
    "move 5 after 20": ["move 5-8 after 20", "move 2-5 after 21", "move 4-7 after 19"],
    "blend 20 22 0.5": ["blend 20 22 0.5 into 20", "blend 20 22 0.5 into 22"],
    "repeat 8-11; delete 3": ["repeat 8-11; delete 3-6", "repeat 8-11; delete 2-5", "repeat 8-11; delete 1-4"],
    "delete 3; swap 0 1": ["delete 3-6; swap 0 1", "delete 2-5; swap 0 1", "delete 1-4; swap 0 1"],
}


@pytest.mark.parametrize("text", NEAREST)
def test_the_nearest_come_first(hybrid, text):
    assert nearest_valid(hybrid, parse_edits(text)) == NEAREST[text]


@pytest.mark.parametrize(
    "text", [*NEAREST, "reverse 8-11", "cycle 4-7", "keep 0-9 11-23", "merge 4-5 6-7", "bridge 5 after 20"]
)
def test_what_is_offered_is_allowed(hybrid, text):
    found = nearest_valid(hybrid, parse_edits(text))
    assert 1 <= len(found) <= 3
    maps = [apply_edits(hybrid.blocks, parse_edits(each)) for each in found]
    assert len({each.digest for each in maps}) == len(maps)
    for each in maps:
        assert check(hybrid, each) == ()


def test_nothing_is_offered_for_what_is_allowed_or_never_can_be(hybrid):
    assert nearest_valid(hybrid, parse_edits("repeat 8-11")) == []
    assert nearest_valid(hybrid, parse_edits("merge 8-9")) == []  # a layer less, however it is turned


def test_dense_blocks_and_predicting_ones_are_left_out(dense_lead, predicting):
    assert nearest_valid(dense_lead, parse_edits("swap 2 3"))[:2] == ["swap 3 4", "swap 1 2"]
    assert nearest_valid(dense_lead, parse_edits("bridge 1 after 20"))[0] == "bridge 3 after 20"
    assert nearest_valid(predicting, parse_edits("delete 46"))[0] == "delete 45"
    assert nearest_valid(predicting, parse_edits("repeat 40-46"))[0] == "repeat 40-45"


def test_the_error_ends_with_them(hybrid):
    with pytest.raises(
        BadUsage, match=r"27 layers are not a multiple of 4.*'repeat 8-11' or 'repeat 7-10' or 'repeat 9-12'$"
    ):
        checked_map(hybrid, parse_edits("repeat 8-10"))
    made, notes = checked_map(hybrid, parse_edits("repeat 8-11"))
    assert len(made) == 28 and notes == ()


def test_an_edit_that_cannot_be_made_is_told_as_it_is(hybrid):
    with pytest.raises(BadUsage, match="there is no layer 24") as error:
        checked_map(hybrid, parse_edits("delete 24"))
    assert "nearest" not in str(error.value)
