"""Folders as transformers saves models: what is in them, and what is missing."""

import json

import pytest
from checkpoints import checkpoint, safetensors

from quantplan.convert.checkpoint import is_checkpoint, read_checkpoint
from quantplan.errors import BadFile

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456789\n"


def test_a_folder(tmp_path):
    folder = checkpoint(tmp_path / "My-Model", elements=500)
    found = read_checkpoint(folder)
    assert (found.name, found.architecture, found.blocks, found.elements) == ("My-Model", "Qwen3ForCausalLM", 2, 500)
    assert read_checkpoint(folder, "other").name == "other" and is_checkpoint(folder)
    assert not is_checkpoint(tmp_path) and not is_checkpoint(folder / "config.json")


def test_shards_are_those_of_the_index(tmp_path):
    folder = checkpoint(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    safetensors(folder / names[0], {"a": (4, 5), "b": (7,)})
    placed = {"a": names[0], "b": names[0], "c": names[1]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(BadFile, match=f"1 of 2 files of weights are missing, first {names[1]}; download them"):
        read_checkpoint(folder)
    safetensors(folder / names[1], {"c": (3,)})
    assert read_checkpoint(folder).elements == 30
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(BadFile, match="damaged index"):
        read_checkpoint(folder)


def test_the_digest_is_of_what_a_conversion_reads(tmp_path):
    folder = checkpoint(tmp_path / "m")
    before = read_checkpoint(folder).digest
    (folder / "m-BF16.gguf").write_bytes(b"GGUF")
    (folder / ".cache").write_text("x")
    assert read_checkpoint(folder).digest == before
    (folder / "tokenizer.json").write_text("[]")
    after = read_checkpoint(folder).digest
    assert after != before
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + b"\1")
    assert read_checkpoint(folder).digest not in (before, after)


def test_weights_of_pytorch(tmp_path):
    folder = checkpoint(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(bytes(9))
    with pytest.raises(BadFile, match="has a config.json but no weights"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").write_bytes(bytes(200))
    assert read_checkpoint(folder).elements == 100


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", None, "has no config.json: give a folder as save_pretrained"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "not a model's configuration"),
        ("model.safetensors", POINTER, "a git-lfs pointer to a file of 123,456,789 bytes: run `git lfs pull`"),
        ("model.safetensors", b"", "an empty file"),
        ("model.safetensors", b'\x08\0\0\0\0\0\0\0{"a": 1}', "damaged header of safetensors"),
        ("model.safetensors", b"what is this", "not a safetensors file: download it again"),
    ],
)
def test_damaged(tmp_path, name, content, message):
    folder = checkpoint(tmp_path / "m")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(BadFile, match=message):
        read_checkpoint(folder)


def test_cut_short(tmp_path):
    folder = checkpoint(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(BadFile, match="cut short: its tensors end at byte"):
        read_checkpoint(folder)


def test_an_adapter_is_no_model(tmp_path):
    folder = checkpoint(tmp_path / "m")
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert is_checkpoint(folder)
    with pytest.raises(BadFile, match="is a LoRA adapter, not a whole model: merge it"):
        read_checkpoint(folder)
