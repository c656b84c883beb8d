import pytest
from model_shapes import QWEN3_8B, QWQ_32B

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.quant_type import BY_NAME


def test_a_32b_header_takes_no_disk(tmp_path):
    path = QWQ_32B.write(tmp_path / "qwq.gguf")
    model = read_model(path)
    assert model.header_only
    assert len(model.tensors) == 771
    assert model.file_bytes == path.stat().st_size > 65e9
    assert path.stat().st_blocks * 512 < 1e6
    assert model.elements == pytest.approx(32.76e9, rel=1e-3)
    assert not model.tied


def test_digests_of_headers_differ(tmp_path):
    assert (
        read_model(QWQ_32B.write(tmp_path / "a.gguf")).digest != read_model(QWEN3_8B.write(tmp_path / "b.gguf")).digest
    )


def test_all_kinds_of_metadata_and_quantized_types(tmp_path):
    metadata = {"general.name": "x", "a.block_count": 1, "a.eps": 0.5, "a.flag": True, "a.list": ["x", "y"]}
    tensors = [("w.weight", (512, 3, 2), BY_NAME["Q4_K"]), ("b.weight", (64, 5), BY_NAME["BF16"])]
    model = read_model(write_header_only(tmp_path / "x.gguf", "a", metadata, tensors))
    assert [(each.name, each.shape, each.type) for each in model.tensors] == tensors
    assert model.metadata["a.eps"] == 0.5
    assert model.metadata["a.flag"] is True
    assert (model.name, model.blocks, model.tensors[0].bytes) == ("x", 1, 2 * 144 * 6)


def test_unknown_metadata_and_bad_places(tmp_path):
    with pytest.raises(TypeError, match=r"a\.x"):
        write_header_only(tmp_path / "x.gguf", "a", {"a.x": object()}, [])
    with pytest.raises(BadFile):
        write_header_only("/proc/nowhere/x.gguf", "a", {}, [])
    assert list(tmp_path.iterdir()) == []
