import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import arrays_gguf

from quantplan.errors import BadFile
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.imatrix import Imatrix, ImatrixEntry


def entry(name, counts, columns=4, seed=0, with_sum1=False):
    random = np.random.default_rng(seed)
    counts = np.array(counts, np.int64)
    sum2 = random.random((len(counts), columns), np.float32) * counts[:, None].astype(np.float32)
    sum1 = random.standard_normal((len(counts), columns), np.float32) if with_sum1 else None
    return ImatrixEntry(name, sum2, counts, sum1)


def imatrix(*entries):
    by_name = {each.name: each for each in entries}
    return Imatrix(Path("made-up"), by_name, ("a text.txt", "ein größerer"), 7, 512, False, "")


def with_sums(values, counts=(3,)):
    sums = np.array(values, np.float32).reshape(len(counts), -1)
    return imatrix(ImatrixEntry("blk.0.attn_q.weight", sums, np.array(counts, np.int64)))


def legacy_bytes(entries, chunks=9, dataset="calibration.txt", announced=None):
    out = struct.pack("<i", len(entries) if announced is None else announced)
    for name, ncall, values in entries:
        raw = name.encode()
        out += struct.pack("<i", len(raw)) + raw + struct.pack("<ii", ncall, len(values))
        out += np.array(values, "<f4").tobytes()
    if chunks is not None:
        out += struct.pack("<i", chunks)
    if dataset is not None:
        out += struct.pack("<i", len(dataset)) + dataset.encode()
    return out


LEGACY = [("blk.0.attn_q.weight", 9, [1.5, 2.5, 0.0]), ("blk.0.ffn_down.weight", 8, [4.0, 0.25])]


def test_gguf_form_gives_back_every_value(tmp_path):
    written = imatrix(
        entry("blk.0.attn_q.weight", [300]),
        entry("blk.0.ffn_up_exps.weight", [5, 0, 70000], seed=1),
        entry("output.weight", [1], seed=2, with_sum1=True),
        entry("blk.1.attn_q.weight", [0], seed=3),
    )
    write_imatrix(written, tmp_path / "x.gguf")
    read = read_imatrix(tmp_path / "x.gguf")
    assert list(read.entries) == list(written.entries)
    for name, one in written.entries.items():
        other = read.entries[name]
        assert np.array_equal(one.sum2, other.sum2) and other.sum2.dtype == np.float32
        assert np.array_equal(one.counts, other.counts) and other.counts.dtype == np.int64
        assert (one.sum1 is None) == (other.sum1 is None)
        assert one.sum1 is None or np.array_equal(one.sum1, other.sum1)
    assert (read.datasets, read.chunk_count, read.chunk_size, read.legacy) == (
        written.datasets,
        7,
        512,
        False,
    )
    assert read.entries["blk.0.ffn_up_exps.weight"].unseen.tolist() == [False, True, False]


def test_written_twice_is_the_same_file(tmp_path):
    write_imatrix(imatrix(entry("output.weight", [3], with_sum1=True)), tmp_path / "x.gguf")
    first = read_imatrix(tmp_path / "x.gguf")
    write_imatrix(first, tmp_path / "y.gguf")
    assert read_imatrix(tmp_path / "y.gguf").digest == first.digest


def test_the_digest_names_the_content(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        write_imatrix(imatrix(entry("output.weight", [3], seed=seed)), tmp_path / name)
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes())
    digests = {name: read_imatrix(tmp_path / name).digest for name in "abc"}
    assert digests["a"] == digests["c"] != digests["b"]


def test_no_data_sets_is_kept_apart_from_metadata_that_is_absent(tmp_path):
    write_imatrix(replace(imatrix(entry("output.weight", [3])), datasets=()), tmp_path / "x.gguf")
    assert read_imatrix(tmp_path / "x.gguf").datasets == ()


