from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantplan.analyze.statistics import statistics
from quantplan.block_ranges import runs_text
from quantplan.errors import BadUsage
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.report.cells import fixed
from quantplan.report.statistics_plot import by_block, short, statistics_plot


@pytest.fixture
def tensors():
    """attn_q in blocks 0 to 2, attn_v in block 2 only, and the output."""
    random = np.random.default_rng(0)
    names = [f"blk.{block}.attn_q.weight" for block in range(3)] + ["blk.2.attn_v.weight", "output.weight"]
    entries = {name: ImatrixEntry(name, random.random((1, 8), np.float32), np.array([1])) for name in names}
    return statistics(Imatrix(Path("made-up"), entries, (), 1, 512, False, "")).tensors


def test_a_cell_without_a_tensor_has_no_value(tensors):
    roles, values = by_block(tensors, "sum")
    assert roles == ["attn_q", "attn_v"]
    assert np.isfinite(values).tolist() == [[True, True, True], [False, False, True]]
    assert values[0, 1] == next(each.sum for each in tensors if each.name == "blk.1.attn_q.weight")


def test_no_earlier_block_is_no_cosine(tensors):
    _, values = by_block(tensors, "cossim")
    assert np.isfinite(values).tolist() == [[False, True, True], [False, False, False]]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 20, 21, 100])
def test_any_number_of_blocks_can_be_drawn(tensors, tmp_path, blocks):
    one = tensors[0]
    many = [replace(one, layer=block, sum=1.0 + block, cossim=0.0) for block in range(blocks)]
    for field in ("sum", "cossim"):  # no cell of the latter has a value
        statistics_plot(many, field, tmp_path / f"{field}.png")
        assert (tmp_path / f"{field}.png").stat().st_size > 5000


def test_without_blocks_there_is_no_map(tensors, tmp_path):
    with pytest.raises(BadUsage, match="no tensor of this imatrix belongs to a block"):
        statistics_plot([each for each in tensors if each.layer is None], "sum", tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (0.7634, "0.763"), (12.34, "12.3"), (1234, "1234"), (15321, "1.5e4"), (0.00021, "2.1e-4")],
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_undefined_numbers_are_dashes():
    assert [fixed(value, 2) for value in (1.005, float("nan"), None)] == ["1.00", "–", "–"]


def test_runs_of_experts():
    assert [runs_text(numbers) for numbers in ([], [3], [0, 1, 2, 7, 9, 10])] == ["", "3", "0-2 7 9-10"]
