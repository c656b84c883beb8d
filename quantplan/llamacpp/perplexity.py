"""llama-perplexity: the base's log-probabilities to a file, then a file's KL divergence against them.

The tool sometimes ends with exit code 0 and without the end of its output, because its log thread is cut
off. So a run counts only when every line of the summary is there; after several runs without one, what the
last whole per-chunk line says is taken, and said to be taken.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantplan.cache_types import F16_CACHE, CacheTypes
from quantplan.errors import BadFile, ModelMismatch
from quantplan.execution import Execution
from quantplan.llamacpp.tools import Finished, failure, run
from quantplan.measurement import PERCENTILES, Estimate, Figures
from quantplan.progress import SILENT, Advance, Reporter

RUNS = 5  # where it was seen, one run in three lost its summary: five in a row are one in 240
_EVEN = 1e-4  # of ln PPL: nothing that was trained, and no random weights, come so near to the vocabulary's size
_NUMBER = r"(-?(?:\d+\.\d+|nan|inf))"
_PAIR = rf"\s*{_NUMBER} ±\s*{_NUMBER}"
_CHUNK = re.compile(rf"^\s*(\d+){_PAIR}{_PAIR}{_PAIR}{_PAIR} %{_PAIR} %[ \t]*\r?\n", re.MULTILINE)
_COUNTED = re.compile(r"\[\d+\]\d+\.\d+,|^\s*\d+\s.*%[ \t]*\r?$", re.MULTILINE)  # chunks done, of either kind of run


@dataclass(frozen=True)
class ToolOptions:
    """``cache_types``: of the compared model's KV cache; the base model's is F16."""

    n_ctx: int
    execution: Execution = Execution()
    cache_types: CacheTypes = F16_CACHE


@dataclass(frozen=True)
class Parsed:
    """``chunks``: those that the figures cover; ``complete``: taken from the summary, which covers all of
    them.
    """

    figures: Figures
    chunks: int
    complete: bool


def base_argv(model: Path, text: Path, base_file: Path, chunks: int, options: ToolOptions) -> list[str]:
    """The run that writes the base's log-probabilities of the first ``chunks`` chunks of the text."""
    words = [
        "llama-perplexity",
        "-m",
        model,
        "-f",
        text,
        "--chunks",
        chunks,
        "--kl-divergence-base",
        base_file,
    ]
    return [str(word) for word in words] + _common(options)


def divergence_argv(model: Path, base_file: Path, options: ToolOptions) -> list[str]:
    """The run that compares a model with the base file, which holds the tokens too."""
    words = ["llama-perplexity", "-m", model, "--kl-divergence", "--kl-divergence-base", base_file]
    types = zip(("-ctk", "-ctv"), options.cache_types, strict=True) if options.cache_types != F16_CACHE else ()
    words += [word for option, quant in types for word in (option, quant.name.lower())]
    return [str(word) for word in words] + _common(options)


def _common(options: ToolOptions) -> list[str]:
    threads, gpu_layers = options.execution.threads, options.execution.gpu_layers
    return ["-c", str(options.n_ctx), "-ngl", str(gpu_layers)] + (["-t", str(threads)] if threads else [])


