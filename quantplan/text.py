"""Texts as a model reads them: plain, where only what the tokenizer adds is special, or with special tokens that are parsed."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class SpecialText:
    """A text whose special tokens (``<|im_start|>`` ...) are parsed, as llama-server and llama-imatrix --parse-special do it.

    ``pieces``: what it may be cut into: conversations as the model's chat template writes them, or lines. ``written``: of each
    piece what people wrote, without what the template adds; empty where that is the piece itself. ``bos``: the text of a BOS
    token that the tokenizer adds by itself, so that the text must not begin with it.
    """

    pieces: tuple[str, ...]
    written: tuple[str, ...] = ()
    bos: str = ""

    @property
    def content(self) -> str:
        """The whole text, as it is tokenized."""
        return "".join(self.pieces).removeprefix(self.bos)

    def only(self, indices: Sequence[int]) -> "SpecialText":
        """The text of some of its pieces."""

        def chosen(parts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(parts[index] for index in indices) if parts else ()

        return SpecialText(chosen(self.pieces), chosen(self.written), self.bos)

    def line(self, offset: int) -> int:
        """The piece, from 1, that the character at ``offset`` of ``content`` is in: of a file its line."""
        ends = list(accumulate(map(len, self.pieces)))
        cut_off = ends[-1] - len(self.content)
        return min(bisect_right(ends, offset + cut_off), len(ends) - 1) + 1


OneText = str | SpecialText


@dataclass(frozen=True)
class Domain:
    """A text of one kind (chat, code, a language ...), and the name that tables show it under."""

    name: str
    text: OneText


@dataclass(frozen=True)
class Domains:
    """Texts of several kinds, at least two, each with another name. Each is cut into chunks by itself."""

    parts: tuple[Domain, ...]


Text = OneText | Domains


def undivided(text: Text) -> OneText:
    """Domains joined, for what looks at no single one."""
    return joined([part.text for part in text.parts]) if isinstance(text, Domains) else text


def content(text: Text) -> str:
    """The whole text as it is tokenized."""
    text = undivided(text)
    return text.content if isinstance(text, SpecialText) else text


def written(text: Text) -> str:
    """What people wrote of a text; what a chat template says in every conversation is not in it."""
    text = undivided(text)
    if isinstance(text, SpecialText) and text.written:
        return "\n".join(text.written)
    return content(text)


def special(text: str, bos: str = "") -> SpecialText:
    """A plain text whose special tokens are to be parsed."""
    return SpecialText(tuple(text.splitlines(keepends=True)), bos=bos)


def joined(texts: Iterable[OneText]) -> OneText:
    """The texts one after the other, each but the last with a newline more. Special tokens are parsed in all, or in none."""
    parts = list(texts)
    if len(parts) == 1:
        return parts[0]
    plain = [part for part in parts if isinstance(part, str)]
    if len(plain) == len(parts):
        return "\n".join(plain)
    bos = next(part.bos for part in parts if isinstance(part, SpecialText))
    pieces: list[str] = []
    written: list[str] = []
    for part in parts:
        here = part if isinstance(part, SpecialText) else special(part)
        pieces += [("\n" if not at and pieces else "") + piece for at, piece in enumerate(here.pieces)]
        written += here.written or here.pieces
    return SpecialText(tuple(pieces), tuple(written), bos)
