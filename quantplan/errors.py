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
    `- WorkersLost           13   workers or RPC servers went away; what was finished is kept

Messages say what happened, where, and what to do next. Only ``cli.main.main`` catches them.
Ctrl-C ends with 130, as shells expect.
"""


class QuantplanError(Exception):
    """Root of all errors that are answered with one sentence instead of a traceback."""

    exit_code = 1


class BadUsage(QuantplanError):
    exit_code = 2


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
    exit_code = 8


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
