"""Files of the same model that others publish: their sizes, and what was measured of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import ModelMismatch, NothingSelected
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import model_stem, parse_shard
from quantplan.hub.hub import Hub
from quantplan.hub.reference import every_model, is_reference, parse_reference
from quantplan.llamacpp.quantize import looks_like_ftype
from quantplan.measurement import Measurement
from quantplan.records.formats import MEASUREMENTS
from quantplan.tensor import Model

_UNQUANTIZED = ("F32", "F16", "BF16", "FP32", "FP16")


@dataclass(frozen=True)
class OtherFile:
    """``name``: of the file, of its first shard where it is split. ``digest`` None: only its size is known.

    ``measured``: under any conditions.
    """

    publisher: str
    name: str
    file_bytes: int
    digest: str | None = None
    measured: tuple[Measurement, ...] = ()

    @property
    def quant(self) -> str:
        return quant_of(self.name)


def quant_of(name: str) -> str:
    """The quant that a file is named after, in capitals: ``Q4_K_M``, ``UD-Q4_K_XL``; the whole stem where it names none."""
    stem = model_stem(Path(name).name)
    words = re.split(r"[-.]", stem)
    for start in range(len(words) - 1, -1, -1):
        quant = words[start].upper()
        if looks_like_ftype(quant) or quant in _UNQUANTIZED:
            return f"UD-{quant}" if start and words[start - 1].upper() == "UD" else quant
    return stem


def other_files(publisher: str, where: str, own: Model) -> list[OtherFile]:
    """Those of a GGUF, a folder of them, a record of `quantplan measure`, or a repository on a hub, which is not downloaded.

    ModelMismatch for a file of another model than ``own``, whatever it is called; what is on a hub is taken at its word.
    NothingSelected where there is no GGUF. Raises BadFile.
    """
    if is_reference(where):
        return _on_hub(publisher, where)
    path = Path(where).expanduser()
    if path.suffix == ".json":
        measured = MEASUREMENTS.read(path)
        name = Path(measured.file).name
        return [OtherFile(publisher, name, measured.file_bytes, measured.model_digest, (measured,))]
    paths = _ggufs(path) if path.is_dir() else [path]
    if not paths:
        raise NothingSelected(f"{path}: no GGUF in this folder; name the folder of {publisher}'s files")
    return [_local(publisher, path, own) for path in paths]


def _ggufs(folder: Path) -> list[Path]:
    """The models of a folder, of split ones the first shard."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    return [folder / name for name in names if not (shard := parse_shard(name)) or shard.index == 1]


def _local(publisher: str, path: Path, own: Model) -> OtherFile:
    model = read_model(path)
    _check_same(model, own)
    return OtherFile(publisher, model.path.name, model.file_bytes, model.digest)


def _check_same(model: Model, own: Model) -> None:
    """ModelMismatch unless all blocks have the same matrices; embeddings may be padded, and norms merged."""
    theirs, ours = (
        {tensor.name: tensor.shape for tensor in each.tensors if tensor.block is not None} for each in (model, own)
    )
    both = theirs.keys() & ours.keys()
    other = next((name for name in sorted(both) if theirs[name] != ours[name]), None)
    if model.architecture != own.architecture or model.blocks != own.blocks or not both or other:
        what = f"{other} has another shape" if other else f"{model.architecture} of {model.blocks} blocks"
        raise ModelMismatch(
            f"{model.path}: not a file of {own.name} ({own.architecture} of {own.blocks} blocks): {what}; "
            "name files of this model"
        )


def _on_hub(publisher: str, where: str) -> list[OtherFile]:
    sizes: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for file in Hub().files(parse_reference(where), every_model):
        stem = model_stem(file.name)
        names.setdefault(stem, Path(file.name).name)
        sizes.setdefault(stem, []).append(file.size)
    return [OtherFile(publisher, names[stem], sum(parts)) for stem, parts in sizes.items()]
