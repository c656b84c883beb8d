"""Scores of models at a suite: all items asked in one go, each answer graded, every finished model kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.evaluate.suites.answers import Reply
from quantplan.evaluate.suites.graders import GRADERS
from quantplan.evaluate.suites.questions import request, why_not
from quantplan.evaluate.suites.suite import PERPLEXITY, Suite, SuiteItem, SuitePart
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore, with_perplexity
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.chat import ChatForm
from quantplan.llamacpp.engine import Engine, EngineOptions
from quantplan.llamacpp.generation import BROKEN, TOO_LONG, Generation, generate
from quantplan.measurement import Estimate
from quantplan.progress import Advance
from quantplan.records.cache import Cache
from quantplan.tensor import Model

_LARGEST_LOG = 600.0  # of a ratio that is still a number
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
    advance: Advance | None = None,
) -> SuiteScore:
    """The score of the model that is loaded, with the weights that it has now.

    ``metadata``: of its header, for the chat template. ``file`` and ``model_digest`` only name it in the result. ``advance``
    gets shares that add up to 1. Raises BadFile for a template that cannot be rendered, BadUsage where no part applies.
    """
    form = ChatForm(metadata, engine)
    asked = [(part, item) for part in suite.parts if not why_not(part, form) for item in part.items]
    step = (lambda count: advance(count / len(asked))) if advance else None
    wanted = [request(suite, part, item, form) for part, item in asked]
    answers = generate(engine, wanted, step) if wanted else []
    graded = [
        _graded(part, item, Reply(answer.text, each.prompt.thinking), answer)
        for (part, item), each, answer in zip(asked, wanted, answers, strict=True)
    ]
    left = iter(graded)
    parts = [_part(part, why_not(part, form), [next(left) for _ in _asked(part, form)]) for part in suite.parts]
    score = SuiteScore(
        file=file,
        model_digest=model_digest,
        parts=tuple(parts),
        conditions=conditions(suite, engine.options.execution.backend),
        template=form.template is not None,
        thinks=form.thinks,
        notes=_notes(form, answers),
    )
    return _applying(with_perplexity(score, ppl_ratio), suite)


def _asked(part: SuitePart, form: ChatForm) -> Sequence[SuiteItem]:
    return () if why_not(part, form) else part.items


def _graded(part: SuitePart, item: SuiteItem, reply: Reply, answer: Generation) -> ItemScore:
    credit = GRADERS[part.kind](part, item, reply)
    return ItemScore(
        name=item.name,
        credit=credit.value,
        text=reply.whole,
        tokens=answer.tokens,
        ending=answer.ending,
        remark=credit.remark,
    )


def _part(part: SuitePart, reason: str, items: list[ItemScore]) -> PartScore:
    return PartScore(name=part.name, kind=part.kind, weight=part.weight, items=tuple(items), reason=reason)


def _notes(form: ChatForm, answers: Sequence[Generation]) -> tuple[str, ...]:
    notes = []
    if form.template is None:
        notes.append('the file has no chat template: asked as "Question: ... Answer:"')
    for ending, words in (
        (BROKEN, "broke off: logits are no numbers"),
        (TOO_LONG, "not asked: longer than the context"),
    ):
        count = sum(answer.ending == ending for answer in answers)
        if count:
            notes.append(f"{count} of {len(answers)} items {words}")
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
    advance: Advance | None = None,
    cache: Path | None = None,
) -> SuiteScore:
    """The score of a file, from the folder ``cache`` where its answers are kept; raises as ``score_loaded``."""
    advance = advance or (lambda _share: None)
    model = read_model(path)
    kept = Kept(cache, suite, execution)
    known = kept.find(model)
    if known is not None:
        advance(1)
        return _applying(with_perplexity(replace(known, file=str(path)), ppl_ratio), suite)
    with Engine(model.path, EngineOptions(execution=execution)) as engine:
        # a perfect ratio, so that a suite of one part applies; what is kept has none
        found = score_loaded(
            engine, model.metadata, suite, 1.0, file=str(path), model_digest=model.digest, advance=advance
        )
    kept.put(with_perplexity(found, None))
    return _applying(with_perplexity(found, ppl_ratio), suite)


class Kept:
    """Finished scores of one suite, by model; without the perplexity, which is measured elsewhere."""

    def __init__(self, cache: Path | None, suite: Suite, execution: Execution) -> None:
        self._suite = suite
        made_from = asdict(conditions(suite, execution.backend))
        del made_from["suite"]  # its name changes nothing
        self._cache = Cache(SUITE_SCORES, cache, "suite", made_from)

    def find(self, model: Model) -> SuiteScore | None:
        score = self._cache.get(model.digest)
        return score and replace(score, conditions=replace(score.conditions, suite=self._suite.name))

    def put(self, score: SuiteScore) -> None:
        self._cache.put(score.model_digest, score)


def tokens_at_most(suite: Suite) -> int:
    """Tokens that a model without thinking of its own can be asked for."""
    return sum(item.max_tokens for part in suite.parts if part.kind != PERPLEXITY for item in part.items)


def ppl_ratio(logarithm: Estimate) -> Estimate:
    """PPL over PPL of the original, of ln(PPL / PPL of the original) as ``measure`` gives it."""
    ratio = math.exp(min(logarithm.value, _LARGEST_LOG))
    return Estimate(ratio, ratio * (logarithm.stderr or 0.0))
