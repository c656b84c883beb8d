"""Journals of finished work: one line per result, found again by what it was made from.

A line is written whole and flushed when its result is ready, so kill -9 loses at most the step under way; a torn or
altered line fails its checksum and is made again, never trusted.
"""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile, NoSpace
from quantplan.text import Domains, SpecialText, Text, content


def digest_of(*parts: object) -> str:
    """SHA-256 of the parts' JSON: the name of everything that can change a result, and of nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def text_digest(text: Text) -> str:
    """SHA-256 of a text as it is tokenized; of other tokens where special tokens are parsed, so another one.

    Of domains of their names and texts: figures are kept by name.
    """
    if isinstance(text, Domains):
        return digest_of(*((part.name, text_digest(part.text)) for part in text.parts))
    kind = b"special tokens parsed\n" if isinstance(text, SpecialText) else b""
    return hashlib.sha256(kind + content(text).encode("utf-8", "surrogateescape")).hexdigest()


class Journal:
    """Results by key in ``folder/stage-<digest of made_from>.jsonl``."""

    def __init__(self, folder: Path, stage: str, *made_from: object) -> None:
        self.path = folder / f"{stage}-{digest_of(*made_from)[:32]}.jsonl"
        self.results: dict[str, Any] = {}
        self.discarded = 0
        self._read()

    def _read(self) -> None:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadFile(f"cannot read the cache {self.path}: {error.strerror}; remove it and run again") from None
        for line in filter(None, lines):
            try:
                checksum, body = line.split(b" ", 1)
                if hashlib.sha256(body).hexdigest()[:16].encode() != checksum:
                    raise ValueError
                key, value = json.loads(body)
            except ValueError:
                self.discarded += 1
                continue
            self.results[key] = value

    def put(self, key: str, value: Any) -> None:
        """Adds a result and makes it durable. NoSpace where the disk is full, BadFile where it cannot be written."""
        body = json.dumps([key, value], allow_nan=False).encode()
        line = hashlib.sha256(body).hexdigest()[:16].encode() + b" " + body + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a newline first: a line that was torn by kill -9 must not swallow this one
            with self.path.open("ab") as file:
                file.write((b"\n" if file.tell() else b"") + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(
                    f"no space left on the disk for the cache {self.path}; free some, what was finished is kept"
                ) from None
            raise BadFile(
                f"cannot write the cache {self.path}: {error.strerror or error}; make its folder writable"
            ) from None
        self.results[key] = value
