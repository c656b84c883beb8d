"""`quantplan score`: models' answers to a suite of short tasks, scored out of 100 with their uncertainty."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from quantplan.build.preflight import check_source
from quantplan.cli import config, console, options
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    EvaluationOptions,
    ExecutionOptions,
    ModelOptions,
    SpecialTokenOptions,
    TextOptions,
)
from quantplan.errors import BadUsage
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.suites.scoring import ScoreCache, ppl_ratio, score_files, tokens_at_most
from quantplan.evaluate.suites.suite import Suite, joined
from quantplan.evaluate.suites.suite_files import DEFAULT, read_suite
from quantplan.evaluate.suites.suite_gap import SuiteGap, against, alone, suite_gap
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.records.codec import encode
from quantplan.report.suite_table import answer_lines, gaps_table, suite_table


@command
def score(
    files: Annotated[list[Path], typer.Argument(help="GGUF files to score, hf:// too.", show_default=False)],
    model: ModelOptions,
    text: TextOptions,
    special: SpecialTokenOptions,
    measuring: EvaluationOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    suite: tuple[str, ...] = option(
        "Suite file, or default for the bundled one; several are scored together.", default=(), panel=MEASURING
    ),
    show_answers: bool = option("Print each answer with its credit.", default=False, panel=OUTPUT),
    out: Path | None = out_option("Folder for the records (default: the project's reports)."),
) -> None:
    """Score models by their greedy answers to short tasks: facts, coherence, math, reasoning and more, out of 100.

    Questions go through the model's own chat template. Each part and the whole have their standard errors; with --model
    the original model is scored on the same items for comparison. The perplexity part takes --text and --model. Answers of
    finished models are kept. docs/suites.md describes the suites, which are short YAML files, and every formula.

    Example: quantplan score prose-10m-f16.gguf --model prose-10m-f16.gguf --text calibration/evaluation.txt --chunks 8
    """
    questions, original = read_suites(suite), model.file or _of_project()
    if text.text and original is None:
        raise BadUsage("--text: the perplexity part needs the original model; name it with --model ORIGINAL.gguf")
    described = config.settings()
    if not text.text and (measuring.ctx or measuring.eval_chunks != described.get("eval_chunks")):
        raise BadUsage("--ctx and --chunks cut the text of the perplexity part; name one with --text FILE")
    how = execution.parsed()
    here = [options.local(file) for file in files]
    every = [*here, *([original] if original else [])]
    for file in every:
        check_source(read_model(file))
    if output.dry_run:
        _announce(every, questions, how, text.text, output.as_json)
        return
    ratios = _ratios(here, original, text, special, measuring, how) if text.text and original else {}
    scores = _score(here, questions, how, ratios)
    base = _score([original], questions, how, {original: 1.0} if text.text else {})[0] if original else None
    _write([*scores, *([base] if base else [])], out)
    _show(scores, base, show_answers, output.as_json)


def read_suites(sources: Sequence[str]) -> Suite:
    """The suites of the option as one, by default the bundled one."""
    suites = [read_suite(source) for source in sources or [DEFAULT]]
    return suites[0] if len(suites) == 1 else joined(suites)


def _of_project() -> Path | None:
    here = options.project()
    return here.model if here else None


def _announce(files: list[Path], suite: Suite, how: Execution, text: Sequence[Path], as_json: bool) -> None:
    """``files``: the original last, where there is one."""
    kept = ScoreCache(options.cache_folder(), suite, how)
    answered = {str(file): bool(kept.find(read_model(file))) for file in files}
    parts = [
        {
            "name": part.name,
            "kind": part.kind,
            "items": len(part.items),
            "share": 100 * part.weight / suite.total_weight,
        }
        for part in suite.parts
    ]
    texts = options.names_of(text) or None
    if as_json:
        fields = {"suite": suite.name, "digest": suite.digest, "items": suite.items, "tokens": tokens_at_most(suite)}
        console.put_json(fields | {"parts": parts, "kept": answered, "text": texts})
        return
    console.put(f"suite {suite.name}: {suite.items} items, at most {tokens_at_most(suite)} tokens a model")
    for part in parts:
        of = f"{part['items']} items" if part["items"] else "the text"
        console.put(f"  {part['name']} ({part['kind']}): {of}, {part['share']:.3g} % of the score")
    for file, done in answered.items():
        console.put(f"{file}: {'answers are in the cache' if done else 'to be asked'}")
    if texts:
        console.put(f"perplexity on {texts}, against {files[-1]}")


def _ratios(
    files: list[Path],
    base: Path,
    text: TextOptions,
    special: SpecialTokenOptions,
    measuring: EvaluationOptions,
    how: Execution,
) -> dict[Path, Estimate]:
    """PPL of each file over that of the base."""
    model = read_model(base)
    n_ctx = options.ctx(measuring.ctx, model)
    chosen = MeasureOptions(n_ctx, measuring.eval_chunks, how)
    with console.progress("perplexity") as advance:
        evaluation = options.evaluation_text(text.text, special.reader(model))
        measurements = measure(base, files, evaluation, chosen, advance, options.cache_folder())
    return {file: ppl_ratio(measured.ln_ppl_ratio) for file, measured in zip(files, measurements, strict=True)}


def _score(files: list[Path], suite: Suite, how: Execution, ratios: dict) -> list[SuiteScore]:
    with console.terminal() as report:
        return score_files({file: ratios.get(file) for file in files}, suite, how, report, options.cache_folder())


def _write(scores: list[SuiteScore], out: Path | None) -> None:
    folder = options.records_folder(out)
    for one in {one.model_digest: one for one in scores}.values() if folder else ():
        name = f"{Path(one.file).stem}-{one.model_digest[:8]}-{one.conditions.suite_digest[:8]}.suite.json"
        SUITE_SCORES.write(one, folder / name)  # type: ignore[operator]
        console.say(f"written: {folder / name}")  # type: ignore[operator]


def _show(scores: list[SuiteScore], base: SuiteScore | None, answers: bool, as_json: bool) -> None:
    gaps = _gaps(scores, base)
    shown = list({one.file: one for one in [*scores, *([base] if base else [])]}.values())
    for note in (f"{one.file}: {note}" for one in shown for note in one.notes):
        console.warn(note)
    if as_json:
        console.put_json([_fields(one, base, gaps.get(one.file)) for one in scores])
        return
    console.put_table(suite_table(shown))
    if gaps and base:
        console.put_table(gaps_table(gaps, base.file, [part.name for part in base.parts]))
    for one in scores:
        console.put(f"{one.file}: {_sentence(one, base, gaps.get(one.file))}")
    for one in shown if answers else ():
        console.put("\n".join([f"{one.file}:", *answer_lines(one)]))


def _gaps(scores: list[SuiteScore], base: SuiteScore | None) -> dict[str, SuiteGap]:
    return {one.file: suite_gap(one, base) for one in scores if base and one.model_digest != base.model_digest}


def _sentence(scored: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None) -> str:
    return f"{alone(scored)}; {against(gap, base.file)}" if gap and base else alone(scored)


def _fields(scored: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None) -> dict[str, Any]:
    compared = {"file": base.file, "score": base.overall.value} | encode(gap) if gap and base else None
    return SUITE_SCORES.encode(scored) | {"against": compared, "judgement": _sentence(scored, base, gap)}
