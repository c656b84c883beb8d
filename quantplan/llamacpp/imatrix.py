"""llama-imatrix: the importance matrix of a model over a text, output.weight included."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantplan.abilities import check_positions, check_predicts, context_note
from quantplan.errors import BadFile, ModelMismatch, NoSpace, TextTooShort
from quantplan.execution import Execution
from quantplan.llamacpp import tools
from quantplan.progress import SILENT, Advance, Reporter, absolute
from quantplan.records.files import part_of, remove_leftovers
from quantplan.tensor import Model
from quantplan.text import special

TOOL = "llama-imatrix"
_SPARE_BYTES = 1 << 16  # a disk with less than that is full
_CHUNK = re.compile(r"\[(\d+)\]\s*[\d.]+,")
_TOTAL = re.compile(r"computing over (\d+) chunks")


@dataclass(frozen=True)
class ImatrixOptions:
    """``chunks`` 0: the whole text. ``process_output``: output.weight too, which the tool leaves out by itself.

    ``parse_special``: the text is a ``SpecialText``.
    """

    n_ctx: int = 512
    chunks: int = 0
    execution: Execution = Execution()
    process_output: bool = True
    legacy: bool = False
    parse_special: bool = False


def argv(model: Path, text: Path, out: Path, options: ImatrixOptions) -> list[str]:
    """The command line. Perplexity stays on: its numbers are the tool's only sign of progress."""
    words = [TOOL, "-m", str(model), "-f", str(text), "-o", str(out), "-c", str(options.n_ctx)]
    words += ["--output-format", "dat" if options.legacy else "gguf", "--output-frequency", "1000000"]
    words += ["--process-output"] if options.process_output else []
    words += ["--parse-special"] if options.parse_special else []
    words += ["--chunks", str(options.chunks)] if options.chunks else []
    threads, gpu_layers = options.execution.threads, options.execution.gpu_layers
    words += ["-t", str(threads), "-tb", str(threads)] if threads else []
    words += ["-ngl", str(gpu_layers)] if gpu_layers else []
    return words


class ChunkCounter:
    """Turns pieces of the tool's output into shares of the whole."""

    def __init__(self, advance: Advance) -> None:
        self._reach, self._rest, self._total = absolute(advance), "", 0

    def __call__(self, piece: str) -> None:
        self._rest += piece
        total = _TOTAL.search(self._rest)
        if total:
            self._total = int(total.group(1))
        chunks = _CHUNK.findall(self._rest)
        if chunks and self._total:
            self._reach(int(chunks[-1]) / self._total)
        self._rest = self._rest[-200:]


def make(
    model: Model,
    text: Path,
    out: Path,
    options: ImatrixOptions,
    *,
    report: Reporter = SILENT,
    check: Callable[[Path], None] = lambda _part: None,
) -> None:
    """Runs the tool; ``out`` appears only when ``check`` of the finished file raised no BadFile or ModelMismatch.

    Raises BadUsage for a model that predicts no text, ToolFailed, TextTooShort, NoSpace, BadFile, ModelMismatch.

    The text is named by its bare file name: the name becomes part of the imatrix and of every file made with it, and private
    paths are nobody's business.
    """
    check_predicts(model)
    check_positions(model, options.n_ctx)
    if note := context_note(model, options.n_ctx):
        report.warn(note)
    _check_place(out)
    remove_leftovers(out)
    part = part_of(out.absolute(), ".dat" if options.legacy else ".gguf")
    try:
        command = argv(model.path.resolve(), Path(text.name), part, options)
        with report.stage("imatrix") as advance:
            counter = ChunkCounter(advance)
            finished = tools.run(command, cwd=text.resolve().parent, report=report, on_text=counter, check=False)
        if finished.code != 0:
            _check_length(model, text, options)
            raise tools.failure(finished)
        if not part.is_file():
            raise tools.failure(finished, "ended well but wrote no imatrix")
        _checked(part, out, check)
        try:
            part.replace(out)
        except OSError as error:
            raise BadFile(f"cannot write {out}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _check_length(model: Model, text: Path, options: ImatrixOptions) -> None:
    """TextTooShort for fewer than two chunks, which the tool refuses; what it says of that is cut off at times."""
    from quantplan.llamacpp.engine import Engine
    from quantplan.llamacpp.loaded_model import EngineOptions

    n_ctx, words = options.n_ctx, text.read_bytes().decode("utf-8", "replace")
    with Engine(model, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        tokens = len(engine.tokenize(special(words) if options.parse_special else words))
    if tokens < 2 * n_ctx:
        raise TextTooShort(
            f"{text.name}: the text has {tokens} tokens, at least {2 * n_ctx} are needed for chunks of "
            f"{n_ctx}; give more text or a smaller --ctx"
        )


def _check_place(out: Path) -> None:
    """BadFile where no file can come to ``out``: the tool would find out when all its work is done."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"cannot write {out}: {error.strerror or error}; choose another place with --out") from None
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        reason = "it is a folder" if out.is_dir() else "its folder is not writable"
        raise BadFile(f"cannot write {out}: {reason}; choose another place with --out")


def _checked(part: Path, out: Path, check: Callable[[Path], None]) -> None:
    """On a full disk the tool ends well and leaves an empty or short file."""
    try:
        check(part)
    except (BadFile, ModelMismatch) as error:
        if shutil.disk_usage(part.parent).free < _SPARE_BYTES:
            raise NoSpace(
                f"no space left on the disk for {out}; free some or choose another place with --out"
            ) from None
        raise type(error)(str(error).replace(str(part), str(out))) from None
