"""Every error that a user can cause or meet, in one tree; each class owns its exit code.

    QuantplanError            1
    |- BadUsage               2   options that do not make sense together
    |- BadFile                3   unreadable, truncated, of a foreign format or version
    |- ModelMismatch          4   two files that belong to different models
    |- NothingSelected        5   a selector, type or tensor name that matches nothing
    |- BudgetImpossible       6   no file of that size exists under the constraints
    |- ToolMissing            7   a llama.cpp tool or library is not installed
    |- ToolFailed             8   a llama.cpp tool ended badly or said something unreadable
    |- NotAsPlanned           9   a built file differs from its plan
    |- TextTooShort          10   not enough text for the chunks asked for
    |- NoSpace               11   the disk cannot hold what is to be written
    |- ConditionsDiffer      12   measurements that were not taken under the same conditions
    |- WorkersLost           13   workers or RPC servers went away; what was finished is kept
    `- InUse                 14   another process works in the folder

Messages say what happened, where, and what to do next. Only ``cli.main.main`` catches them.
Ctrl-C ends with 130, as shells expect.
"""

import re

_ODD = re.compile(r"[^\n\t -~\udc80-\udcff]")
_WORD, _WORD_SHOWN, _LONGEST = 400, 60, 3000  # letters


class QuantplanError(Exception):
    """Root of all errors that are answered with one sentence instead of a traceback.

    What the sentence quotes of damaged files is made legible: unprintable letters escaped, endless words and texts cut.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(self._legible(message))

    @staticmethod
    def _legible(message: str) -> str:
        text = re.sub(rf"\S{{{_WORD},}}", lambda match: match[0][:_WORD_SHOWN] + "...", printable(message))
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"


def printable(text: str) -> str:
    """The text with escapes in place of letters that no terminal shows; line ends, tabs and the bytes of names that are not
    UTF-8 (surrogates, see ``os.fsdecode``) are left as they are.
    """
    if text.isprintable():
        return text
    return _ODD.sub(lambda match: match[0] if match[0].isprintable() else repr(match[0])[1:-1], text)


class BadUsage(QuantplanError):
    exit_code = 2


class ImatrixNeeded(BadUsage):
    """Types that need imatrix data which is not there."""


class BadFile(QuantplanError):
    exit_code = 3


class ModelMismatch(QuantplanError):
    exit_code = 4


class NothingSelected(QuantplanError):
    exit_code = 5


class BudgetImpossible(QuantplanError):
    """``smallest`` is the size in bytes of the smallest file that the constraints allow."""

    exit_code = 6

    def __init__(self, message: str, smallest: int | None = None) -> None:
        super().__init__(message)
        self.smallest = smallest


class ToolMissing(QuantplanError):
    exit_code = 7


class ToolFailed(QuantplanError):
    """The message holds a command to be pasted, of any length."""

    exit_code = 8

    @staticmethod
    def _legible(message: str) -> str:
        return printable(message)


class NotAsPlanned(QuantplanError):
    exit_code = 9


class TextTooShort(QuantplanError):
    exit_code = 10


class NoSpace(QuantplanError):
    exit_code = 11


class ConditionsDiffer(QuantplanError):
    exit_code = 12


class WorkersLost(QuantplanError):
    exit_code = 13


class InUse(QuantplanError):
    exit_code = 14
