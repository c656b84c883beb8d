"""A model as transformers saves it: config.json, a tokenizer, and weights in safetensors (or PyTorch's own format)."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.file_kinds import START, file_kind
from quantplan.records.json_text import parse_json
from quantplan.text_files import read_text_file

CONFIG, WEIGHTS = "config.json", ".safetensors"
_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library allows
_SMALL, _SAMPLE = 16 << 20, 1 << 16  # bytes: smaller files are digested whole, of others so much at three places
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")


@dataclass(frozen=True)
class Checkpoint:
    """``weights``: files with tensors; ``other_bytes``: of configuration and tokenizer. ``elements``: of all tensors, estimated
    by the size where the format does not tell.

    ``blocks`` None: config.json does not say. ``digest``: of all files of the folder that a conversion may read, by samples of
    large ones.
    """

    folder: Path
    name: str
    architecture: str
    weights: tuple[Path, ...]
    elements: int
    blocks: int | None
    other_bytes: int
    digest: str


def is_checkpoint(path: Path) -> bool:
    """Whether it is a folder with a config.json, or of an adapter."""
    return path.is_dir() and any((path / name).is_file() for name in (CONFIG, "adapter_config.json"))


def read_checkpoint(folder: Path, name: str | None = None) -> Checkpoint:
    """BadFile where the folder does not hold a whole model. ``name``: what to call it instead of the folder's name."""
    config = _config(folder)
    weights = _weights(folder)
    text_config = config.get("text_config")
    described = text_config if isinstance(text_config, dict) else config
    blocks = described.get("num_hidden_layers")
    architectures = config.get("architectures")
    return Checkpoint(
        folder,
        name or folder.resolve().name,
        str(architectures[0]) if isinstance(architectures, list) and architectures else "unknown",
        weights,
        sum(map(_elements, weights)),
        blocks if isinstance(blocks, int) else None,
        sum(path.stat().st_size for path in _read(folder) if path.suffix in (".json", ".model", ".txt")),
        _digest(folder),
    )


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        if (folder / "adapter_config.json").is_file():
            raise BadFile(
                f"{folder} is a LoRA adapter, not a whole model: merge it into its base first (merge_and_unload of peft, then "
                "save_pretrained), and give that folder"
            )
        raise BadFile(
            f"{folder} has no {CONFIG}: give a folder as save_pretrained of transformers writes it, or a GGUF"
        )
    try:
        config = parse_json(read_text_file(folder / CONFIG, "a model's config.json"))
    except ValueError as error:
        raise BadFile(f"{folder / CONFIG}: not JSON ({error}); download the model again") from None
    if not isinstance(config, dict):
        raise BadFile(f"{folder / CONFIG}: not a model's configuration; download the model again")
    return config


def _weights(folder: Path) -> tuple[Path, ...]:
    named = _named_by_index(folder / _INDEX)
    if missing := [name for name in named if not (folder / name).is_file()]:
        raise BadFile(
            f"{folder}: {len(missing)} of {len(named)} files of weights are missing, first {missing[0]}; download them"
        )
    found = [folder / name for name in named] or sorted(folder.glob(f"*{WEIGHTS}"))
    if not found:
        found = [path for path in sorted(folder.glob("*.bin")) if not path.name.startswith(_NO_WEIGHTS)]
    if not found:
        raise BadFile(f"{folder} has a {CONFIG} but no weights ({WEIGHTS} or .bin); download them")
    return tuple(found)


def _named_by_index(index: Path) -> list[str]:
    """The files that an index of shards names; none without one."""
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        return sorted(Path(str(name)).name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{index}: damaged index ({error}); download it again") from None


def _elements(path: Path) -> int:
    """Of the tensors of a file; of PyTorch's format as many as numbers of 16 bits fit."""
    if path.suffix != WEIGHTS:
        return path.stat().st_size // 2
    return sum(math.prod(shape) for shape in _shapes(path))


def _shapes(path: Path) -> Iterator[list[int]]:
    """From the header of a safetensors file: 8 bytes of its length, then JSON, then the data that it places."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(START)
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8) or start[8:9] != b"{":
            raise BadFile(f"{path} is {file_kind(start, size) or 'not a safetensors file: download it again'}")
        file.seek(8)
        header = file.read(length)
    try:
        tensors = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        shapes = [[int(number) for number in entry["shape"]] for entry in tensors]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise BadFile(f"{path}: damaged header of safetensors ({error}); download it again") from None
    if end > size:
        raise BadFile(f"{path}: cut short: its tensors end at byte {end:,}, the file has {size:,}; download it again")
    yield from shapes


def _read(folder: Path) -> list[Path]:
    """The files that a conversion may read."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for path in files if not path.name.startswith(".") and path.suffix.lower() != ".gguf"]


def _digest(folder: Path) -> str:
    """SHA-256 over names, sizes and contents of the files; of large ones over three samples, as of GGUFs."""
    sha = hashlib.sha256()
    for path in _read(folder):
        size = path.stat().st_size
        sha.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0,) if size <= _SMALL else (0, size // 2, size - _SAMPLE):
                file.seek(start)
                sha.update(file.read(_SMALL if size <= _SMALL else _SAMPLE))
    return sha.hexdigest()
