"""The record beside an operated model: read as it was written, refused where it cannot be true."""

import json
from pathlib import Path

import pytest

from quantplan.errors import BadFile
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.layer_map_files import LAYER_MAPS, LayerMapRecord, NamedFile, Reencoded, record_path

TEXT = "delete 2; swap 0 1; blend 3 5 0.3; scale 0 0.9; scale 1 1.1 attn_output ffn_down; blend 0 4 0.1 into 4"


@pytest.fixture
def record():
    made = apply_edits(8, parse_edits(TEXT))
    source, result = NamedFile("a.gguf", "a", "0" * 64, 100), NamedFile("b.gguf", "b", "1" * 64, 90)
    anew = (Reencoded("blk.4.attn_q.weight", "F16", ("blk.4.attn_q.weight", "blk.6.attn_q.weight")),)
    return LayerMapRecord(TEXT, made, source, result, anew, ("a note",))


def test_it_comes_back(record, tmp_path):
    path = tmp_path / "b.layers.json"
    LAYER_MAPS.write(record, path)
    assert LAYER_MAPS.read(path) == record
    assert LAYER_MAPS.read(path).layer_map.digest == record.layer_map.digest


def test_copies_are_numbers(record, tmp_path):
    LAYER_MAPS.write(record, tmp_path / "b.layers.json")
    content = json.loads((tmp_path / "b.layers.json").read_text())
    assert (content["format"], content["version"], content["original"]) == ("quantplan-layer-map", 1, 8)
    assert content["layers"][2] == 3
    assert content["layers"][1] == [{"block": 0, "weight": 1.0, "scales": {"attn_output": 1.1, "ffn_down": 1.1}}]


def test_it_lies_beside_the_model():
    assert record_path(Path("models/b.gguf")) == Path("models/b.layers.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [0, 8]}, "there is no block 8 in a model of 8"),
        ({"layers": [0, -1]}, "there is no block -1"),
        ({"layers": []}, "a layer without sources"),
        ({"layers": [[]]}, "a layer without sources"),
        ({"layers": [[{"block": 1}]]}, "is missing"),
        ({"layers": ["one"]}, "damaged layer map"),
        ({"layers": [True]}, "damaged layer map"),
        ({"layers": [[{"block": 1, "weight": float("nan"), "scales": {}}]]}, "is NaN or infinite"),
        ({"layers": [[{"block": 1, "weight": 1, "scales": {"*": "x"}}]]}, "damaged layer map"),
        ({"source": {"file": "a"}}, "damaged layer map"),
        ({"original": None}, "damaged layer map"),
        ({"version": 2}, "version 2 of quantplan-layer-map is unknown"),
        ({"format": "quantplan-plan"}, "a quantplan-layer-map file is needed"),
    ],
)
def test_what_cannot_be(record, tmp_path, change, message):
    path = tmp_path / "b.layers.json"
    LAYER_MAPS.write(record, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFile, match=message):
        LAYER_MAPS.read(path)
