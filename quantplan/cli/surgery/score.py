"""`quantplan surgery score`: models' answers to a suite of short tasks, scored out of 100 with their uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantplan.cli import console, options
from quantplan.errors import BadUsage
from quantplan.execution import Execution

if TYPE_CHECKING:
    from quantplan.evaluate.suites.suite import Suite
    from quantplan.evaluate.suites.suite_gap import SuiteGap
    from quantplan.evaluate.suites.suite_score import SuiteScore
    from quantplan.measurement import Estimate

_FilesArgument = Annotated[list[Path], typer.Argument(help="GGUF files to score, hf:// too.", show_default=False)]
_SuiteOption = Annotated[
    list[str] | None,
    typer.Option("--suite", "-s", help="Suite file, or default for the shipped one; several are scored together."),
]
_BaseOption = Annotated[
    Path | None, typer.Option("--base", help="Original model to compare with (default: the project's).")
]
_TextOption = Annotated[
    Path | None, typer.Option("--text", "-t", help="Text for the perplexity part, file or folder (default: none).")
]
_ChunksOption = Annotated[
    int | None, typer.Option("--windows", "-n", min=1, help="Windows of the text to take (default: all).")
]
_AnswersOption = Annotated[bool, typer.Option("--show-answers", help="Print each answer with its credit.")]
_OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the records (default: the project's reports).")
]


def score(
    files: _FilesArgument,
    suite: _SuiteOption = None,
    base: _BaseOption = None,
    text: _TextOption = None,
    ctx: options.CtxOption = None,
    chunks: _ChunksOption = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    show_answers: _AnswersOption = False,
    out: _OutOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Score models by their greedy answers to short tasks: facts, coherence, math, reasoning and more, out of 100.

    Questions go through the model's own chat template. Each part and the whole have their standard errors, and the
    original model, scored on the same items, stands beside. The perplexity part takes --text and --base. Answers of finished
    models are kept. docs/suites.md describes the suites, which are short YAML files, and every formula.

    Example: quantplan surgery score prose-10m-f16.gguf --base prose-10m-f16.gguf --text calibration/heldout.txt
    --windows 8
    """
    wanted, original = _suite(suite), _base(base)
    _check(text, original, ctx, chunks)
    execution = options.execution(threads, gpu_layers)
    files = [options.local(each) for each in files]
    _check_weights(files, original)
    if dry_run:
        _announce(files, original, wanted, execution, text, as_json)
        return
    ratios = _ratios(files, original, text, ctx, chunks, execution) if text and original else {}
    scores, reference = _score(files, original, wanted, execution, ratios, bool(text))
    _write([*scores, *([reference] if reference else [])], out)
    _show(scores, reference, show_answers, as_json)


def _suite(sources: list[str] | None) -> Suite:
    from quantplan.evaluate.suites.suite import joined
    from quantplan.evaluate.suites.suite_files import DEFAULT, read_suite

    found = [read_suite(source) for source in sources or [DEFAULT]]
    return found[0] if len(found) == 1 else joined(found)


def _base(option: Path | None) -> Path | None:
    here = options.project()
    return options.local(option) if option else here.model if here else None


def _check(text: Path | None, base: Path | None, ctx: int | None, chunks: int | None) -> None:
    if text and base is None:
        raise BadUsage("--text: perplexity is judged against the original model; name it with --base ORIGINAL.gguf")
    if not text and (ctx or chunks):
        raise BadUsage("--ctx and --windows cut the text of the perplexity part; name one with --text FILE")


def _check_weights(files: list[Path], base: Path | None) -> None:
    from quantplan.build.preflight import check_source
    from quantplan.gguf.reader import read_model

    for file in (*files, *([base] if base else [])):
        check_source(read_model(file))


