"""From a checkpoint to a GGUF in 16 bits: the converter runs next to the file's place, the result is read back, then renamed."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from quantplan.abilities import check_language_model
from quantplan.build.preflight import check_space
from quantplan.convert.checkpoint import Checkpoint
from quantplan.convert.converter import SCRIPT, Converter
from quantplan.errors import BadFile, BadUsage, NotAsPlanned, ToolFailed
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.tools import Finished, command_line, run_program
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.codec import RecordFormat, register
from quantplan.records.files import part_of, remove_leftovers
from quantplan.tensor import Model

_BYTES = {"f32": 4}  # of a weight; all other types have two
_COUNT = re.compile(r"n_tensors = (\d+)")
_WHOLE = 0.995  # of the weights; duplicates of tied embeddings and buffers are less in most models
_TAIL_LINES = 6  # of the converter's log, in an error
_LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Conversion:
    """How a GGUF was made: ``file`` next to the record. ``source_digest``: of the checkpoint's files."""

    source: str
    source_digest: str
    architecture: str
    converter: str
    outtype: str
    file: str
    file_bytes: int
    tensors: int
    model_digest: str


CONVERSIONS = register(
    RecordFormat("quantplan-conversion", 1, Conversion, "record of a conversion", "delete it, and convert again")
)


def expected_bytes(checkpoint: Checkpoint, outtype: str) -> int:
    """About the size of the GGUF; its vocabulary takes less than the files of the tokenizer."""
    return checkpoint.elements * _BYTES.get(outtype, 2) + checkpoint.other_bytes


def converted_before(checkpoint: Checkpoint, outtype: str, folder: Path) -> Path | None:
    """The GGUF of the same checkpoint and type in the folder, if it is there and unchanged."""
    record = _record_path(checkpoint, folder)
    if not record.is_file():
        return None
    with suppress(BadFile):
        made = CONVERSIONS.read(record)
        path = folder / Path(made.file).name
        same = (made.source_digest, made.outtype) == (checkpoint.digest, outtype)
        if same and path.is_file() and read_model(path).digest == made.model_digest:
            return path
    return None


def convert(
    checkpoint: Checkpoint, converter: Converter, outtype: str, folder: Path, report: Reporter = SILENT
) -> Model:
    """The GGUF ``NAME-TYPE.gguf`` in the folder, with a record next to it. ``outtype``: auto, f16, bf16 or f32.

    Raises ToolFailed, NoSpace, and NotAsPlanned where what the converter wrote is not what it said. Takes the place of an
    older file of that name: see ``check_free``.
    """
    target = folder / f"{checkpoint.name}.gguf"
    check_space(target, expected_bytes(checkpoint, outtype), "--folder")
    remove_leftovers(target)
    part = part_of(target)
    try:
        finished = _run(checkpoint, converter, outtype, part, report)
        made = _read_back(part, finished, checkpoint, report)
        named = folder / f"{checkpoint.name}-{made.file_type}.gguf"
        part.replace(named)
    finally:
        part.unlink(missing_ok=True)
    model = read_model(named)
    origin = (str(checkpoint.folder), checkpoint.digest, checkpoint.architecture, converter.origin, outtype)
    result = (named.name, model.file_bytes, len(model.tensors), model.digest)
    CONVERSIONS.write(Conversion(*origin, *result), _record_path(checkpoint, folder))
    return model


def check_free(checkpoint: Checkpoint, outtype: str, folder: Path) -> None:
    """BadUsage where a file that no conversion made has a name that the GGUF may get."""
    made = None
    with suppress(BadFile):
        made = CONVERSIONS.read(_record_path(checkpoint, folder)).file
    for kind in ("BF16", "F16") if outtype == "auto" else (outtype.upper(),):
        path = folder / f"{checkpoint.name}-{kind}.gguf"
        if path.exists() and path.name != made:
            raise BadUsage(
                f"{path} is there already and was not made by a conversion; move it, or name another --folder"
            )


def command(checkpoint: Checkpoint, converter: Converter, outtype: str, out: Path) -> list[str]:
    """What runs the converter."""
    words = ["--outfile", str(out), "--outtype", outtype, "--model-name", checkpoint.name]
    return [converter.python, str(converter.script), str(checkpoint.folder), *words]


def _record_path(checkpoint: Checkpoint, folder: Path) -> Path:
    return folder / f"{checkpoint.name}.conversion.json"


def _run(checkpoint: Checkpoint, converter: Converter, outtype: str, part: Path, report: Reporter) -> Finished:
    argv = command(checkpoint, converter, outtype, part)
    shown = command_line(argv)
    report.say(f"+ {shown}")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }  # all that it needs is in the folder
    with report.stage("convert", expected_bytes(checkpoint, outtype), "B") as advance, _watched(part, advance):
        finished = run_program(argv, shown, dict(environment))
    if finished.code != 0 or not part.is_file():
        raise _failure(finished)
    return finished


def _failure(finished: Finished) -> ToolFailed:
    """A script in Python says the reason last; what llama.cpp does not know yet a newer checkout may."""
    said = [line for line in finished.log.splitlines() if line.strip()][-_TAIL_LINES:]
    reason = (
        re.sub(r"^(?:ERROR:[\w.-]+:)+", "", said[-1].strip()) if said and finished.code else "it ended without a file"
    )
    shown = "\n  ".join(said)
    return ToolFailed(
        f"{SCRIPT} failed: {reason}; is the model newer than this llama.cpp? name a newer checkout with --converter\n"
        f"  command: {finished.command}\n  it said:\n  {shown}"
    )


@contextmanager
def _watched(path: Path, advance: Advance) -> Iterator[None]:
    """Tells how a file grows while the block runs."""
    done = threading.Event()

    def watch() -> None:
        seen = 0
        while not done.wait(_LOOK_EVERY):
            with suppress(OSError):
                size = path.stat().st_size
                advance(size - seen)
                seen = size

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _read_back(part: Path, finished: Finished, checkpoint: Checkpoint, report: Reporter) -> Model:
    """The file as it is on disk, against what the converter said and what the checkpoint has."""
    try:
        model = read_model(part)
    except BadFile as error:
        raise NotAsPlanned(f"the converter wrote a file that cannot be read: {error}") from None
    check_language_model(model)
    said = _COUNT.findall(finished.log)
    if said and int(said[-1]) != len(model.tensors):
        raise NotAsPlanned(f"the converter said that it wrote {said[-1]} tensors, the file has {len(model.tensors)}")
    if model.elements < _WHOLE * checkpoint.elements:
        report.warn(
            f"{model.elements / checkpoint.elements:.1%} of the checkpoint's weights are in the GGUF: parts for images or sound, "
            "and what llama.cpp does not run, are left out by the converter"
        )
    if checkpoint.blocks is not None and model.main_blocks != checkpoint.blocks:
        report.warn(f"config.json says {checkpoint.blocks} layers, the GGUF runs {model.main_blocks}")
    return model
