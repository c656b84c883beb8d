"""A loaded model that becomes one candidate after the other, for all candidates whose files would have the same header.

A candidate with as many layers as the original, of the same stored types, is the original with other weights in the same
places. For another number of layers a file is written, loaded and removed at once: the engine holds the weights itself.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import psutil

from quantplan.abilities import check_predicts
from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.reader import number_arrays
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.records.files import make_folder
from quantplan.records.journal import digest_of
from quantplan.surgery.architectures.check import metadata_changes
from quantplan.surgery.edited_tensors import EditedTensor, edited_tensors
from quantplan.surgery.encode_tensors import tensor_data
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.write_model import write_edited_model
from quantplan.tensor import Model

FOLDER = "hosts"  # below the cache; a file in it does not outlive the process that wrote it, or the next search


def frame(model: Model, layer_map: LayerMap, tensors: Sequence[EditedTensor] | None = None) -> str:
    """A digest of all that a loaded model cannot change: number of layers, types, shapes, per-layer metadata. One loaded model
    can become any candidate of the same frame. ``tensors``: of the map, where they are known.
    """
    tensors = edited_tensors(model, layer_map) if tensors is None else tensors
    header = [(tensor.name, tensor.first.shape, tensor.type.name) for tensor in tensors]
    arrays = {
        key: [items[index] for index in array_items(layer_map.source_blocks, layer_map.original, len(items))]
        for key, items in _layer_arrays(model.path, model.digest, model.architecture, model.blocks)
    }
    return digest_of(header, arrays, metadata_changes(model, layer_map))


@lru_cache(maxsize=4)
def _layer_arrays(path: Path, _digest: str, architecture: str, blocks: int) -> list[tuple[str, tuple[float, ...]]]:
    arrays = number_arrays(path).items()
    return [(key, items) for key, items in arrays if is_per_layer_array(architecture, key, len(items), blocks)]


class Host:
    """A loaded model, and the source of each of its tensors. Use as a context manager.

    ``folder``: for the file of a host that is not the model itself. ``load_seconds``: for loading, writing not counted.
    Raises BadFile, NoSpace.
    """

    def __init__(
        self, model: Model, layer_map: LayerMap, options: EngineOptions, folder: Path, imatrix: Imatrix | None = None
    ) -> None:
        check_predicts(model)
        self._model, self._imatrix = model, imatrix
        tensors = edited_tensors(model, layer_map)
        self.frame = frame(model, layer_map, tensors)
        with _file_of(model, layer_map, folder, imatrix) as path:
            began = time.perf_counter()
            self.engine = Engine(path, replace(options, swappable=True))
            self.load_seconds = time.perf_counter() - began
        self._loaded = {tensor.name: _content(tensor) for tensor in tensors}
        self._reached = self.engine.find_weights(set(self._loaded))

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()

    def become(self, tensors: Sequence[EditedTensor]) -> bool:
        """Replaces the weights that differ from those loaded; False, with nothing changed, where one of them cannot be reached in
        memory. ``tensors``: of a candidate of the same frame.
        """
        differing = [tensor for tensor in tensors if self._loaded[tensor.name] != _content(tensor)]
        if any(tensor.name not in self._reached for tensor in differing):
            return False
        for tensor in differing:
            self.engine.put(tensor.name, tensor_data(self._model, tensor, self._imatrix))
            self._loaded[tensor.name] = _content(tensor)
        return True


def _content(tensor: EditedTensor) -> tuple[tuple[str, float], ...]:
    """Identifies the weights of a tensor; its name and type are those of its place."""
    return tuple((source.name, factor) for source, factor in tensor.sources)


# --- the files of hosts


@contextmanager
def _file_of(model: Model, layer_map: LayerMap, folder: Path, imatrix: Imatrix | None) -> Iterator[Path]:
    """The model itself where the map changes nothing, else a file for as long as it takes to load it."""
    if layer_map.is_identity:
        yield model.path
        return
    path = folder / FOLDER / f"{os.getpid()}-{layer_map.digest[:16]}.gguf"
    make_folder(path.parent)
    try:
        # the search has checked the map before, and runs the file at once
        write_edited_model(model, layer_map, path, imatrix=imatrix, skip_check=True, try_it=False)
        yield path
    finally:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Removes the files of hosts that killed searches left, complete and partial ones."""
    for path in (folder / FOLDER).glob("*"):
        pid = path.name.lstrip(".").split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
