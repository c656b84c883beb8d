"""`quantplan score`: models' answers to a suite of short tasks, scored out of 100, and compared with those of the base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from quantplan.build.preflight import check_source
from quantplan.cli import config, console, options
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    TEXTS,
    EvaluationOptions,
    ExecutionOptions,
    SpecialTokenOptions,
    TextOptions,
    hub_option,
)
from quantplan.errors import BadUsage
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.suites.answer_lengths import LengthGap, answer_lengths, length_gap
from quantplan.evaluate.suites.generated.generators import with_items
from quantplan.evaluate.suites.scoring import ScoreCache, ppl_ratio, score_files, tokens_at_most
from quantplan.evaluate.suites.suite import PERPLEXITY, Suite, chosen, joined
from quantplan.evaluate.suites.suite_files import ASSISTANT, DEFAULT, read_suite
from quantplan.evaluate.suites.suite_gap import SuiteGap, against, alone, suite_gap
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.records.codec import encode
from quantplan.report.suite_table import answer_lines, gaps_table, lengths_table, suite_table


@dataclass(frozen=True)
class BaseOptions:
    panel: ClassVar[str] = TEXTS
    model: Path | None = option("Base model to compare with (default: the project's).", "--model", "-m", "--base")
    hub: str | None = hub_option()

    @property
    def file(self) -> Path | None:
        return options.local_or_hub(self.model, self.hub)


@dataclass(frozen=True)
class SuiteOptions:
    panel: ClassVar[str] = MEASURING
    suite: tuple[str, ...] = option(
        "Suite: assistant (default), short, or a file; several are scored together.", default=()
    )
    parts: tuple[str, ...] = option("Parts of the suite to ask, such as tools,code; -NAME leaves one out.", default=())
    items: int | None = option("Items of each part (default: those of the suite).", min=1, max=4096)

    def chosen(self) -> Suite:
        suite = chosen(read_suites(self.suite, ASSISTANT), self.parts)
        return with_items(suite, self.items) if self.items else suite


@command
def score(
    files: Annotated[list[Path], typer.Argument(help="GGUF files to score, hf:// too.", show_default=False)],
    model: BaseOptions,
    text: TextOptions,
    special: SpecialTokenOptions,
    suite: SuiteOptions,
    measuring: EvaluationOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    show_answers: bool = option("Print each answer with its credit.", default=False, panel=OUTPUT),
    out: Path | None = out_option("Folder for the records (default: the project's reports)."),
) -> None:
    """Score models by their greedy answers: tool calls, instructions, code, arithmetic, facts, endless answers.

    Does a quantized file still follow instructions and call tools? Files are compared with the base model item by item
    (McNemar's test); how long answers are and how many go round in circles is compared, too. Questions go through the model's
    own chat template. Programs that a model writes are run, with limits; --parts=-code leaves them out. Answers of finished
    files are kept. The suite short asks for facts, coherence, math and reasoning; its perplexity part takes --text and --model.
    docs/suites.md describes the suites, which are short YAML files, and every formula.

    Example: quantplan score prose-10m-f16.gguf --base prose-10m-f16.gguf --parts facts,ending --items 3
    """
    questions, original = suite.chosen(), model.file or _of_project()
    if text.text and not any(part.kind == PERPLEXITY for part in questions.parts):
        raise BadUsage(
            f"--text: the suite {questions.name} has no perplexity part; leave --text out, or give --suite short"
        )
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


def read_suites(sources: Sequence[str], default: str) -> Suite:
    """The suites of the option as one, by default the bundled one of that name."""
    suites = [read_suite(default if source == DEFAULT else source) for source in sources or [DEFAULT]]
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
    shown = list({one.file: one for one in [*([base] if base else []), *scores]}.values())
    lengths = {one.file: gap for one in scores if one.file in gaps and base and (gap := length_gap(one, base))}
    for note in (f"{one.file}: {note}" for one in shown for note in one.notes):
        console.warn(note)
    if as_json:
        console.put_json([_fields(one, base, gaps.get(one.file), lengths.get(one.file)) for one in scores])
        return
    console.put_table(suite_table(shown))
    if gaps and base:
        console.put_table(gaps_table(gaps, base.file, [part.name for part in base.parts]))
    if answers_table := lengths_table(shown, lengths, base.file if base else None):
        console.put_table(answers_table)
    for one in scores:
        console.put(f"{one.file}: {_sentence(one, base, gaps.get(one.file))}")
    for one in shown if answers else ():
        console.put("\n".join([f"{one.file}:", *answer_lines(one)]))


def _gaps(scores: list[SuiteScore], base: SuiteScore | None) -> dict[str, SuiteGap]:
    return {one.file: suite_gap(one, base) for one in scores if base and one.model_digest != base.model_digest}


def _sentence(scored: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None) -> str:
    return f"{alone(scored)}; {against(gap, base.file)}" if gap and base else alone(scored)


def _fields(
    scored: SuiteScore, base: SuiteScore | None, gap: SuiteGap | None, lengths: LengthGap | None
) -> dict[str, Any]:
    compared = None
    if gap and base:
        compared = {"file": base.file, "score": base.overall.value} | encode(gap)
        compared |= {"directional": [name for name in gap.parts if gap.directional(name)], "lengths": encode(lengths)}
    told = {"lengths": encode(answer_lengths(scored)), "against": compared, "judgement": _sentence(scored, base, gap)}
    return SUITE_SCORES.encode(scored) | told
