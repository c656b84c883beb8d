"""GGUF files: headers as models, tensor data through memory maps."""

import hashlib
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile
from quantplan.gguf.layout import Layout
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.shards import model_stem, read_shards
from quantplan.gguf.sound_header import check_sound
from quantplan.llamacpp import ggml
from quantplan.quant_type import foreign_type, ggml_type
from quantplan.tensor import Model, Tensor, padded

_OTHER_KINDS = {  # values of general.type that are no model
    "imatrix": "an imatrix, not a model; give it as --imatrix",
    "adapter": "an adapter (LoRA), not a model: it stays as it is; give the model that it is for, or merge it into that "
    "(llama-export-lora)",
    "control-vector": "a control vector, not a model",
}
_SAMPLE = 4096  # bytes at start, middle and end of each tensor that go into the digest


def read_model(path: Path | str) -> Model:
    """The header of a model, all shards of it; BadFile for anything that is not a whole GGUF model."""
    shards = read_shards(Path(path))
    paths, metadata = tuple(shard_path for shard_path, _ in shards), _scalars(shards[0][1])
    tensors: list[Tensor] = []
    for shard, (shard_path, layout) in enumerate(shards):
        tensors += _tensors(layout, shard_path, shard)
    if other := _OTHER_KINDS.get(str(metadata.get("general.type"))):
        raise BadFile(f"{paths[0]}: this is {other}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise BadFile(
            f"{paths[0]}: a GGUF file without {'tensors' if architecture else 'general.architecture'}: not a model"
        )
    check_sound(paths[0], architecture, metadata, tensors)
    return Model(
        paths=paths,
        architecture=architecture,
        name=str(metadata.get("general.name") or model_stem(paths[0].name)),
        blocks=int(metadata.get(f"{architecture}.block_count", 0)),  # type: ignore[call-overload]
        tensors=tuple(tensors),
        file_bytes=sum(path.stat().st_size for path in paths),
        digest=_digest(paths, tensors),
        header_only=all(_is_hole(path) for path in paths),
        metadata=metadata,
    )


def read_container(path: Path) -> tuple[dict[str, object], list[Tensor]]:
    """Metadata (scalars, strings, tuples of strings) and tensors of one GGUF file that need not be a model.

    BadFile where the header is unreadable or a tensor's data is not all there.
    """
    layout = read_layout(path)
    texts = {entry.key: entry.texts for entry in layout.entries if entry.texts is not None}
    return _scalars(layout) | texts, _tensors(layout, path, 0)


def _scalars(layout: Layout) -> dict[str, object]:
    values = {entry.key: entry.number if entry.text is None else entry.text for entry in layout.entries}
    return {key: value for key, value in values.items() if value is not None}


def _tensors(layout: Layout, path: Path, shard: int) -> list[Tensor]:
    """BadFile for a type that is not known, and where data are not all there or not where gguf.cpp expects them."""
    tensors, expected = [], 0
    for info in layout.tensors:
        quant = ggml_type(info.type)
        if quant is None:
            raise BadFile(f"{path}: {info.name} is stored as {foreign_type(info.type)}")
        if not quant.fits(info.dims[0]) or info.offset != expected or not info.name.isprintable():
            raise BadFile(
                f"{path}: damaged header: tensor {info.name!r} of shape {info.dims} and type {quant} has offset {info.offset:,}, "
                f"expected {expected:,}; convert the model again, or download it again"
            )
        shape = info.dims
        while len(shape) > 1 and shape[-1] == 1:
            shape = shape[:-1]
        tensors.append(Tensor(info.name, shape, quant, layout.data_offset + info.offset, shard))
        expected += padded(tensors[-1].bytes, layout.alignment)
    _check_length(path, tensors)
    return tensors


def _check_length(path: Path, tensors: list[Tensor]) -> None:
    size = path.stat().st_size
    for tensor in tensors:
        if tensor.offset + tensor.bytes > size:
            raise BadFile(
                f"{path}: cut short: {tensor.name} ends at byte {tensor.offset + tensor.bytes:,}, "
                f"the file has {size:,}; download or convert it again"
            )


def _digest(paths: tuple[Path, ...], tensors: list[Tensor]) -> str:
    """SHA-256 over all headers and three samples of each tensor's data.

    Reading 671B weights to name a model would take minutes; another model with the same header differs in nearly
    every sampled byte. Header-only files are named by their headers.
    """
    sha = hashlib.sha256()
    for shard, path in enumerate(paths):
        stored = [tensor for tensor in tensors if tensor.shard == shard]
        with path.open("rb") as file:
            sha.update(file.read(min((tensor.offset for tensor in stored), default=path.stat().st_size)))
            for tensor in stored:
                size = tensor.bytes
                for start in {0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}:
                    file.seek(tensor.offset + start)
                    sha.update(file.read(min(_SAMPLE, size)))
    return sha.hexdigest()


def _is_hole(path: Path) -> bool:
    """Whether almost no block of the file is on disk: a header stretched to full length."""
    stat = path.stat()
    return hasattr(stat, "st_blocks") and stat.st_blocks * 512 < stat.st_size // 50


def tensor_bytes(model: Model, tensor: Tensor) -> np.ndarray:
    """uint8 [rows, row bytes] mapped from the file, read only."""
    mapped = np.memmap(model.paths[tensor.shard], np.uint8, "r", tensor.offset, (tensor.bytes,))
    return mapped.reshape(tensor.rows, -1)


def tensor_rows(model: Model, tensor: Tensor, rows: np.ndarray | slice | None = None) -> np.ndarray:
    """float32 [rows, columns]: the tensor's weights, all or those of the given rows."""
    data = tensor_bytes(model, tensor)
    return ggml.dequantize(data if rows is None else data[rows], tensor.type, tensor.columns)


def number_arrays(path: Path) -> dict[str, tuple[float, ...]]:
    """Arrays of numbers and booleans in a header by key, those of the tokenizer left out. Raises BadFile."""
    entries = [entry for entry in read_layout(path).entries if not entry.key.startswith("tokenizer.")]
    return {entry.key: entry.numbers for entry in entries if entry.numbers}
