"""Scores of models at a suite: all items asked in one batch, each answer graded, every finished model cached."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from quantplan.errors import BadUsage, WorkersLost
from quantplan.evaluate.suites.answers import Reply
from quantplan.evaluate.suites.asking import ModelForms, request, why_not
from quantplan.evaluate.suites.graders import GRADERS, Credit
from quantplan.evaluate.suites.suite import PERPLEXITY, Suite, SuiteItem, SuitePart
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore, with_perplexity
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.generation import (
    BROKEN,
    ENDED,
    LENGTH,
    STOPPED,
    TOO_LONG,
    Generation,
    GenerationRequest,
    generate,
)
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.measurement import Estimate
from quantplan.parallel.rpc import on_servers
from quantplan.parallel.worker_pool import Lost, WorkerPool, worker_threads
from quantplan.progress import SILENT, Reporter
from quantplan.records.cache import Cache
from quantplan.sensitivity.probe_workers import model_here
from quantplan.tensor import Model

_PROMPTS_VERSION = 3  # 3: tools; 2: templates that want a list of parts get one; 1: first
_LARGEST_LOG = 600.0  # of a ratio that is still finite
Ratio = Estimate | float | None  # PPL of the model over PPL of the original


def conditions(suite: Suite, backend: str) -> SuiteConditions:
    return SuiteConditions(
        suite=suite.name,
        suite_digest=suite.digest,
        backend=backend,
        llama_cpp=f"llama-cpp-python {version('llama-cpp-python')}",
    )


def score_loaded(
    engine: Engine,
    metadata: Mapping[str, object],
    suite: Suite,
    ppl_ratio: Ratio = None,
    *,
    file: str = "",
    model_digest: str = "",
    report: Reporter = SILENT,
) -> SuiteScore:
    """The score of the model that is loaded, with the weights that it has now.

    ``metadata``: of its header, for the chat template. ``file`` and ``model_digest`` only name it in the result.

    Raises BadFile for a template that cannot be rendered, BadUsage where no part applies.
    """
    forms = ModelForms(metadata, engine)
    reasons = {part.name: why_not(part, forms) for part in suite.parts}
    asked = [(part, item) for part in suite.parts if not reasons[part.name] for item in part.items]
    requests = [request(suite, part, item, forms) for part, item in asked]
    with report.stage(f"{file or 'model'}: {suite.name}", len(requests)) as advance:
        answers = generate(engine, requests, advance) if requests else []
    graded: dict[str, list[ItemScore]] = {part.name: [] for part in suite.parts}
    for (part, item), asked_for, answer in zip(asked, requests, answers, strict=True):
        graded[part.name].append(_graded(part, item, asked_for, answer, forms))
    score = SuiteScore(
        file=file,
        model_digest=model_digest,
        parts=tuple(_part(part, reasons[part.name], graded[part.name]) for part in suite.parts),
        conditions=conditions(suite, engine.options.execution.backend),
        template=forms.chat.template is not None,
        thinks=forms.chat.thinks,
        notes=_notes(forms, graded),
    )
    return _applying(with_perplexity(score, ppl_ratio), suite)


def _graded(
    part: SuitePart, item: SuiteItem, asked_for: GenerationRequest, answer: Generation, forms: ModelForms
) -> ItemScore:
    ending = answer.ending
    if ending == LENGTH and answer.tokens < asked_for.max_tokens:
        ending = TOO_LONG  # the context ended before the answer's tokens did
    marks = forms.tools.call_marks if item.tools else ()
    reply = Reply(answer.text, asked_for.prompt.thinking, ending in (ENDED, STOPPED), marks)
    credit = GRADERS[part.kind](part, item, reply) if ending != TOO_LONG else Credit(0.0, "longer than the context")
    return ItemScore(
        name=item.name,
        credit=credit.value,
        text=reply.whole,
        tokens=answer.tokens,
        ending=ending,
        remark=credit.remark,
    )


def _part(part: SuitePart, reason: str, items: list[ItemScore]) -> PartScore:
    if items and all(item.ending == TOO_LONG for item in items):
        reason, items = f"none of its {len(items)} items fits the model's context", []
    return PartScore(name=part.name, kind=part.kind, weight=part.weight, items=tuple(items), reason=reason)


def _notes(forms: ModelForms, graded: Mapping[str, Sequence[ItemScore]]) -> tuple[str, ...]:
    notes = []
    if forms.chat.template is None:
        notes.append('the file has no chat template: questions were asked as "Question: ... Answer:"')
    endings = [item.ending for items in graded.values() for item in items]
    for ending, words in (
        (BROKEN, "broke off: NaN or infinite logits"),
        (TOO_LONG, "do not count: with their answers they are longer than the model's context"),
    ):
        if count := endings.count(ending):
            notes.append(f"{count} of {len(endings)} items {words}")
    return tuple(notes)


def _applying(score: SuiteScore, suite: Suite) -> SuiteScore:
    if not score.applicable:
        reasons = "; ".join(f"{part.name}: {part.reason}" for part in score.parts)
        raise BadUsage(f"no part of the suite {suite.name} applies to {score.file or 'this model'} ({reasons})")
    return score


def score_file(
    path: Path | str,
    suite: Suite,
    execution: Execution = Execution(),
    ppl_ratio: Ratio = None,
    report: Reporter = SILENT,
    cache: Path | None = None,
) -> SuiteScore:
    """The score of a file, see ``score_files``."""
    return score_files({path: ppl_ratio}, suite, execution, report, cache)[0]


def score_files(
    ratios: Mapping[Path | str, Ratio],
    suite: Suite,
    execution: Execution = Execution(),
    report: Reporter = SILENT,
    cache: Path | None = None,
) -> list[SuiteScore]:
    """The scores of files, given with their PPL ratios; from the folder ``cache`` where they are there already. With several
    processes a file is a task. Raises as ``score_loaded``, and WorkersLost: finished files are kept.
    """
    models = {path: read_model(path) for path in ratios}
    scores = ScoreCache(cache, suite, execution)
    todo = {model.digest: path for path, model in models.items() if scores.find(model) is None}
    try:
        for score in _asked(list(todo.values()), suite, execution, report):
            scores.put(with_perplexity(score, None))
    except Lost as lost:
        names = ", ".join(str(path) for path in todo.values() if scores.find(models[path]) is None)
        raise WorkersLost(f"{lost.reason}. Not scored: {names}; run the same command again for the rest") from None
    known = ((path, scores.find(model)) for path, model in models.items())
    named = ((path, replace(score, file=str(path))) for path, score in known if score)
    return [_applying(with_perplexity(score, ratios[path]), suite) for path, score in named]


def _asked(paths: Sequence[Path | str], suite: Suite, execution: Execution, report: Reporter) -> Iterator[SuiteScore]:
    """Scores as they are ready, wherever models are run."""
    if execution.many and paths:
        with WorkerPool(execution) as pool:
            job = (suite, execution.within_worker(pool.threads(execution.threads)))
            files = [(Path(path).absolute(), read_model(path).digest) for path in paths]
            with report.stage(suite.name, len(files)) as advance:
                for _, score in pool.run(_in_worker, job, files):
                    yield score
                    advance(1)
    for path in () if execution.many else paths:
        if execution.rpc:
            yield on_servers(execution.rpc, _ask, path, suite, execution, report=report)
        else:
            yield _ask(path, suite, execution, report)


def _in_worker(job: tuple[Suite, Execution], file: tuple[Path, str]) -> SuiteScore:
    suite, execution = job
    model_here(*file)
    return _ask(file[0], suite, replace(execution, threads=execution.threads or worker_threads()), SILENT)


def _ask(path: Path | str, suite: Suite, execution: Execution, report: Reporter) -> SuiteScore:
    model = read_model(path)
    with Engine(model, EngineOptions(execution=execution)) as engine:
        # a ratio of 1, so that a suite with nothing but perplexity applies
        return score_loaded(
            engine, model.metadata, suite, 1.0, file=str(path), model_digest=model.digest, report=report
        )


class ScoreCache:
    """Scores of one suite, by model; without the perplexity, which is measured elsewhere."""

    def __init__(self, cache: Path | None, suite: Suite, execution: Execution) -> None:
        self._suite = suite
        made_from = asdict(conditions(suite, execution.backend))
        del made_from["suite"]  # its name changes nothing
        made_from["prompts"] = _PROMPTS_VERSION
        self._cache = Cache(SUITE_SCORES, cache, "suite", made_from)

    def find(self, model: Model) -> SuiteScore | None:
        score = self._cache.get(model.digest)
        return score and replace(score, conditions=replace(score.conditions, suite=self._suite.name))

    def put(self, score: SuiteScore) -> None:
        self._cache.put(score.model_digest, score)


def tokens_at_most(suite: Suite) -> int:
    """The most tokens that a model generates, unless it thinks unasked."""
    return sum(item.max_tokens for part in suite.parts if part.kind != PERPLEXITY for item in part.items)


def ppl_ratio(logarithm: Estimate) -> Estimate:
    """PPL over PPL of the original, from ln(PPL / PPL of the original) as ``measure`` gives it."""
    ratio = math.exp(min(logarithm.value, _LARGEST_LOG))
    return Estimate(ratio, ratio * (logarithm.stderr or 0.0))
