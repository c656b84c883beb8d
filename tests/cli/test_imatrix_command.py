import json

import numpy as np
import pytest

from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_container
from quantplan.llamacpp import imatrix as tool

pytestmark = pytest.mark.llamacpp
SHORT = ("--ctx", "128", "--threads", "1")


def test_an_imatrix(command, files, small_model, small_text):
    done = command("imatrix", small_model, "-f", small_text, *SHORT, "--chunks", "3")
    assert (done.code, done.out) == (0, "tied.imatrix.gguf\n")
    made = read_imatrix("tied.imatrix.gguf")
    assert made.chunk_count == 3 and made.chunk_size == 128 and len(made.entries) == 14
    assert made.datasets == ("text.txt",)  # no private path
    assert "+ (cd " in done.err and "llama-imatrix -m" in done.err
    assert files() == ["tied.imatrix.gguf"]


def test_json_and_legacy_form(command, small_model, small_text):
    done = command(
        "imatrix",
        small_model,
        "-f",
        small_text,
        *SHORT,
        "--chunks",
        "2",
        "--legacy",
        "-o",
        "old.dat",
        "--json",
    )
    assert set(json.loads(done.out)) == {"imatrix", "tensors", "chunks", "digest"}
    assert json.loads(done.out)["chunks"] == 2
    assert read_imatrix("old.dat").legacy


def test_the_imatrix_of_second_moments_is_llama_imatrix_s(command, small_model, small_text, workplace):
    """To the digits that the tool's statistics print, with the same counts."""
    words = ("imatrix", small_model, "-f", small_text, *SHORT)
    assert command(*words, "--chunks", "3", "-o", "theirs.gguf").code == 0
    done = command(*words, "--chunks", "3", "--second-moments", "-o", "ours.gguf", "--memory", "1GiB")
    assert done.code == 0 and "llama-imatrix -m" not in done.err
    ours, theirs = read_imatrix("ours.gguf"), read_imatrix("theirs.gguf")
    assert list(ours.entries) == list(theirs.entries) and ours.datasets == theirs.datasets
    assert (ours.chunk_count, ours.chunk_size) == (theirs.chunk_count, theirs.chunk_size) == (3, 128)
    for name, entry in theirs.entries.items():
        assert np.array_equal(ours.entries[name].counts, entry.counts), name
        np.testing.assert_allclose(ours.entries[name].sum2, entry.sum2, rtol=1e-4, atol=1e-6 * entry.sum2.max())
    again = command(*words, "--chunks", "3", "--second-moments", "-o", "again.gguf")
    assert again.code == 0 and len(list((workplace / "cache").glob("second-moments-*"))) == 1, "the same pass"


def test_without_chunks_it_is_the_pass_of_compensated_rounding(command, small_model, small_text, workplace):
    done = command("imatrix", small_model, "-f", small_text, *SHORT, "--second-moments")
    made = read_imatrix("tied.imatrix.gguf")
    assert done.code == 0 and made.chunk_count == 19 and "would do; more calibration text" in done.err
    assert len(list((workplace / "cache").glob("second-moments-*/*.moments"))) == 9
    refused = command("imatrix", small_model, "-f", small_text, "--second-moments", "--legacy", "--force")
    assert refused.code == 2 and "leave --legacy and --no-output-weight out" in refused.error
    little = command("imatrix", small_model, "-f", small_text, *SHORT, "--second-moments", "--force", "--memory", "1kB")
    assert little.code == 0, "kept sums are read"
    little = command(
        "imatrix", small_model, "-f", small_text, "-c", "64", "--second-moments", "--force", "--memory", "1kB"
    )
    assert little.code == 1 and "bytes of memory, 1,000 may be used; allow more with --memory" in little.error


def test_several_texts_and_folders_are_joined(command, workplace, small_model, small_text, monkeypatch):
    text = small_text.read_text(encoding="utf-8")
    (workplace / "one.txt").write_text(text[:3000], encoding="utf-8")
    (workplace / "folder").mkdir()
    (workplace / "folder" / "two.txt").write_text(text[3000:6000], encoding="utf-8")
    (workplace / "folder" / "three.txt").write_text(text[6000:], encoding="utf-8")
    seen = []
    honest = tool.make
    monkeypatch.setattr(
        tool,
        "make",
        lambda model, joined, *rest, **named: (
            seen.append(joined.read_text()),
            honest(model, joined, *rest, **named),
        ),
    )
    assert command("imatrix", small_model, "-f", "one.txt", "-f", "folder", *SHORT, "--chunks", "2").code == 0
    assert seen == ["\n".join([text[:3000], text[6000:], text[3000:6000]])]


