"""Models on a hub as people write them, and which of a repository's files is meant.

``hf://owner/repo/file.gguf`` names a file, ``owner/repo:quant`` is llama.cpp's ``-hf``; both may end in ``@revision``. Which
file a quant means is decided as llama.cpp decides it (common/download.cpp: ``find_best_model``, ``get_split_files``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.shards import parse_shard

DEFAULT_QUANTS = ("Q4_K_M", "Q8_0")  # in this order, then the first model there is
_SCHEME = re.compile(r"hf:/+")  # Path makes one slash of two
_REFERENCE = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<early>[^/:@]+))?(?::(?P<quant>[\w.-]+))?(?:/(?P<file>[^:@]+))?(?:@(?P<late>[^:@]+))?",
    re.ASCII,
)
_COMPANIONS = (
    "mmproj",
    "imatrix",
    "mtp-",
    "eagle3-",
    "dflash-",
    "dspark-",
)  # in names of files that are no model alone


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
    return bool(_SCHEME.match(path.as_posix() if isinstance(path, Path) else path))


def parse_reference(text: str) -> HubReference:
    """``[hf://]owner/repo[:quant][/file.gguf][@revision]``, the revision after the repository too; BadUsage for all else."""
    match = _REFERENCE.fullmatch(_SCHEME.sub("", text, count=1))
    if not match:
        raise BadUsage(f"cannot read {text!r}; write hf://owner/repo/file.gguf, or -hf owner/repo:Q4_K_M")
    repo, file, quant = match["repo"], match["file"], match["quant"]
    if file and quant:
        raise BadUsage(f"{text}: a file or a quant, not both")
    if file and not file.lower().endswith(".gguf"):
        raise BadUsage(f"{text}: {file} is not a GGUF file; name a .gguf, or leave it out to search the repository")
    if match["early"] and match["late"]:
        raise BadUsage(f"{text}: two revisions")
    return HubReference(repo, file, quant, match["early"] or match["late"] or "main")


def model_files(reference: HubReference, files: Sequence[str]) -> tuple[str, ...]:
    """The files of the model that is meant, all shards in order, among those of the repository.

    NothingSelected, with what there is, where none is meant or a shard is missing.
    """
    models = [name for name in files if _is_model(name)]
    first = reference.file or _best(models, reference.quant)
    if first not in files:
        raise NothingSelected(_nothing(reference, models))
    return _shards(str(first), files, reference)


def _is_model(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.endswith(".gguf") and not any(word in base for word in _COMPANIONS)


def _best(models: Sequence[str], quant: str | None) -> str | None:
    """llama.cpp's choice: the first whose path has the quant before a dot or dash; without one, its defaults, then any."""
    firsts = [name for name in models if not (shard := parse_shard(name)) or shard.index == 1]
    for wanted in [quant] if quant else DEFAULT_QUANTS:
        pattern = re.compile(re.escape(wanted) + "[.-]", re.IGNORECASE)
        if found := next((name for name in firsts if pattern.search(name)), None):
            return found
    return None if quant or not firsts else firsts[0]


def _shards(name: str, files: Sequence[str], reference: HubReference) -> tuple[str, ...]:
    shard = parse_shard(name)
    if shard is None:
        return (name,)
    missing = [each for each in shard.all if each not in files]
    if missing:
        raise NothingSelected(
            f"{reference.repo}: {len(missing)} of {shard.count} shards are missing, first {missing[0]}"
        )
    return shard.all


def _nothing(reference: HubReference, models: Sequence[str]) -> str:
    if not models:
        return f"{reference.repo} has no GGUF model; look for a repository of its GGUF files, or convert the model"
    wanted = reference.file or f"quant {reference.quant}"
    return f"{reference.repo} has no {wanted}; there are: {', '.join(models)}"
