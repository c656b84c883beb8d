"""Models on a hub as people write and paste them, and which of a repository's files is meant.

``hf://owner/repo/file.gguf`` names a file, ``owner/repo:quant`` is llama.cpp's ``-hf``; both may end in ``@revision``. Addresses
of web pages and downloads mean the file that they show. Which file a quant means is decided as llama.cpp decides it
(common/download.cpp: ``find_best_model``, ``get_split_files``), but that the quant must be a whole word.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.shards import model_stem, parse_shard

DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")  # in this order, then the first model there is
_SCHEME = re.compile(r"hf:/+")  # Path makes one slash of two
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_ADDRESS = re.compile(r"(?:https?:/+)?(?P<host>[\w.-]+(?::\d+)?)/(?P<path>.*)", re.DOTALL)
_IN_ADDRESS = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?:resolve|blob|raw|tree)/(?P<revision>refs/[^/]+/[^/]+|[^/]+)(?:/(?P<file>.+))?)?/?",
    re.ASCII,
)
_REFERENCE = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<early>[^/:@]+))?(?::(?P<quant>[\w.-]+))?(?:/(?P<file>[^:@]+))?(?:@(?P<late>[^:@]+))?",
    re.ASCII,
)
_OTHER_FILE = re.compile(r"\.(?:safetensors|bin|pth?|json|ya?ml|md|txt|jinja|gguf_file|zip|gz)$", re.IGNORECASE)
MODEL, RECORD = "model", "record"  # what a reference may name: a GGUF, or a JSON of quantplan
_NO_MODELS = ("mmproj", "imatrix")  # anywhere in names of files that are no model alone
_COMPANIONS = (
    "mtp-",
    "eagle3-",
    "dflash-",
    "dspark-",
    "draft-",
)  # at their start; inside a name they may be the model's own
_CONFIG = "config.json"
_FOR_CONVERSION = re.compile(r"(?:\.(?:json|txt|model|jinja|tiktoken|py|safetensors)|^README\.md|^LICENSE.*)$")
_PREFIXES = re.compile(r"(?:UD|i1)[-_.]$", re.IGNORECASE)  # publishers' variants of a quant
_ALIASES = {"F16": "FP16", "FP16": "F16", "F32": "FP32", "FP32": "F32"}


@dataclass(frozen=True)
class HubReference:
    """A file of a repository, or the one that ``quant`` means; without both, the one that llama.cpp would take."""

    repo: str
    file: str | None = None
    quant: str | None = None
    revision: str = "main"

    def __str__(self) -> str:
        words = f"hf://{self.repo}" + (f":{self.quant}" if self.quant else "") + (f"/{self.file}" if self.file else "")
        return words if self.revision == "main" else f"{words}@{self.revision}"


def is_reference(path: Path | str) -> bool:
    """Whether it names a model on a hub; a Path keeps one of the two slashes, which is enough to tell."""
    text = path.as_posix() if isinstance(path, Path) else path
    return bool(_SCHEME.match(text)) or text.startswith(("http:/", "https:/", *(f"{host}/" for host in _HOSTS)))


def parse_reference(text: str, kind: str = MODEL) -> HubReference:
    """``[hf://]owner/repo[:quant][/file.gguf][@revision]``, the revision after the repository too, or an address as browsers show
    it (``https://huggingface.co/owner/repo/resolve/main/file.gguf``). A file may be a folder. BadUsage for all else.

    ``kind`` RECORD: a JSON file of quantplan's must be named.
    """
    if not _SCHEME.match(text) and is_reference(text):
        return _of_address(text, kind)
    match = _REFERENCE.fullmatch(_SCHEME.sub("", text, count=1))
    if not match:
        raise BadUsage(f"cannot read {text!r}; write hf://owner/repo/file.gguf, or -hf owner/repo:Q4_K_M")
    repo, file, quant = match["repo"], match["file"], match["quant"]
    if file and quant:
        raise BadUsage(f"{text}: a file or a quant, not both")
    _check_file(text, file, kind)
    if match["early"] and match["late"]:
        raise BadUsage(f"{text}: two revisions")
    return HubReference(repo, file, quant, match["early"] or match["late"] or "main")


def _check_file(text: str, file: str | None, kind: str) -> None:
    if kind == RECORD:
        if not (file and file.lower().endswith(".json")):
            raise BadUsage(f"{text}: name a JSON file of the repository: hf://owner/repo/table.json")
    elif file and _OTHER_FILE.search(file):
        raise BadUsage(f"{text}: {file} is not a GGUF file; name a .gguf, or leave it out to search the repository")


def _of_address(text: str, kind: str) -> HubReference:
    address = _ADDRESS.fullmatch(re.split(r"[?#]", text, maxsplit=1)[0])
    own = os.environ.get("HF_ENDPOINT", "").rpartition("//")[2].rstrip("/")
    if not address or address["host"].lower() not in (*_HOSTS, own):
        raise BadUsage(
            f"{text}: only models on Hugging Face are downloaded; download the file yourself and give its path"
        )
    path = unquote(address["path"])
    if ":" in path:  # hf.co/owner/repo:Q4_K_M, as ollama writes it
        return parse_reference(f"hf://{path}", kind)
    match = _IN_ADDRESS.fullmatch(path)
    if not match:
        raise BadUsage(
            f"{text}: not the address of a model; it looks like https://{_HOSTS[0]}/owner/repo/resolve/main/m.gguf"
        )
    _check_file(text, match["file"], kind)
    return HubReference(match["repo"], match["file"], revision=match["revision"] or "main")


def model_files(reference: HubReference, files: Sequence[str]) -> tuple[str, ...]:
    """The files of the model that is meant, all shards in order, among those of the repository.

    NothingSelected, with what there is, where none is meant or a shard is missing.
    """
    models = [name for name in files if _is_model(name)]
    if reference.file and reference.file in files:
        return _shards(reference.file, files, reference)
    inside = [name for name in models if reference.file is None or name.startswith(f"{reference.file}/")]
    first = _best(inside, reference.quant)
    if first is None:
        raise NothingSelected(_nothing(reference, models, files))
    return _shards(first, files, reference)


def every_model(reference: HubReference, files: Sequence[str]) -> tuple[str, ...]:
    """The files of all models of the repository, or of those in the folder that is named; of a file or a quant as
    ``model_files``."""
    inside = [
        name for name in files if _is_model(name) and name.startswith(f"{reference.file}/" if reference.file else "")
    ]
    return tuple(sorted(inside)) if inside and not reference.quant else model_files(reference, files)


def is_checkpoint(reference: HubReference, files: Sequence[str]) -> bool:
    """Whether the repository itself is named, and holds a model in safetensors and no GGUF of one."""
    named = reference.file or reference.quant
    return not named and not any(map(_is_model, files)) and any(name.endswith(".safetensors") for name in files)


def checkpoint_files(reference: HubReference, files: Sequence[str]) -> tuple[str, ...]:
    """What a conversion of the repository's model reads, config.json first: all files at its top but other formats of weights
    and pictures. NothingSelected where there is no config.json.
    """
    top = sorted(name for name in files if "/" not in name and _FOR_CONVERSION.search(name))
    if _CONFIG not in top:
        raise NothingSelected(
            f"{reference.repo} has no {_CONFIG}, so its safetensors are no model that can be converted"
        )
    return (_CONFIG, *(name for name in top if name != _CONFIG))


def _is_model(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base.endswith(".gguf") and not base.startswith(_COMPANIONS) and not any(word in base for word in _NO_MODELS)


def _best(models: Sequence[str], quant: str | None) -> str | None:
    """The first whose path has the quant as a whole word, where it is exactly the quant before others; without one the
    defaults of llama.cpp, then any."""
    firsts = [name for name in models if not (shard := parse_shard(name)) or shard.index == 1]
    for wanted in (quant, _ALIASES.get(quant.upper(), quant)) if quant else DEFAULT_QUANTS:
        ranked = [(rank, place) for place, name in enumerate(firsts) if (rank := _rank(name, wanted)) is not None]
        if ranked:
            return firsts[min(ranked)[1]]
    return None if quant or not firsts else firsts[0]


def _rank(name: str, quant: str) -> tuple[bool, int] | None:
    """How well a file fits a quant, smaller is better; None where its path does not have it as a word.

    ``Q4_K`` is no word of ``Q4_K_M``, nor ``F16`` of ``BF16``; ``UD-Q4_K_XL`` is not ``Q4_K_XL``, but may be meant.
    """
    stem = model_stem(name)
    word = re.compile(
        rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9]|_[A-Za-z0-9]{{1,3}}(?![A-Za-z0-9]))", re.IGNORECASE
    )
    matches = list(word.finditer(stem))
    if not matches:
        return None
    exact = any(part.lower() == quant.lower() for part in stem.split("/")[:-1]) or (
        matches[-1].end() == len(stem) and not _PREFIXES.search(stem, 0, matches[-1].start())
    )
    companion = any(f"-{word}" in f"{stem.lower()}-" for word in _COMPANIONS)
    return companion, 0 if exact else 1 if matches[-1].end() == len(stem) else 2


def _shards(name: str, files: Sequence[str], reference: HubReference) -> tuple[str, ...]:
    shard = parse_shard(name)
    if shard is None:
        return (name,)
    missing = [each for each in shard.all if each not in files]
    if len(missing) > 1 and len(missing) == shard.count - 1:
        return (name,)  # a whole file with the name of a shard: its header tells
    if missing:
        raise NothingSelected(
            f"{reference.repo}: {len(missing)} of {shard.count} shards are missing, first {missing[0]}"
        )
    return shard.all


def _nothing(reference: HubReference, models: Sequence[str], files: Sequence[str]) -> str:
    if reference.file and reference.file.lower().endswith(".json"):
        records = [name for name in files if name.lower().endswith(".json")]
        return f"{reference.repo} has no {reference.file}; JSON files there: {', '.join(records) or 'none'}"
    if not models:
        return (
            f"{reference.repo} has no GGUF model; look for a repository of its GGUF files, or convert its safetensors with "
            f"`quantplan init hf://{reference.repo}`"
        )
    wanted = reference.file or f"quant {reference.quant}"
    return f"{reference.repo} has no {wanted}; there are: {', '.join(models)}"