def test_in_a_project(command, workplace, small_model, small_text):
    command("init", small_model, "--folder", ".", "--ctx", "128", "--calibration", small_text)
    done = command("imatrix", "--chunks", "2", "--threads", "1")
    assert done.code == 0 and (workplace / "imatrix" / "tied.gguf").is_file()
    again = command("imatrix", "--chunks", "2", "--threads", "1")
    assert again.code == 2 and "already exists; --force overwrites it" in again.error
    assert command("imatrix", "--chunks", "3", "--threads", "1", "--force").code == 0
    assert read_imatrix(workplace / "imatrix" / "tied.gguf").chunk_count == 3


def test_dry_run_only_speaks(command, files, small_model, small_text):
    done = command("imatrix", small_model, "-f", small_text, *SHORT, "--dry-run")
    assert done.code == 0 and done.out.startswith("llama-imatrix -m ") and "--process-output" in done.out
    assert files() == []


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["nofile.gguf"], 3, "nofile.gguf: No such file"),
        (["MODEL"], 2, "no calibration text"),
        (["MODEL", "-f", "nofile.txt"], 3, "cannot read the text nofile.txt"),
        (["MODEL", "-f", "empty.txt"], 3, "the text is empty"),
        (["MODEL", "-f", "binary.txt"], 3, "not UTF-8 text"),
        (["MODEL", "-f", "few.txt"], 10, "few.txt: the text has 4 tokens, at least 256 are needed"),
        (["MODEL", "-f", "TEXT", "-o", "few.txt/i.gguf"], 3, "cannot write few.txt/i.gguf"),
        (["MODEL", "-f", "TEXT", "-o", ".", "--force"], 3, "cannot write .: it is a folder"),
        (["MODEL", "-f", "TEXT", "-o", "few.txt"], 2, "few.txt already exists"),
    ],
)
def test_refused(command, workplace, files, small_model, small_text, words, code, message):
    (workplace / "few.txt").write_text("only a few words")
    (workplace / "empty.txt").write_text("")
    (workplace / "binary.txt").write_bytes(bytes(range(256)))
    before = files()
    named = {"MODEL": small_model, "TEXT": small_text}
    done = command("imatrix", *(named.get(word, word) for word in words), *SHORT)
    assert done.code == code and message in done.error and done.out == ""
    assert files() == before


def test_tools_are_missing(command, files, small_model, small_text, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_TOOLS", "/nonexistent")
    done = command("imatrix", small_model, "-f", small_text)
    assert done.code == 7 and "llama-imatrix is not in /nonexistent" in done.error and "pip install" in done.error
    assert files() == []


def wrote(content):
    """llama-imatrix as it ends on a full disk: a short or empty file, and exit code 0."""

    def run(argv, **_):
        from pathlib import Path

        Path(argv[argv.index("-o") + 1]).write_bytes(content)
        return tool.tools.Finished("llama-imatrix", 0, "")

    return run


def test_a_file_cut_short_is_not_kept(command, files, small_model, small_text, small_imatrix, monkeypatch):
    monkeypatch.setattr(tool.tools, "run", wrote(small_imatrix.read_bytes()[:5000]))
    done = command("imatrix", small_model, "-f", small_text)
    assert done.code == 3 and "tied.imatrix.gguf: " in done.error and "part" not in done.error
    assert files() == []


def test_on_a_full_disk_nothing_is_kept(command, files, small_model, small_text, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(tool.tools, "run", wrote(b""))
    monkeypatch.setattr(tool.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    done = command("imatrix", small_model, "-f", small_text)
    assert done.code == 11 and "no space left on the disk for tied.imatrix.gguf" in done.error
    assert files() == []


def test_an_older_imatrix_survives_a_bad_one(command, workplace, small_model, small_text, small_imatrix, monkeypatch):
    (workplace / "i.gguf").write_bytes(small_imatrix.read_bytes())
    bad = bytearray(small_imatrix.read_bytes())
    sums = next(tensor for tensor in read_container(small_imatrix)[1] if tensor.name.endswith(".in_sum2"))
    bad[sums.offset : sums.offset + 4] = np.float32("nan").tobytes()
    for content in (bytes(bad), b"nothing"):
        monkeypatch.setattr(tool.tools, "run", wrote(content))
        assert command("imatrix", small_model, "-f", small_text, "-o", "i.gguf", "--force").code == 3
        assert (workplace / "i.gguf").read_bytes() == small_imatrix.read_bytes()


def test_progress_is_read_from_pieces_of_the_log():
    shares = []
    counter = tool.ChunkCounter(shares.append)
    for piece in (
        "computing over 12 ch",
        "unks, n_ctx=128\n[1]4.5",
        "1,[2]4.4,[3]",
        "4.0,",
        "noise",
        "[12]4.1,",
    ):
        counter(piece)
    reached = sorted({round(12 * sum(shares[: count + 1])) for count in range(len(shares))})
    assert reached in ([2, 3, 12], [1, 2, 3, 12])
