"""Finished results by key, of one type, kept in a journal: what every long stage looks up before it works."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import platformdirs

from quantplan.records.codec import decode, encode
from quantplan.records.journal import Journal

Value = TypeVar("Value")


def user_cache() -> Path:
    """Where measured values are kept outside a project: QUANTPLAN_CACHE, else the user's cache folder."""
    return Path(os.environ.get("QUANTPLAN_CACHE") or platformdirs.user_cache_dir("quantplan")).expanduser()


class Codec(Protocol[Value]):
    """How values stand in JSON: a ``RecordFormat``, or ``Plain``."""

    def encode(self, value: Value) -> Any: ...

    def decode(self, content: Any) -> Value: ...


class Plain(Generic[Value]):
    """Values of a type that needs no format of its own: a dataclass, or JSON as it is (``object``)."""

    def __init__(self, cls: Any = object) -> None:
        self._type = cls

    def encode(self, value: Value) -> Any:
        return encode(value)

    def decode(self, content: Any) -> Value:
        return decode(content, self._type)


class Cache(Generic[Value]):
    """Results under conditions that are all named in ``made_from``, in ``folder/stage-<digest>.jsonl``.

    Without a folder they last as long as the cache. A result that cannot be decoded, such as one of an older version, counts
    as missing. Raises BadFile or NoSpace where the folder cannot be read or written.
    """

    def __init__(self, codec: Codec[Value], folder: Path | None, stage: str, *made_from: object) -> None:
        self.folder = folder
        self._codec = codec
        self._journal = Journal(folder, stage, *made_from) if folder else None
        self._results: dict[str, Value] = {}
        for key, content in (self._journal.results if self._journal else {}).items():
            try:
                self._results[key] = codec.decode(content)
            except ValueError:
                continue

    @property
    def name(self) -> str:
        """Names the stage and what its results were made from; empty without a folder."""
        return self._journal.path.name if self._journal else ""

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> Value:
        return self._results[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def get(self, key: str, default: Any = None) -> Value | Any:
        return self._results.get(key, default)

    def put(self, key: str, value: Value) -> None:
        """Adds a result and makes it durable before it returns."""
        if self._journal:
            self._journal.put(key, self._codec.encode(value))
        self._results[key] = value

    def forget(self) -> None:
        """Looks nothing up that was there before, so that it is measured again."""
        self._results.clear()
