import math
from pathlib import Path

import numpy as np
import pytest

from quantplan.analyze.statistics import layer_and_role, ordered_by, statistics
from quantplan.errors import BadFile, BadUsage
from quantplan.imatrix import Imatrix, ImatrixEntry


def imatrix(*entries, legacy=False):
    return Imatrix(Path("made-up"), {each.name: each for each in entries}, (), 1, 512, legacy, "")


def entry(name, sums, counts=(1,), sum1=None):
    counts = np.array(counts, np.int64)
    shaped = np.array(sums, np.float32).reshape(len(counts), -1)
    return ImatrixEntry(
        name, shaped, counts, None if sum1 is None else np.array(sum1, np.float32).reshape(shaped.shape)
    )


def only(*entries, **options):
    found = statistics(imatrix(*entries, **options))
    return found.tensors[-1]


def test_numbers_that_can_be_checked_by_hand():
    found = only(entry("blk.3.attn_k.weight", [2, 2, 4, 8], counts=[2]))
    assert (found.layer, found.role, found.n, found.experts) == (3, "attn_k", 4, 1)
    assert (found.sum, found.min, found.max, found.mean) == (8, 1, 4, 2)
    assert found.std == pytest.approx(math.sqrt(22 / 4 - 4))
    assert found.entropy == 1.75  # shares 1/8 1/8 1/4 1/2
    assert (found.entropy_norm, found.active, found.zd, found.outliers) == (87.5, 100, 25, 1)
    assert found.cossim == 0


def test_active_counts_above_the_threshold():
    found = only(entry("x", [0, 1e-5, 1.1e-5, 1]))
    assert found.active == 50


def test_experts_never_hit_are_left_out_and_listed():
    found = only(entry("blk.0.ffn_up_exps.weight", [4, 8, 9, 9, 3, 3], counts=[2, 0, 3]))
    assert (found.n, found.sum, found.experts, found.unseen_experts) == (4, 8, 3, (1,))


def test_legacy_files_tell_nothing_of_experts():
    found = only(entry("blk.0.ffn_up_exps.weight", [4, 8], counts=[2]), legacy=True)
    assert found.experts is None and found.unseen_experts == () and found.sum == 6


def test_tensor_without_any_count_is_left_out_and_reported():
    found = statistics(imatrix(entry("a", [1, 2]), entry("b", [5, 5, 5, 5], counts=[0, 0])))
    assert [each.name for each in found.tensors] == ["a"] and found.without_data == ("b",)


def test_nothing_at_all_is_an_error():
    with pytest.raises(BadFile, match="no entry has data"):
        statistics(imatrix(entry("a", [1, 2], counts=[0])))


def test_constant_tensor():
    found = only(entry("a", [6, 6, 6, 6], counts=[2]))
    assert (found.std, found.zd, found.entropy, found.entropy_norm) == (0, 0, 2, 100)


def test_zeros_everywhere():
    found = only(entry("blk.0.a.weight", [0, 0]), entry("blk.1.a.weight", [0, 0]))
    assert (found.sum, found.active, found.entropy, found.zd) == (0, 0, 0, 0)
    assert math.isnan(found.cossim)


def test_one_column_has_no_relative_entropy():
    assert math.isnan(only(entry("a", [6])).entropy_norm)


def test_cosine_is_of_raw_sums_with_the_block_before():
    first = entry("blk.9.attn_q.weight", [1, 0, 1, 0], counts=[1])
    second = entry("blk.10.attn_q.weight", [1, 1, 1, 1], counts=[4])
    other = entry("blk.10.attn_k.weight", [1, 1, 1, 1])
    found = {each.name: each.cossim for each in statistics(imatrix(first, second, other)).tensors}
    assert found["blk.10.attn_q.weight"] == pytest.approx(1 / math.sqrt(2))
    assert found["blk.9.attn_q.weight"] == found["blk.10.attn_k.weight"] == 0


def test_cosine_with_another_size_is_not_defined_and_spoils_the_average():
    found = statistics(imatrix(entry("blk.0.a.weight", [1, 1]), entry("blk.1.a.weight", [1, 1, 1])))
    assert math.isnan(next(each for each in found.tensors if each.layer == 1).cossim)
    assert math.isnan(found.layers[1].cossim) and found.layers[0].cossim == 0


def test_equal_data_is_worked_on_once_but_named_apart():
    data = [1, 2, 3, 10]
    same = [entry(f"blk.{block}.{role}.weight", data) for block in (0, 1) for role in ("attn_k", "attn_q")]
    found = statistics(imatrix(*same))
    assert [(each.role, each.layer) for each in ordered_by(found.tensors, "name")] == [
        ("attn_k", 0),
        ("attn_q", 0),
        ("attn_k", 1),
        ("attn_q", 1),
    ]
    assert [each.cossim for each in ordered_by(found.tensors, "name")] == pytest.approx([0, 0, 1, 1])


def test_equal_sums_but_other_counts_are_different_data():
    found = statistics(imatrix(entry("a", [2, 4], counts=[1]), entry("b", [2, 4], counts=[2])))
    assert {each.name: each.sum for each in found.tensors} == {"a": 6, "b": 3}


def test_layers_are_averages_weighted_with_columns():
    found = statistics(
        imatrix(
            entry("blk.2.a.weight", [1, 1]),
            entry("blk.2.b.weight", [1, 1, 1, 1]),
            entry("output.weight", [9]),
        )
    )
    (layer,) = found.layers
    assert (layer.layer, layer.cossim) == (2, 0) and layer.sum == pytest.approx((2 * 2 + 4 * 4) / 6)


def test_mean_input_where_the_file_has_it():
    found = only(entry("a", [4, 16], counts=[4], sum1=[4, 0]))
    assert found.mean_input == 0.5 and found.mean_share == pytest.approx(20)
    moe = only(entry("a", [4, 16, 9, 9], counts=[4, 0], sum1=[4, 0, 7, 7]))
    assert moe.mean_input == 0.5
    assert only(entry("a", [4, 16])).mean_input is None


def test_order():
    found = statistics(
        imatrix(
            entry("blk.1.b.weight", [1, 9]),
            entry("blk.0.b.weight", [5, 9]),
            entry("blk.0.a.weight", [1, 1]),
            entry("output.weight", [7]),
        )
    ).tensors
    names = {
        field: [each.name for each in ordered_by(found, field)] for field in ("role", "layer", "sum", "entropy_norm")
    }
    assert names["role"] == ["blk.0.a.weight", "blk.0.b.weight", "blk.1.b.weight", "output.weight"]
    assert names["layer"][-1] == "output.weight"
    assert names["sum"] == ["blk.0.b.weight", "blk.1.b.weight", "output.weight", "blk.0.a.weight"]
    assert names["entropy_norm"][-1] == "output.weight"  # not defined for one column
    with pytest.raises(BadUsage, match="no statistic 'zdd'; choose one of name, .*cossim"):
        ordered_by(found, "zdd")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("blk.12.attn_q.weight", (12, "attn_q")),
        ("output.weight", (None, "output")),
        ("v.blk.3.ffn_down.weight", (3, "ffn_down")),
        ("blk.0.ssm_a", (0, "blk.0.ssm_a")),
    ],
)
def test_names_are_read_as_the_tool_reads_them(name, expected):
    assert layer_and_role(name) == expected
