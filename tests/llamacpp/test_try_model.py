"""Whether llama.cpp runs a file is found out in another process, which may break off."""

import re

import numpy as np
import pytest

from quantplan.errors import BadFile
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.try_model import check_runs


def with_entry(path, entry, out):
    layout = read_layout(path)
    out.write_bytes(layout.changed({entry.key: entry}).header + path.read_bytes()[len(layout.header) :])
    return out


def test_a_model_runs(reference_model):
    check_runs(reference_model, threads=1)


def test_a_model_that_lacks_a_tensor(reference_model, tmp_path):
    path = tmp_path / "lacking.gguf"
    path.write_bytes(reference_model.read_bytes().replace(b"blk.3.attn_q.weight", b"blk.3.attn_x.weight"))
    with pytest.raises(BadFile, match=r"cannot load this model: .*tensor 'blk.3.attn_q.weight' not found"):
        check_runs(path, threads=1)


def test_llama_cpp_breaks_off(reference_model, tmp_path):
    """An assertion of llama.cpp ends its process; what it said is the reason, and this process lives."""
    path = with_entry(reference_model, MetadataEntry.of("qwen3.rope.dimension_count", 62), tmp_path / "rope.gguf")
    with pytest.raises(BadFile, match=re.escape("llama.cpp broke off: ") + ".*GGML_ASSERT.*n_rot"):
        check_runs(path, threads=1)


def test_weights_that_are_no_numbers(reference_model, tmp_path):
    path, norm = tmp_path / "nan.gguf", read_model(reference_model).by_name["output_norm.weight"]
    data = bytearray(reference_model.read_bytes())
    data[norm.offset : norm.offset + 4] = np.float32("nan").tobytes()
    path.write_bytes(data)
    with pytest.raises(BadFile, match="NaN or infinite logits"):
        check_runs(path, threads=1)


def test_what_is_not_there(tmp_path):
    with pytest.raises(BadFile, match=r"none.gguf: llama.cpp cannot load this model"):
        check_runs(tmp_path / "none.gguf", threads=1)
