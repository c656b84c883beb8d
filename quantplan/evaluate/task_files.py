"""Data files of multiple-choice tasks in llama-perplexity's three formats, and the readable form of the binary one.

=========  =================  ==========================================================================================
ending     mode               layout
=========  =================  ==========================================================================================
.txt       hellaswag          6 lines a task: context, number of the right ending (0 to 3), four endings
.csv       winogrande         a line a task: index,sentence with a _,choice 1,choice 2,number of the right one (1 or 2)
.bin       multiple-choice    binary, see ``encode``
.jsonl     multiple-choice    a line a task: {"question": "...", "answers": ["...", ...], "correct": 0}
=========  =================  ==========================================================================================

Source: tools/perplexity/perplexity.cpp (``hellaswag_score``, ``load_winogrande_from_csv``, ``multiple_choice_score``).
What the tool would leave out in silence or stop at is an error here, with the place.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile, BadUsage
from quantplan.records.json_text import parse_json
from quantplan.task_score import HELLASWAG, MULTIPLE_CHOICE, WINOGRANDE

_MOST_ANSWERS = 100  # the tool refuses more
_ENDINGS = 4  # of a HellaSwag task


@dataclass(frozen=True)
class Question:
    """``answers`` may follow ``question``; for WinoGrande they are put into its gap. ``correct``: index of the right one."""

    question: str
    answers: tuple[str, ...]
    correct: int
    mode: str = MULTIPLE_CHOICE

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts whose likelihoods the tool compares."""
        if self.mode == WINOGRANDE:
            before, after = self.question.split("_", 1)
            return tuple(before + answer + after for answer in self.answers)
        return tuple(f"{self.question} {answer}" for answer in self.answers)


@dataclass(frozen=True)
class TaskFile:
    """A data file as the tool will get it. ``questions``: those that the tool loads."""

    path: Path
    mode: str
    questions: tuple[Question, ...]
    data: bytes

    @property
    def digest(self) -> str:
        """Of what the tool reads: a .jsonl and the .bin made of it are the same data."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def most_answers(self) -> int:
        return max(len(question.answers) for question in self.questions)


def read_task_file(path: Path | str) -> TaskFile:
    """The tasks of a data file, whose ending names its format; BadUsage for another, BadFile with the place of a fault."""
    path = Path(path)
    if path.suffix not in _READERS:
        raise BadUsage(
            f"{path}: the ending says which format: .txt (HellaSwag, 6 lines a task), .csv (WinoGrande), .bin or .jsonl "
            "(multiple choice); see docs/formats.md"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot read the tasks {path}: {error.strerror or error}") from None
    mode, reader = _READERS[path.suffix]
    questions = reader(path, raw)
    if not questions:
        raise BadFile(f"{path}: no tasks in it; see docs/formats.md for where data files come from")
    return TaskFile(path, mode, questions, encode(questions) if path.suffix == ".jsonl" else raw)


def _lines(path: Path, raw: bytes) -> list[str]:
    """The lines as the tool sees them: it drops one newline at the end of the file."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: not UTF-8 text (byte {error.start}); give the file in llama-perplexity's format"
        ) from None
    if "\r" in text:
        raise BadFile(f"{path}: it has Windows line ends, which the tool takes for text; convert them to \\n")
    text = text.removesuffix("\n")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _hellaswag(path: Path, raw: bytes) -> tuple[Question, ...]:
    lines, size = _lines(path, raw), 2 + _ENDINGS
    if len(lines) % size:
        raise BadFile(f"{path}: {len(lines)} lines, no multiple of {size}: a task is context, label and four endings")
    questions = []
    for start in range(0, len(lines), size):
        context, label, *endings = lines[start : start + size]
        if label.strip() not in ("0", "1", "2", "3"):
            raise BadFile(f"{path}, line {start + 2}: the number of the right ending (0 to 3) is needed, not {label!r}")
        questions.append(Question(context, tuple(endings), int(label), HELLASWAG))
    return tuple(questions)