def base_file_bytes(vocabulary: int, n_ctx: int, chunks: int) -> int:
    """Exact size of the base file: header, tokens, and a scale, a minimum and 16 bits a token for each
    scored position.
    """
    row = 2 * (2 * ((vocabulary + 1) // 2) + 4)
    return 20 + 4 * chunks * n_ctx + chunks * (n_ctx - n_ctx // 2 - 1) * row


def write_base(
    model: Path,
    text: Path,
    base_file: Path,
    chunks: int,
    vocabulary: int,
    options: ToolOptions,
    *,
    step: Advance | None = None,
    report: Reporter = SILENT,
) -> None:
    """Runs the base model; ToolFailed unless the file has exactly the size that all chunks need."""
    finished = run(base_argv(model, text, base_file, chunks, options), report=report, on_text=_counter(step))
    size = base_file.stat().st_size if base_file.is_file() else 0
    expected = base_file_bytes(vocabulary, options.n_ctx, chunks)
    if size != expected:
        raise failure(finished, f"wrote a base file of {size:,} bytes where {expected:,} are needed")


def divergence(
    model: Path,
    base_file: Path,
    vocabulary: int,
    options: ToolOptions,
    *,
    step: Advance | None = None,
    report: Reporter = SILENT,
) -> Parsed:
    """The model's figures, from up to RUNS runs until one has its summary; else of the run that got furthest.

    Raises ModelMismatch where the vocabularies differ in size, BadFile for a model (or a base) that gives all tokens the same
    logit, ToolFailed where no run says anything.
    """
    best: Parsed | None = None
    for _ in range(RUNS):
        finished = run(divergence_argv(model, base_file, options), report=report, on_text=_counter(step))
        if "inconsistent vocabulary" in finished.log:
            raise ModelMismatch(f"{model}: llama-perplexity says that its vocabulary is not that of the base model")
        parsed = parse(finished)
        if parsed:
            _check_uneven(model, parsed.figures, vocabulary)
        if parsed and parsed.complete:
            return parsed
        best = max(filter(None, (best, parsed)), key=lambda each: each.chunks, default=None)
        step = None  # another run makes no progress that was not counted
    if best is None:
        raise failure(finished, f"ended {RUNS} times without a single result")
    return best


def _check_uneven(model: Path, figures: Figures, vocabulary: int) -> None:
    """A softmax of equal logits has the size of the vocabulary as its perplexity."""
    for ppl, what in ((figures.ppl, "the model"), (figures.base_ppl, "the base model")):
        if ppl is not None and ppl.value > 0 and abs(math.log(ppl.value / vocabulary)) < _EVEN:
            raise BadFile(
                f"{model}: {what} gives every token the same logit (its perplexity is the size of the vocabulary, {vocabulary}): "
                "it has no next-token predictions, or the file is corrupt; build or download it again"
            )


def parse(finished: Finished) -> Parsed | None:
    """What a --kl-divergence run says; None where not even one chunk is there.

    ToolFailed where the summary is there and says that the perplexity is no number.
    """
    log = finished.log
    lines = list(_CHUNK.finditer(log))
    if not lines:
        return None
    last = lines[-1]
    figures = _summary(log)
    if figures is None:
        return Parsed(_of_chunk(last), int(last[1]), complete=False)
    if not math.isfinite(figures.kld.value + figures.ppl.value):
        raise failure(finished, "found NaN or infinite logits; the file may be corrupt")
    return Parsed(figures, int(last[1]), complete=True)


def _of_chunk(line: re.Match[str]) -> Figures:
    """The running figures that stand in a per-chunk line; all others are unknown."""
    pairs = [_estimate(line[index], line[index + 1]) for index in range(2, 12, 2)]
    ppl, ratio, kld, rms, same = pairs
    return Figures(
        ppl=ppl,
        ln_ppl_ratio=ratio,
        kld=kld,
        rms_dp=rms,
        same_top=same,
        base_ppl=None,
        ppl_correlation=None,
        kld_chunk_err=None,
        kld_median=None,
        kld_maximum=None,
        kld_percentiles=dict.fromkeys(PERCENTILES),
        delta_p=None,
    )


def _summary(log: str) -> Figures | None:
    """The figures of the summary; None unless every line of it is there, whole."""
    pairs = {name: _pair(log, label) for name, label in _LABELS.items()}
    single = {label: _single(log, f"{label} KLD") for label in ("Maximum", "Median ")}
    percentiles = {each: _single(log, f"{each:4.1f}%   KLD") for each in PERCENTILES}
    correlation = _single(log, "Cor(ln(PPL(Q)), ln(PPL(base)))")
    if None in (*pairs.values(), *single.values(), *percentiles.values(), correlation):
        return None
    return Figures(
        **pairs,  # type: ignore[arg-type]
        ppl_correlation=correlation / 100 if math.isfinite(correlation) else None,  # type: ignore[arg-type, operator]
        kld_chunk_err=None,
        kld_median=single["Median "],
        kld_maximum=single["Maximum"],
        kld_percentiles=percentiles,
    )


_LABELS = {
    "ppl": "Mean PPL(Q)",
    "base_ppl": "Mean PPL(base)",
    "ln_ppl_ratio": "Mean ln(PPL(Q)/PPL(base))",
    "kld": "Mean    KLD",
    "delta_p": "Mean    Δp",
    "rms_dp": "RMS Δp",
    "same_top": "Same top p",
}


def _pair(log: str, label: str) -> Estimate | None:
    """The figure and its error of a summary line that ends as it should: it may be cut inside a number."""
    match = re.search(rf"^{re.escape(label)}\s*:{_PAIR}(?: %)?[ \t]*\r?\n", log, re.MULTILINE)
    return _estimate(match[1], match[2]) if match else None


def _single(log: str, label: str) -> float | None:
    match = re.search(rf"^{re.escape(label)}\s*:\s*{_NUMBER}%?[ \t]*\r?\n", log, re.MULTILINE)
    return float(match[1]) if match else None


def _estimate(value: str, error: str) -> Estimate:
    """An error that is no number (of a file against itself) is unknown."""
    return Estimate(float(value), float(error) if math.isfinite(float(error)) else None)


def _counter(step: Advance | None) -> Callable[[str], None] | None:
    """Counts chunks in output that comes in pieces."""
    if step is None:
        return None
    text, counted = "", 0

    def on_text(piece: str) -> None:
        nonlocal text, counted
        text += piece
        done = len(_COUNTED.findall(text))
        if done > counted:
            step(done - counted)
            counted = done

    return on_text
