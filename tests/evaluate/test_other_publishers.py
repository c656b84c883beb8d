"""Files that others publish: found as files, folders, records and repositories, and refused where they are of another model."""

import shutil
from dataclasses import replace

import pytest
from hub_server import FakeHub, serving
from measurement_parts import MEASUREMENT
from tiny_models import tiny_moe, tiny_tied

from quantplan.errors import BadFile, ModelMismatch, NothingSelected
from quantplan.evaluate.other_publishers import other_files
from quantplan.evaluate.published_files import PublishedFile
from quantplan.gguf.reader import read_model
from quantplan.hub.hub import Hub
from quantplan.records.formats import MEASUREMENTS
from quantplan.report.card_data import card_data


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return read_model(tiny_tied(tmp_path_factory.mktemp("m") / "tied-F16.gguf"))


@pytest.fixture
def folder(model, tmp_path):
    for quant in ("Q4_K_M", "Q8_0"):
        shutil.copy(model.path, tmp_path / f"tied-{quant}.gguf")
    (tmp_path / "README.md").write_text("card")
    return tmp_path


def test_a_folder_or_a_file(model, folder):
    found = other_files("bob", str(folder), model)
    assert [(file.publisher, file.quant, file.digest) for file in found] == [
        ("bob", "Q4_K_M", model.digest),
        ("bob", "Q8_0", model.digest),
    ]
    assert other_files("bob", str(folder / "tied-Q8_0.gguf"), model) == found[1:]
    assert found[0].file_bytes == model.file_bytes and found[0].measured == ()


def test_a_record_and_what_the_reports_know_of_a_file(model, folder):
    mine = PublishedFile("mine.gguf", model, {}, {}, 1, digest="mine")
    record = replace(MEASUREMENT, file="x/tied-Q6_K.gguf", model_digest="theirs", file_bytes=7)
    MEASUREMENTS.write(record, folder / "tied-Q6_K.measurement.json")
    (from_record,) = other_files("bob", str(folder / "tied-Q6_K.measurement.json"), model)
    assert (from_record.quant, from_record.file_bytes, from_record.measured) == ("Q6_K", 7, (record,))
    of_file = replace(record, model_digest=model.digest)
    MEASUREMENTS.write(of_file, folder / "of-file.measurement.json")
    others = [*other_files("bob", str(folder / "tied-Q8_0.gguf"), model), from_record, from_record]
    data = card_data([mine], sorted(folder.glob("*.json")), others=others)
    assert [file.measured for file in data.others] == [(of_file,), (record,)] and data.left_out == ()


def test_a_repository_is_not_downloaded(model, tmp_path, monkeypatch):
    shards = {f"M-Q8_0-0000{part}-of-00002.gguf": b"x" * part for part in (1, 2)}
    files = {"README.md": b"", "M-Q4_K_M.gguf": b"12345", "mmproj-F16.gguf": b"1", "BF16/M-BF16.gguf": b"12", **shards}
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(FakeHub({"bob/M": files, "bob/none": {"README.md": b""}})) as hub:
        monkeypatch.setattr("quantplan.evaluate.other_publishers.Hub", lambda: Hub(hub.endpoint, tmp_path))
        found = other_files("bob", "hf://bob/M", model)
        assert {file.quant: (file.name, file.file_bytes, file.digest) for file in found} == {
            "BF16": ("M-BF16.gguf", 2, None),
            "Q4_K_M": ("M-Q4_K_M.gguf", 5, None),
            "Q8_0": ("M-Q8_0-00001-of-00002.gguf", 3, None),
        }
        assert [file.quant for file in other_files("bob", "hf://bob/M:Q8_0", model)] == ["Q8_0"]
        assert [file.quant for file in other_files("bob", "hf://bob/M/BF16", model)] == ["BF16"]
        with pytest.raises(NothingSelected, match="has no GGUF model"):
            other_files("bob", "hf://bob/none", model)
        assert hub.downloads == []


def test_what_is_no_file_of_the_model(model, tmp_path):
    with pytest.raises(NothingSelected, match="no GGUF in this folder"):
        other_files("bob", str(tmp_path), model)
    with pytest.raises(ModelMismatch, match="not a file of"):
        other_files("bob", str(tiny_moe(tmp_path / "moe.gguf")), model)
    with pytest.raises(BadFile, match=r"gone\.gguf"):
        other_files("bob", str(tmp_path / "gone.gguf"), model)
