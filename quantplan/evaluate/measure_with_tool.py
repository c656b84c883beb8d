"""Measuring with llama-perplexity instead of in this process: what others can run and check for themselves.

Its base file keeps 16 bits of a log-probability and clips at 16 below the largest, so KLD has a floor of about 5e-4 nats (an
F16 file against itself on the models of the tool's authors); figures do not compare with those taken in-process.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantplan.budget import human_bytes
from quantplan.cache_types import kv_name
from quantplan.devices.memory_formulas import ServeSettings, check_kv
from quantplan.errors import BadUsage, NoSpace
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.same_tokens import check_same_tokens, measuring_notes, tokenize
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import perplexity
from quantplan.llamacpp.perplexity import Parsed, ToolOptions
from quantplan.llamacpp.tools import build
from quantplan.measurement import Conditions, Measurement
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.journal import text_digest
from quantplan.tensor import Model
from quantplan.text import Domains, SpecialText, Text, undivided

ENGINE = "llama-perplexity"
_JOINED = "llama-perplexity read the texts joined; the figures of each need --engine in-process"


def measure_with_tool(
    base_path: Path,
    files: Sequence[Path],
    text: Text,
    options: MeasureOptions | None = None,
    advance: Advance | None = None,
    report: Reporter = SILENT,
) -> list[Measurement]:
    """The measurements of ``files`` as llama-perplexity prints them, without figures per chunk; domains are joined.

    ``advance`` gets shares that add up to 1. The base file goes to a temporary folder (TMPDIR). Raises
    BadFile, ModelMismatch, NoSpace, TextTooShort, ToolFailed, ToolMissing, and BadUsage for a text whose special tokens are
    parsed: the tool parses none.
    """
    notes = (_JOINED,) if isinstance(text, Domains) else ()
    text = undivided(text)
    if isinstance(text, SpecialText):
        raise BadUsage(
            "llama-perplexity parses no special tokens: it would read <|im_start|> and the like as plain words. Measure chats, "
            "and texts with --parse-special, in-process: leave --engine llama-perplexity out"
        )
    options, advance = options or MeasureOptions(), advance or (lambda _share: None)
    base, models = read_model(base_path), [read_model(file) for file in files]
    expected = tokenize(base, text, options.n_ctx, options.chunks)
    check_same_tokens(base, expected, models, text, options.chunks)
    chunks, vocabulary = len(expected.chunks), expected.vocabulary
    for model in models:
        check_kv(model, ServeSettings(options.n_ctx, options.cache_types))
    tool = ToolOptions(options.n_ctx, options.execution, options.cache_types)
    share = 1 / (chunks * (len(models) + 1))

    def step(chunks: float) -> None:
        advance(chunks * share)

    with tempfile.TemporaryDirectory(prefix="quantplan-") as name:
        folder = Path(name)
        check_room(folder, perplexity.base_file_bytes(vocabulary, options.n_ctx, chunks))
        # the tool drops one newline at the end of a text: one more lets it see the text that was given
        (folder / "text.txt").write_text(text + "\n", encoding="utf-8", newline="")
        base_file = folder / "base.kld"
        perplexity.write_base(
            base.path, folder / "text.txt", base_file, chunks, vocabulary, tool, step=step, report=report
        )
        parsed = [
            perplexity.divergence(model.path, base_file, vocabulary, tool, step=step, report=report) for model in models
        ]
    conditions = _conditions(base, text, options)
    return [
        _measurement(file, model, output, chunks, conditions, notes + measuring_notes(base, model, options.n_ctx))
        for file, model, output in zip(files, models, parsed, strict=True)
    ]


def check_room(folder: Path, needed: int) -> None:
    """NoSpace unless the base file fits on the folder's disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(
            f"llama-perplexity's base file needs {human_bytes(needed)}, {folder} has {human_bytes(free)}; "
            "set TMPDIR to another disk, or take fewer --chunks"
        )


def _conditions(base: Model, text: Text, options: MeasureOptions) -> dict[str, object]:
    return {
        "text_digest": text_digest(text),
        "n_ctx": options.n_ctx,
        "base_digest": base.digest,
        "engine": ENGINE,
        "backend": options.execution.backend,
        "llama_cpp": build(),
        "cache_types": kv_name(options.cache_types),
    }


def _measurement(
    file: Path, model: Model, parsed: Parsed, chunks: int, conditions: dict[str, object], notes: tuple[str, ...]
) -> Measurement:
    if not parsed.complete:
        notes += (
            f"llama-perplexity ended {perplexity.RUNS} times without its summary: figures of its line for "
            f"chunk {parsed.chunks} of {chunks}; percentiles and mean change of probability are unknown",
        )
    return Measurement(
        **vars(parsed.figures),
        file=str(file),
        model_digest=model.digest,
        file_bytes=model.file_bytes,
        bpw=model.bits_per_weight(),
        bytes_per_token=model.bytes_per_token(),
        conditions=Conditions(**conditions, chunks=chunks if parsed.complete else parsed.chunks),  # type: ignore[arg-type]
        notes=notes,
    )
