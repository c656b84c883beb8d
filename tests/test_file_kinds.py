"""Files that were taken for models: failed downloads, archives, formats of other programs."""

import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest

from quantplan.errors import BadFile
from quantplan.file_kinds import file_kind, start_in_words
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS
from quantplan.text_files import is_gguf, read_text_file, starts_as_gguf

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4920739232\n"
PAGE = b"\n<!DOCTYPE html>\n<html class=''><head><title>model.Q4_0.gguf at main</title></head></html>"


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


def safetensors():
    header = b'{"__metadata__":{"format":"pt"}}'
    return len(header).to_bytes(8, "little") + header + bytes(100)


KINDS = [
    (POINTER, r"a git-lfs pointer to a file of 4,920,739,232 bytes: run `git lfs pull`"),
    (b"# xet version 0\nfilesize = 12345\nhash = 'ab'\n", r"a git-xet pointer to a file of 12,345 bytes"),
    (PAGE, r"a web page \(model.Q4_0.gguf at main\): the download failed.*/resolve/ instead of /blob/"),
    (b"\xef\xbb\xbf<html>", "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an answer of a server.*AccessDenied"),
    (b"Entry not found", r"an answer of a server \(Entry not found\): the download failed"),
    (b"Invalid username or password.", "an answer of a server"),
    (b"Access to model x/y is restricted and you are not in the authorized list.", "an answer of a server"),
    (b"404: Not Found", "an answer of a server"),
    (b'{"error":"Repository not found"}', "an answer of a server in JSON"),
    (b'{\n "message": "Unauthorized"}', "an answer of a server in JSON"),
    (b'{"metadata": {}, "weight_map": {"a": "b.safetensors"}}', "index of a model in safetensors"),
    (b'{"schemaVersion":2,"mediaType":"application/vnd.docker"}', "manifest of ollama"),
    (b"", "an empty file: the download failed"),
    (bytes(5000), "a file of zeros, as unfinished downloads"),
    (gzip.compress(b"x"), "gzip archive: unpack it first"),
    (zipped("model.gguf"), "a zip archive"),
    (zipped("archive/data.pkl"), "a checkpoint of PyTorch"),
    (pickle.dumps([1], protocol=4), "a Python pickle"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a Python pickle"),
    (safetensors(), "a safetensors file: convert the model"),
    (b"tjgg" + bytes(100), r"before GGUF \(ggjt\)"),
    (b"lmgg" + bytes(100), r"before GGUF \(ggml\)"),
    (zipped("weights.npy"), "an archive of NumPy arrays"),
    ("GGUF\x03".encode("utf-16"), "a text in UTF-16, as > of PowerShell does"),
    (b"\x89PNG\r\n", r"an image \(PNG\)"),
    (b"\x7fELF\x02", "a program"),
    (b"model.gguf".ljust(257, b"\0") + b"ustar" + bytes(250), "a tar archive"),
]


@pytest.mark.parametrize(("content", "meaning"), KINDS, ids=[meaning for _, meaning in KINDS])
def test_every_reader_says_what_a_file_is(tmp_path, content, meaning):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    readers = [(read_model, "not a GGUF file but "), (read_imatrix, "not an imatrix")]
    for read, begins in readers:
        if read is read_imatrix and not content:
            continue
        with pytest.raises(BadFile, match=f"model.gguf: {begins}.*{meaning}"):
            read(path)
    with pytest.raises(BadFile, match=f"{meaning}.*is needed" if content else "not JSON"):
        PLANS.read(path)


def test_what_is_unknown_is_shown_without_its_bytes(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"\x93\x00\x1b[31m" + bytes(range(200)))
    with pytest.raises(BadFile, match="it starts with the bytes 93 00 1b 5b.; download it again, or convert") as error:
        read_model(path)
    assert str(error.value).isprintable()
    assert start_in_words(b"hello there") == "it starts with 'hello there'"


@pytest.mark.parametrize(
    "content", [b"GGUF" + bytes(20), b"attn_v=q8_0\n", b"# rules\nattn_v=q8_0", b"Not everything is found", b"[[0,"]
)
def test_what_may_be_meant_is_left_alone(content):
    assert file_kind(content, len(content)) is None


def test_a_legacy_imatrix_of_640_entries_is_no_pickle():
    start = np.array([640, 20], "<i4").tobytes() + b"blk.0.attn_q.weight."
    assert start[:2] == b"\x80\x02" and file_kind(start, 10_000) is None


def test_texts(tmp_path):
    path = tmp_path / "rules.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("attn_v=q8_0\r\nµ".encode(encoding))
        assert read_text_file(path, "a text") == "attn_v=q8_0\nµ"
    with pytest.raises(BadFile, match="too much for a text; rules are needed".replace("are", "is")):
        read_text_file(path, "rules", most=5)
    for content, words in ((b"GGUF\x03\0\0\0", "a GGUF file"), (b"a\0b", "a binary file"), (b"\xff\xff", "byte 0")):
        path.write_bytes(content)
        with pytest.raises(BadFile, match=words):
            read_text_file(path, "a text")
    with pytest.raises(BadFile, match="cannot read .*No such file"):
        read_text_file(tmp_path / "none", "a text")


def test_a_large_model_is_no_text(tmp_path):
    path = tmp_path / "large.gguf"
    path.write_bytes(b"GGUF")
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert is_gguf(path)
    (tmp_path / "text.gguf").write_text("attn_v=q8_0")
    assert is_gguf(tmp_path / "text.gguf") and not starts_as_gguf(tmp_path / "text.gguf")
    with pytest.raises(BadFile, match="a GGUF file"):
        read_text_file(path, "a text")


@pytest.mark.parametrize(
    "start", [b'<div align="center">\n<img src="x.png">', b"<!-- made by hand -->\n# Card", b"<pre>x</pre>"]
)
def test_markdown_that_begins_with_html_is_no_answer_of_a_server(start):
    assert file_kind(start, 2000) is None
