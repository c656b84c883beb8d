"""A shell script cut into its commands: quotes, comments, variables, redirections and line ends as a shell takes them.

Scripts for bash, cmd.exe (lines continued by ``^``) and PowerShell (by a back-tick) are read alike. Patterns often stand there
without quotes, so brackets inside a word belong to it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from quantplan.errors import BadFile

_CONTINUED = re.compile(r"[\\^`][ \t]*\n")
_BATCH = re.compile(r"^[ \t]*(?:@echo\b|rem\b|::|pause\s*$|set\s+\w+=)|\^[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_REMARK = re.compile(r"^[ \t]*@?(?:rem\b|::).*$", re.MULTILINE | re.IGNORECASE)
_ASSIGNED = re.compile(r"(\w+)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)(?:\[[@*]\]|:?-([^}]*))?\}|\$(\w+)|%(\w+)%")  # the second is a default
_BRACKETS = re.compile(r"\([^()\s]*\)(?=[^\s;&|()])")  # of a pattern at the start of a word
_PLAIN = re.compile(r"\$\{[^}\n]*\}|[^\s'\"\\;&|<>()$]+|\$")
_REDIRECTION = re.compile(r"\d*(?:&>>?|>>?&?|<<<|<&?)(\d+(?!\S))?")
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_OPTIONS = re.compile(r"(?:^|\s)--\w")
# what a backslash outside of quotes stands before; elsewhere it is a path's or a pattern's
_ESCAPED = "\\\"'$&|;<>()*?[]{}#`! \t"


@dataclass
class Shell:
    """``variables``: what the text has set so far, as it is written; ``turns``: how often its loops over words run; ``files``:
    texts that it has written into files, by name.
    """

    variables: dict[str, str] = field(default_factory=dict)
    turns: int = 1
    files: dict[str, str] = field(default_factory=dict)

    def commands(self, text: str) -> list[list[str]]:
        """The words of each command in order, assignments left out. BadFile for a quote or bracket without an end."""
        batch = bool(_BATCH.search(text))
        script = _CONTINUED.sub(" ", _REMARK.sub("", text) if batch else text)
        lexer = _Lexer(script, self.variables, '"' if batch else "\"'", self.files)
        commands = (self._without_assignments(words) for words in lexer.commands())
        return [words for words in commands if words]

    def _without_assignments(self, words: list[str]) -> list[str]:
        if words[0] == "for" and words[2:3] == ["in"] and len(words) > 3:
            self.variables[words[1]] = words[3]
            self.turns *= len(words) - 3
            return []
        first = 1 if words[0].lower() in ("export", "set", "declare", "local") else 0
        while first < len(words) and (assigned := _ASSIGNED.fullmatch(words[first])):
            if "$(" not in assigned[2]:  # what another command prints is not known
                self.variables[assigned[1]] = assigned[2]
            first += 1
        return words[first:]


class _Lexer:
    def __init__(self, text: str, variables: dict[str, str], quotes: str, files: dict[str, str]) -> None:
        self.text, self.variables, self.quotes, self.files, self.at = text, variables, quotes, files, 0
        self.document: str | None = None  # the here-document of the command, and the file that its output goes to
        self.target = ""

    def commands(self) -> Iterator[list[str]]:
        """Words are expanded when they are met, with the variables as they are then."""
        words: list[str] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            if character.isspace() and character != "\n":
                self.at += 1
            elif character == "#":
                self._skip_line()
            elif self._skipped_redirection():
                continue
            elif character in "\n;&|()" and not _BRACKETS.match(self.text, self.at):
                self.at += 1
                self._end(words)
                if words:
                    yield words
                words = []
            else:
                words += self._words()
        self._end(words)
        if words:
            yield words

    def _end(self, words: list[str]) -> None:
        """Keeps what a command writes into a file: ``cat > FILE << END``, ``tee FILE << END``."""
        target = self.target or (words[-1] if words[:1] == ["tee"] else "")
        if self.document is not None and target:
            self.files[target] = self.document
        self.document, self.target = None, ""

    def _skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _skipped_redirection(self) -> bool:
        """Whether a redirection stood here: passed over with its file, or with the lines of its here-document."""
        if here := _HERE.match(self.text, self.at):
            end = re.compile(rf"^\s*{here[2]}\s*$", re.MULTILINE).search(self.text, here.end())
            rest, self.at = self.text[here.end() :].partition("\n")[0], end.end() if end else len(self.text)
            inside = self.text[here.end() + len(rest) : end.start() if end else self.at]
            self.document = inside if here[1] else self._expanded(inside)
            self.text = (
                self.text[: self.at] + rest + self.text[self.at :]
            )  # what follows on the first line still counts
            return True
        redirected = _REDIRECTION.match(self.text, self.at)
        if not redirected:
            return False
        self.at = redirected.end()
        if not redirected[1]:
            while self.text[self.at : self.at + 1] in (" ", "\t"):
                self.at += 1
            words = self._words()
            self.target = "".join(words) if redirected[0].startswith((">", "1>")) else self.target
        return True

    def _words(self) -> list[str]:
        """The word here; a variable that holds options is several."""
        start, pieces = self.at, list[str]()
        while self.at < len(self.text) and (piece := self._piece(bool(pieces))) is not None:
            pieces.append(piece)
        word, written = "".join(pieces), self.text[start : self.at].strip('"')
        options = word.strip()[1:-1] if word.startswith("(") else word  # an array's or a text's
        if not _VARIABLE.fullmatch(written) or not _OPTIONS.search(options):
            return [word]
        inner = _Lexer(" ".join(options.split()), {}, self.quotes, {})
        return [each for words in inner.commands() for each in words]

    def _piece(self, inside: bool) -> str | None:
        """The next part of a word; None at its end."""
        character = self.text[self.at]
        if character in self.quotes:
            return self._double_quoted() if character == '"' else self._until("'", self.at + 1)
        if character == "\\":
            self.at += 2
            following = self.text[self.at - 1 : self.at]
            return following if following in _ESCAPED else f"\\{following}"
        if self.text.startswith("$(", self.at):
            return f"${self._bracketed(self.at + 1)}"
        if character == "(" and (inside or _BRACKETS.match(self.text, self.at)):
            return self._bracketed(self.at)
        plain = _PLAIN.match(self.text, self.at)
        if not plain:
            literal = character == "'" and character not in self.quotes  # in a batch file it is a letter
            self.at += literal
            return character if literal else None
        self.at = plain.end()
        if plain[0] == "$" and (name := re.compile(r"\w+").match(self.text, self.at)):
            self.at = name.end()
            return self._expanded(f"${name[0]}")
        return self._expanded(plain[0])

    def _double_quoted(self) -> str:
        start = self.at + 1
        quoted = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL).match(self.text, start)
        if not quoted:
            raise self._endless('"')
        self.at = quoted.end()
        inside = quoted[0][:-1]
        pieces = re.split(r"\\([$\"\\`])", inside)  # escaped ones stand at odd places
        return "".join(piece if place % 2 else self._expanded(piece) for place, piece in enumerate(pieces))

    def _until(self, end: str, start: int) -> str:
        place = self.text.find(end, start)
        if place < 0:
            raise self._endless(end)
        self.at = place + 1
        return self.text[start:place]

    def _bracketed(self, start: int) -> str:
        """From the bracket at ``start`` to the one that closes it."""
        depth = 0
        for place in range(start, len(self.text)):
            depth += {"(": 1, ")": -1}.get(self.text[place], 0)
            if depth == 0:
                self.at = place + 1
                return self.text[start : self.at]
        raise self._endless("(")

    def _expanded(self, text: str) -> str:
        """With the variables that are set, or their defaults; others stay as they are written."""

        def value(match: re.Match[str]) -> str:
            name, default = match[1] or match[3] or match[4], match[2]
            return self.variables.get(name, match[0] if default is None else default)

        return _VARIABLE.sub(value, text)

    def _endless(self, what: str) -> BadFile:
        line = self.text.count("\n", 0, self.at) + 1
        return BadFile(f"the text cannot be split into commands: the {what} in line {line} has no end")