def _winogrande(path: Path, raw: bytes) -> tuple[Question, ...]:
    """Without the last line of the file: llama-perplexity drops the newline after it, and then the line that has none."""
    lines = _lines(path, raw)
    questions = [_winogrande_line(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]
    return tuple(questions if raw.endswith(b"\n\n") else questions[:-1])


def _winogrande_line(place: str, line: str) -> Question:
    """Fields end at the first four commas outside of quotation marks; the rest is the answer."""
    commas: list[int] = []
    quoted = False
    for position, letter in enumerate(line):
        quoted ^= letter == '"'
        if letter == "," and not quoted and len(commas) < 4:
            commas.append(position)
    if len(commas) != 4:
        raise BadFile(f"{place}: five fields are needed (index,sentence,choice 1,choice 2,answer), not {line!r}")
    edges = [-1, *commas, len(line)]
    _, sentence, first, second, answer = (line[a + 1 : b] for a, b in zip(edges, edges[1:], strict=False))
    sentence = sentence[1:-1] if sentence.startswith('"') else sentence
    if "_" not in sentence:
        raise BadFile(
            f"{place}: no gap (_) in the sentence {sentence!r}; is this the line with the names of the fields?"
        )
    if answer.strip() not in ("1", "2"):
        raise BadFile(f"{place}: the right choice is 1 or 2, not {answer!r}")
    return Question(sentence, (first, second), int(answer) - 1, WINOGRANDE)


def _jsonl(path: Path, raw: bytes) -> tuple[Question, ...]:
    try:
        lines = raw.decode("utf-8-sig").split("\n")  # a line of JSON may hold other line ends, of Unicode
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text (byte {error.start})") from None
    return tuple(_jsonl_line(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _jsonl_line(place: str, line: str) -> Question:
    try:
        entry = parse_json(line)
        question = Question(entry["question"], tuple(entry["answers"]), entry["correct"])
        texts = (question.question, *question.answers)
        sound = all(isinstance(text, str) and text for text in texts) and type(question.correct) is int
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise BadFile(
            f'{place}: {{"question": "...", "answers": ["...", "..."], "correct": 0}} is needed, no text empty'
        )
    _check(place, question)
    return question


def _check(place: str, question: Question) -> None:
    if not 2 <= len(question.answers) <= _MOST_ANSWERS or not 0 <= question.correct < len(question.answers):
        raise BadFile(f"{place}: 2 to {_MOST_ANSWERS} answers are needed, and the number of the right one from 0 on")


# --- the binary form


def encode(questions: Sequence[Question]) -> bytes:
    """The binary format of ``--multiple-choice``; integers are 32 bits, little-endian.

    Number of tasks; position of each from the file's start; the tasks: question, answers with one right label, answers
    with several (always none here: the tool does not use them). A string is its length in bytes and its UTF-8 bytes;
    answers are their number, the strings, and a label 0 or 1 for each.
    """
    tasks = [_string(question.question) + _answers(question) + struct.pack("<I", 0) for question in questions]
    positions, position = [], 4 + 4 * len(tasks)
    for task in tasks:
        positions.append(position)
        position += len(task)
    return struct.pack(f"<{1 + len(tasks)}I", len(tasks), *positions) + b"".join(tasks)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<I", len(raw)) + raw


def _answers(question: Question) -> bytes:
    labels = [int(index == question.correct) for index in range(len(question.answers))]
    strings = b"".join(_string(answer) for answer in question.answers)
    return struct.pack("<I", len(labels)) + strings + struct.pack(f"<{len(labels)}i", *labels)


def _binary(path: Path, raw: bytes) -> tuple[Question, ...]:
    """What ``encode`` writes. Tasks lie one after another, and the table says where, in whatever order."""
    reader = _Reader(path, raw)
    positions = [reader.number() for _ in range(reader.count(4))]
    starts, questions = [], []
    for index in range(len(positions)):
        starts.append(reader.position)
        questions.append(reader.question(f"{path}, task {index}"))
    if sorted(positions) != starts:
        raise reader.damaged("its table of positions is not where the tasks are")
    return tuple(questions)


class _Reader:
    def __init__(self, path: Path, raw: bytes) -> None:
        self.path, self.raw, self.position = path, raw, 0

    def damaged(self, what: str) -> BadFile:
        return BadFile(f"{self.path}: not multiple-choice data of llama-perplexity: {what}; is the download complete?")

    def take(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self.raw):
            raise self.damaged(f"it ends at byte {len(self.raw)}, inside what starts at {start}")
        return self.raw[start : self.position]

    def number(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def count(self, least_bytes: int) -> int:
        """A number of entries that take at least ``least_bytes`` each."""
        count = self.number()
        if count * least_bytes > len(self.raw) - self.position:
            raise self.damaged(f"it announces {count} entries at byte {self.position - 4}")
        return count

    def string(self) -> str:
        raw = self.take(self.count(1))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"no text before byte {self.position}") from None

    def answers(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        count = self.count(8)
        strings = tuple(self.string() for _ in range(count))
        return strings, struct.unpack(f"<{count}i", self.take(4 * count))

    def question(self, place: str) -> Question:
        text = self.string()
        (answers, labels), _several = self.answers(), self.answers()
        if not text or not all(answers) or labels.count(1) != 1:
            raise BadFile(f"{place}: a question, answers and one that is right are needed; none may be empty")
        question = Question(text, answers, labels.index(1))
        _check(place, question)
        return question


_READERS: dict[str, tuple[str, Callable[[Path, bytes], tuple[Question, ...]]]] = {
    ".txt": (HELLASWAG, _hellaswag),
    ".csv": (WINOGRANDE, _winogrande),
    ".bin": (MULTIPLE_CHOICE, _binary),
    ".jsonl": (MULTIPLE_CHOICE, _jsonl),
}