def test_a_failed_write_leaves_the_older_file(tmp_path):
    path = tmp_path / "x.gguf"
    write_imatrix(imatrix(entry("output.weight", [3])), path)
    before = path.read_bytes()
    broken = imatrix(replace(entry("output.weight", [3]), sum2=np.array([["text"]])))
    with pytest.raises(ValueError):
        write_imatrix(broken, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.gguf"]


def test_legacy_form(tmp_path):
    path = tmp_path / "old.dat"
    path.write_bytes(legacy_bytes(LEGACY))
    read = read_imatrix(path)
    assert read.legacy and read.chunk_count == 9 and read.chunk_size == 0
    assert read.datasets == ("calibration.txt",)
    one = read.entries["blk.0.attn_q.weight"]
    assert one.sum2.tolist() == [[1.5, 2.5, 0.0]] and one.counts.tolist() == [9]
    assert read.entries["blk.0.ffn_down.weight"].mean_square().tolist() == [[0.5, 0.03125]]


@pytest.mark.parametrize("chunks, dataset", [(None, None), (9, None), (9, "")])
def test_the_oldest_files_end_without_chunks_or_data_set(tmp_path, chunks, dataset):
    path = tmp_path / "old.dat"
    path.write_bytes(legacy_bytes(LEGACY, chunks, dataset))
    read = read_imatrix(path)
    assert len(read.entries) == 2 and read.datasets == () and read.chunk_count == (chunks or 0)


def test_a_legacy_imatrix_can_be_written_as_gguf(tmp_path):
    (tmp_path / "old.dat").write_bytes(legacy_bytes(LEGACY))
    old = read_imatrix(tmp_path / "old.dat")
    write_imatrix(old, tmp_path / "new.gguf")
    new = read_imatrix(tmp_path / "new.gguf")
    for name in old.entries:
        assert np.array_equal(old.entries[name].mean_square(), new.entries[name].mean_square())


@pytest.mark.parametrize("values, what", [([1, np.nan], "1 NaN"), ([np.inf, 1], "infinite"), ([0, -1], "negative")])
@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_sums_that_cannot_be_are_refused_with_the_tensor(tmp_path, values, what, form):
    path = tmp_path / "bad"
    if form == "gguf":
        write_imatrix(with_sums(values), path)
    else:
        path.write_bytes(legacy_bytes([LEGACY[1], ("blk.0.attn_q.weight", 9, values)]))
    with pytest.raises(BadFile, match=f"blk.0.attn_q.weight has .*{what}"):
        read_imatrix(path)


def test_negative_counts_are_refused(tmp_path):
    write_imatrix(with_sums([1, 1], counts=(3, -2)), tmp_path / "bad")
    with pytest.raises(BadFile, match="negative count"):
        read_imatrix(tmp_path / "bad")


def test_a_mean_input_that_is_not_finite_is_refused(tmp_path):
    one = replace(entry("output.weight", [3]), sum1=np.array([[0, 1, np.nan, 2]], np.float32))
    write_imatrix(imatrix(one), tmp_path / "bad")
    with pytest.raises(BadFile, match="sums of inputs of output.weight"):
        read_imatrix(tmp_path / "bad")


ONES = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"output.weight": ONES}, r"a model \(llama\), not an imatrix"),
        ({"a.in_sum2": ONES}, "a has sums without counts"),
        ({"a.in_sum2": ONES, "a.counts": ONES[:, :1], "b.counts": ONES}, "b.counts has no b.in_sum2"),
        ({"a.in_sum2": ONES, "a.counts": np.ones((3, 1), np.float32)}, "3 counts do not divide"),
        ({"a.in_sum2": ONES.astype(np.float16), "a.counts": ONES[:, :1]}, "a.in_sum2 is stored as F16"),
        ({"a.in_sum2": ONES, "a.counts": ONES[:, :1] * np.nan}, "NaN or infinite counts"),
        ({"a.in_sum2": ONES, "a.counts": ONES[:, :1], "a.in_sum": ONES[:1]}, "4 sums of inputs but 8"),
    ],
)
def test_gguf_files_that_are_no_imatrix(tmp_path, tensors, message):
    with pytest.raises(BadFile, match=message):
        read_imatrix(arrays_gguf(tmp_path / "x.gguf", "llama", tensors))


def test_the_bundled_model_is_no_imatrix(reference_model):
    with pytest.raises(BadFile, match=r"a model \(qwen3\), not an imatrix"):
        read_imatrix(reference_model)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_no_imatrix(tmp_path, seed):
    (tmp_path / "noise").write_bytes(np.random.default_rng(seed).bytes(4096))
    with pytest.raises(BadFile, match="not an imatrix"):
        read_imatrix(tmp_path / "noise")


@pytest.mark.parametrize("content", [b"", b"A plain text about something else.\n" * 20, b"GGUF", bytes(64)])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(BadFile, match="other: "):
        read_imatrix(tmp_path / "other")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadFile, match="No such file"):
        read_imatrix(tmp_path / "absent")
    with pytest.raises(BadFile, match="directory"):
        read_imatrix(tmp_path)


def test_every_cut_of_a_legacy_file_is_noticed(tmp_path):
    """Only the ends of the two trailing fields are lawful ends of a file."""
    whole = legacy_bytes(LEGACY)
    entries = len(legacy_bytes(LEGACY, None, None))
    path = tmp_path / "cut.dat"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size in (entries, entries + 4):
            assert len(read_imatrix(path).entries) == 2
        else:
            with pytest.raises(BadFile, match=r"cut\.dat: (cut short|the file is empty|not an imatrix)"):
                read_imatrix(path)


def test_every_cut_of_a_gguf_file_is_noticed(tmp_path):
    write_imatrix(imatrix(entry("output.weight", [3], columns=40)), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    padding = 32 - 4  # the last tensor is one count
    path = tmp_path / "cut"
    for size in range(0, len(whole) - padding, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(BadFile, match="cut: "):
            read_imatrix(path)


def test_a_damaged_legacy_entry_is_named(tmp_path):
    whole = legacy_bytes([LEGACY[0], ("\x01\x02", 9, [1.0])])
    (tmp_path / "x.dat").write_bytes(whole)
    with pytest.raises(BadFile, match="damaged in entry 2 of 2"):
        read_imatrix(tmp_path / "x.dat")


def test_two_legacy_entries_for_one_tensor(tmp_path):
    (tmp_path / "x.dat").write_bytes(legacy_bytes([LEGACY[0], LEGACY[0]]))
    with pytest.raises(BadFile, match="two entries for blk.0.attn_q.weight"):
        read_imatrix(tmp_path / "x.dat")


@pytest.mark.parametrize("legacy", [False, True])
def test_sums_that_are_all_zero_are_no_imatrix(tmp_path, legacy):
    path = tmp_path / "zero.gguf"
    if legacy:
        path.write_bytes(legacy_bytes([("blk.0.attn_q.weight", 9, [0.0] * 4), ("blk.0.attn_k.weight", 9, [0.0] * 4)]))
    else:
        write_imatrix(with_sums([0.0] * 4), path)
    with pytest.raises(BadFile, match="all its sums are zero: it has no data"):
        read_imatrix(path)


def test_all_zero_counts_stay_visible(tmp_path):
    write_imatrix(with_sums([0, 0], counts=(0, 0)), tmp_path / "x.gguf")
    assert read_imatrix(tmp_path / "x.gguf").entries["blk.0.attn_q.weight"].unseen.all()