def _announce(
    files: list[Path], base: Path | None, suite: Suite, execution: Execution, text: Path | None, as_json: bool
) -> None:
    from quantplan.evaluate.suites.scoring import ScoreCache, tokens_at_most
    from quantplan.gguf.reader import read_model

    kept = ScoreCache(options.cache_folder(), suite, execution)
    models = {str(file): bool(kept.find(read_model(file))) for file in [*files, *([base] if base else [])]}
    parts = [
        {
            "name": part.name,
            "kind": part.kind,
            "items": len(part.items),
            "share": 100 * part.weight / suite.total_weight,
        }
        for part in suite.parts
    ]
    if as_json:
        fields = {"suite": suite.name, "digest": suite.digest, "items": suite.items, "tokens": tokens_at_most(suite)}
        console.put_json(fields | {"parts": parts, "kept": models, "text": str(text) if text else None})
        return
    console.put(f"suite {suite.name}: {suite.items} items, at most {tokens_at_most(suite)} tokens a model")
    for part in parts:
        of = f"{part['items']} items" if part["items"] else "the text"
        console.put(f"  {part['name']} ({part['kind']}): {of}, {part['share']:.3g} % of the score")
    for file, found in models.items():
        console.put(f"{file}: {'kept' if found else 'to be asked'}")
    if text:
        console.put(f"perplexity on {text}, against {base}")


def _ratios(
    files: list[Path], base: Path, text: Path, ctx: int | None, chunks: int | None, execution: Execution
) -> dict[Path, Estimate]:
    """PPL of each file over that of the base."""
    from quantplan.evaluate.measure import MeasureOptions, measure
    from quantplan.evaluate.suites.scoring import ppl_ratio
    from quantplan.gguf.reader import read_model
    from quantplan.project import read_text

    chosen = MeasureOptions(options.ctx(ctx, read_model(base)), chunks, execution)
    with console.progress("perplexity", 100) as bar:
        found = measure(base, files, read_text(text), chosen, lambda share: bar(100 * share), options.cache_folder())
    return {file: ppl_ratio(each.ln_ppl_ratio) for file, each in zip(files, found, strict=True)}


def _score(
    files: list[Path], base: Path | None, suite: Suite, execution: Execution, ratios: dict[Path, Estimate], judged: bool
) -> tuple[list[SuiteScore], SuiteScore | None]:
    """The files' scores and the base's."""
    from quantplan.evaluate.suites.scoring import score_file

    with console.terminal() as report:

        def one(file: Path, ratio: Estimate | float | None) -> SuiteScore:
            return score_file(file, suite, execution, ratio, report, options.cache_folder())

        scores = [one(file, ratios.get(file)) for file in files]
        return scores, one(base, 1.0 if judged else None) if base else None


def _write(scores: list[SuiteScore], out: Path | None) -> None:
    from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES

    here = options.project()
    folder = out or (here.reports if here else None)
    for each in {each.model_digest: each for each in scores}.values() if folder else ():
        suite = each.conditions.suite_digest[:8]
        path = folder / f"{Path(each.file).stem}-{each.model_digest[:8]}-{suite}.suite.json"  # type: ignore[operator]
        SUITE_SCORES.write(each, path)
        console.say(f"written: {path}")


def _show(scores: list[SuiteScore], base: SuiteScore | None, answers: bool, as_json: bool) -> None:
    from quantplan.report.suite_table import answer_lines, gaps_table, suite_table

    gaps = _gaps(scores, base)
    shown = list({each.file: each for each in [*scores, *([base] if base else [])]}.values())
    for note in (f"{each.file}: {note}" for each in shown for note in each.notes):
        console.warn(note)
    if as_json:
        console.put_json([_fields(each, base, gaps.get(each.file)) for each in scores])
        return
    console.put_table(suite_table(shown))
    if gaps and base:
        console.put_table(gaps_table(gaps, base.file, [part.name for part in base.parts]))
    for each in scores:
        console.put(f"{each.file}: {_sentence(each, base, gaps.get(each.file))}")
    if answers:
        for each in shown:
            console.put("\n".join([f"{each.file}:", *answer_lines(each)]))


def _gaps(scores: list[SuiteScore], base: SuiteScore | None) -> dict[str, SuiteGap]:
    from quantplan.evaluate.suites.suite_gap import suite_gap

    others = [each for each in scores if base and each.model_digest != base.model_digest]
    return {each.file: suite_gap(each, base) for each in others if base}


def _sentence(score: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None) -> str:
    from quantplan.evaluate.suites.verdicts import against, alone

    return f"{alone(score)}; {against(gap, base.file)}" if gap and base else alone(score)


def _fields(score: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None) -> dict[str, Any]:
    from dataclasses import asdict

    from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES

    against = {"file": base.file, "score": base.overall.value} | asdict(gap) if gap and base else None
    return SUITE_SCORES.encode(score) | {"against": against, "judgement": _sentence(score, base, gap)}
