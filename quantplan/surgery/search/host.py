"""Models in memory that candidates are swapped into: one for all candidates whose files would have the same header.

A candidate with as many layers as the original, of the same stored types, is the original with other weights in the same
places. For another number of layers one file is written, loaded and removed at once: the engine holds the weights itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import psutil

from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.reader import number_arrays
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import Engine, EngineOptions
from quantplan.records.files import make_folder
from quantplan.records.journal import digest_of
from quantplan.surgery.apply import write_operated
from quantplan.surgery.architectures.check import metadata_changes
from quantplan.surgery.assembly import TensorPart, assemble, part_bytes
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

FOLDER = "hosts"  # below the cache; nothing in it outlives the process that wrote it, or the next search


def frame(model: Model, layer_map: LayerMap, parts: Sequence[TensorPart] | None = None) -> str:
    """Names what a loaded model cannot change: number of layers, types, shapes, per-layer metadata. Candidates of one frame
    can stand in for each other.
    """
    parts = assemble(model, layer_map) if parts is None else parts
    tensors = [(part.name, part.first.shape, part.type.name) for part in parts]
    arrays = {
        key: [items[index] for index in array_items(layer_map.source_blocks, layer_map.original, len(items))]
        for key, items in _layer_arrays(model.path, model.digest, model.architecture, model.blocks)
    }
    return digest_of(tensors, arrays, metadata_changes(model, layer_map))


@lru_cache(maxsize=4)
def _layer_arrays(path: Path, _digest: str, architecture: str, blocks: int) -> list[tuple[str, tuple[float, ...]]]:
    arrays = number_arrays(path).items()
    return [(key, items) for key, items in arrays if is_per_layer_array(architecture, key, len(items), blocks)]


class Host:
    """A loaded model, and what stands where in it. Use as a context manager.

    ``folder``: for the file of a host that is not the model itself. ``load_seconds``: what loading took, writing not counted.
    Raises BadFile, NoSpace.
    """

    def __init__(
        self, model: Model, layer_map: LayerMap, options: EngineOptions, folder: Path, imatrix: Imatrix | None = None
    ) -> None:
        self._model, self._imatrix = model, imatrix
        parts = assemble(model, layer_map)
        self.frame = frame(model, layer_map, parts)
        with _file_of(model, layer_map, folder, imatrix) as path:
            began = time.perf_counter()
            self.engine = Engine(path, replace(options, swappable=True))
            self.load_seconds = time.perf_counter() - began
        self._there = {part.name: _content(part) for part in parts}
        self._reached = self.engine.find_weights(set(self._there))

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.engine.close()

    def become(self, parts: Sequence[TensorPart]) -> bool:
        """Puts in what differs from what is there; False, with nothing changed, where a part cannot be reached in memory.

        ``parts``: of a candidate of the same frame.
        """
        differing = [part for part in parts if self._there[part.name] != _content(part)]
        if any(part.name not in self._reached for part in differing):
            return False
        for part in differing:
            self.engine.put(part.name, part_bytes(self._model, part, self._imatrix))
            self._there[part.name] = _content(part)
        return True


def _content(part: TensorPart) -> tuple[tuple[str, float], ...]:
    """What the weights of a part are; its name and type are those of its place."""
    return tuple((tensor.name, factor) for tensor, factor in part.sources)


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
        # forced: what may be searched was decided before; proved: it is run at once
        write_operated(model, layer_map, path, imatrix=imatrix, forced=True, proved=False)
        yield path
    finally:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Removes files of hosts that killed searches left, whole and half ones."""
    for path in (folder / FOLDER).glob("*"):
        pid = path.name.lstrip(".").split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
