"""The whole chain for one or several budgets: price, solve, build, measure, refine, judge, hand over the best.

Every result is kept under a digest of what it was made from before the next step begins, so that the same command goes on
after kill -9 and measures nothing twice. What does not depend on the budget is shared: imatrix, round trip, probe, and the
base's logits of one round of measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from quantplan.build.build import stock_plan
from quantplan.evaluate.baselines import BuildContext, as_planned, stock_quant_sizes
from quantplan.evaluate.compare import compare_measurements
from quantplan.evaluate.significance import ratio_interval
from quantplan.measurement import Measurement
from quantplan.plan import Plan
from quantplan.planning.request import keep_table, plan_for, quantizable, table_digest
from quantplan.progress import SILENT, Reporter
from quantplan.records.cache import Cache, Plain
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.records.journal import digest_of, text_digest
from quantplan.run import refine
from quantplan.run.evaluation import Builds, EvaluatedFile, Evaluator
from quantplan.run.kept_plans import KeptPlans
from quantplan.run.refine import Refinement, Scored
from quantplan.run.targets import RunOptions, RunResult, RunStatus, RunTarget, Texts, check_texts
from quantplan.sensitivity.estimate import price
from quantplan.sensitivity_table import SensitivityTable

VERSION = 1  # 1: first


@dataclass(frozen=True)
class _Work:
    """An order on its way: ``fallbacks`` are the stock mixes that are no larger than its budget, nearest in size first."""

    order: RunTarget
    plan: EvaluatedFile
    fallbacks: tuple[EvaluatedFile, ...]
    neighbours: tuple[EvaluatedFile, ...] = ()
    state: Refinement = None  # type: ignore[assignment]  # until the first measurements are there

    @property
    def tried(self) -> tuple[EvaluatedFile, ...]:
        return (self.plan, *self.fallbacks, *self.neighbours)

    @property
    def best(self) -> EvaluatedFile:
        return self._own(self.state.best)

    @property
    def leader(self) -> EvaluatedFile:
        return self._own(self.state.leader)

    def _own(self, one: Scored) -> EvaluatedFile:
        return EvaluatedFile(one.name, one.plan, finished=self.order.file)


def run(
    orders: Sequence[RunTarget],
    texts: Texts,
    options: RunOptions,
    shop: BuildContext,
    cache: Path,
    report: Reporter = SILENT,
) -> list[RunResult]:
    """Carries out all orders; ``report`` is told each decision in a sentence.

    Raises what the steps raise. The files of all orders are there when it returns; the shop's folder is emptied unless
    ``keep_all``.
    """
    check_texts(orders[0].request.model, texts, options.measuring.n_ctx)
    return _Chain(orders, texts, options, shop, cache, report).results()


def standing(
    orders: Sequence[RunTarget], texts: Texts, options: RunOptions, shop: BuildContext, cache: Path
) -> list[RunStatus]:
    """How far each order has come, by what the cache holds."""
    return _Chain(orders, texts, options, shop, cache, SILENT).standing()


class _Chain:
    def __init__(
        self,
        orders: Sequence[RunTarget],
        texts: Texts,
        options: RunOptions,
        shop: BuildContext,
        cache: Path,
        report: Reporter,
    ) -> None:
        first = orders[0].request
        self.model, self.imatrix = first.model, first.imatrix
        self.orders, self.texts, self.options, self.cache = orders, texts, options, cache
        self.report = report
        self.builds = Builds(shop)
        self.refining = Evaluator(self.builds, texts.refinement, options.refining, cache)
        self.judging = Evaluator(self.builds, texts.judging, options.measuring, cache)

    def results(self) -> list[RunResult]:
        table = self._table()
        self._open_plans(table)
        works = [self._begin(order, table) for order in self.orders]
        works = self._measured(works)
        for number in range(1, refine.ROUNDS + 1) if self.options.refine else ():
            works = self._round(number, works, table)
        return self._finish(works)

    def _table(self) -> SensitivityTable:
        tensors = quantizable(self.model)
        probing = self.texts.probing
        table = price(self.model, tensors, self.imatrix, probing, self.options.pricing, self.cache, self.report).table
        kept, noted = keep_table(table, self.cache).name, self._priced()
        if noted.get("table") != kept:
            noted.put("table", kept)
        return table

    def _priced(self) -> Cache[str]:
        """Where the damage table that was made last under these conditions is noted."""
        wanted = self.options.pricing
        types = sorted(kind.name for kind in wanted.types)
        imatrix = self.imatrix.digest if self.imatrix else None
        probe = (wanted.probe.n_ctx, wanted.probe.chunks, wanted.probe.extend, wanted.probe.execution.backend)
        text = text_digest(self.texts.probing)
        return Cache(
            Plain(str), self.cache, "run-priced", self.model.digest, imatrix, text, types, probe, wanted.sample_elements
        )

    def standing(self) -> list[RunStatus]:
        """What is done already. Nothing is measured, built or solved for it."""
        name = self._priced().get("table")
        if name is None or not (self.cache / name).is_file():
            return [RunStatus(order) for order in self.orders]
        self._open_plans(SENSITIVITY_TABLES.read(self.cache / name))
        return [self._stands(order) for order in self.orders]

    def _stands(self, order: RunTarget) -> RunStatus:
        own = self.plans.like(_key(order))
        if not own:
            return RunStatus(order, priced=True)
        tried = [EvaluatedFile(order.name, plan) for plan in own]
        measured = sum(self.refining.knows(each) for each in tried)
        judged = [each for each in tried if self.judging.knows(each)]
        there = any(as_planned(order.file, each.plan) for each in judged)
        return RunStatus(order, True, len(tried), measured, bool(judged), there)

    def _open_plans(self, table: SensitivityTable) -> None:
        self.plans = KeptPlans(self.cache, VERSION, table_digest(table), self.refining.made_from)

    # --- plans and guards

    def _begin(self, order: RunTarget, table: SensitivityTable) -> _Work:
        key, file, request = _key(order), order.file, order.request
        plan = self.plans.get(f"{key} plan", lambda: plan_for(request, table)[0])
        assert plan is not None
        others: dict[str, Plan] = {}
        if self.options.refine:
            others = self.plans.several(f"{key} neighbours", lambda: refine.neighbours(request, table, plan))
        return _Work(
            order,
            EvaluatedFile(order.name, plan, finished=file),
            tuple(EvaluatedFile(name, self._stock_quant(name), name, file) for name in self._fallbacks(order)),
            tuple(EvaluatedFile(f"{order.name} {name}", each) for name, each in others.items()),
        )

    def _fallbacks(self, order: RunTarget) -> list[str]:
        sizes = self._sizes
        fitting = [name for name, size in sizes.items() if size <= order.budget_bytes]
        nearest = [max(fitting, key=lambda name: sizes[name])] if fitting else []
        wanted = [name for name in self._baselines() if self._stock_quant(name).file_bytes <= order.budget_bytes]
        return list(dict.fromkeys(nearest + wanted))

    def _baselines(self) -> list[str]:
        return list(self.options.baselines)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return stock_quant_sizes(self.model, self.imatrix)

    def _stock_quant(self, name: str) -> Plan:
        return stock_plan(self.model, name, self.imatrix)

    # --- trials on the refinement text

    def _measured(self, works: list[_Work]) -> list[_Work]:
        wanted = [each for work in works for each in work.tried]
        self.refining.measured(wanted, self.report, "build and measure")
        works = [replace(work, state=self._first_state(work)) for work in works]
        self._tidy(works)
        return works

    def _first_state(self, work: _Work) -> Refinement:
        own = tuple(self._scored(each) for each in (work.plan, *work.neighbours))
        return Refinement(own, tuple(self._scored(each) for each in work.fallbacks))

    def _scored(self, one: EvaluatedFile) -> Scored:
        return Scored(one.name, one.plan, self.refining.found(one).per_chunk_kld)

    def _round(self, number: int, works: list[_Work], table: SensitivityTable) -> list[_Work]:
        fitted = [refine.factors_of(work.order.request, table, work.state) for work in works]
        new = [self._proposed(number, work, table, factors) for work, factors in zip(works, fitted, strict=True)]
        self.refining.measured([each for each in new if each], self.report, f"refine, round {number}")
        works = [
            replace(work, state=refine.after(work.state, self._scored(one) if one else None, factors))
            for work, one, factors in zip(works, new, fitted, strict=True)
        ]
        for work, one in zip(works, new, strict=True):
            self.report.say(_told(work, number, one is not None))
        self._tidy(works)
        return works

    def _proposed(
        self, number: int, work: _Work, table: SensitivityTable, factors: refine.Correction
    ) -> EvaluatedFile | None:
        request, key = work.order.request, f"{_key(work.order)} round {number}"
        plan = self.plans.get(key, lambda: refine.proposal(request, table, work.state, factors))
        return EvaluatedFile(f"{work.order.name} refined {number}", plan, finished=work.order.file) if plan else None

    def _tidy(self, works: Iterable[_Work]) -> None:
        """Files that nothing will be asked of any more are removed."""
        if not self.options.keep_all:
            self.builds.drop_all_but([each for work in works for each in (work.plan, work.leader, *work.fallbacks)])

    # --- the end

    def _finish(self, works: list[_Work]) -> list[RunResult]:
        wanted = [each for work in works for each in self._judged(work)]
        self.judging.measured(wanted, self.report, "judge")
        results = [self._result(self._confirmed(work)) for work in works]
        if not self.options.keep_all:
            self.builds.drop_all_but(())
        return results

    def _confirmed(self, work: _Work) -> _Work:
        """A refined plan that loses more than the plan before on the text that judges is taken back."""
        if not work.state.counts:
            return work
        refined, before = (self.judging.found(each).kld.value for each in (work.best, work.plan))
        return work if refined <= before else replace(work, state=replace(work.state, withdrawn=True))

    def _judged(self, work: _Work) -> list[EvaluatedFile]:
        """Best plan, the plan before where that is another, and all mixes."""
        before = [work.plan] if work.best.key != work.plan.key else []
        named = [EvaluatedFile(name, self._stock_quant(name), name, work.order.file) for name in self._baselines()]
        stock_quants = {each.name: each for each in (*work.fallbacks, *named)} or {
            name: EvaluatedFile(name, self._stock_quant(name), name) for name in self._smallest()
        }
        return [work.best, *before, *stock_quants.values()]

    def _smallest(self) -> list[str]:
        """Where no mix is as small as the budget the smallest of all stands beside the plan, and guards nothing."""
        sizes = self._sizes
        return [min(sizes, key=lambda name: sizes[name])] if sizes else []

    def _result(self, work: _Work) -> RunResult:
        judged = self._judged(work)
        found = {each.name: self.judging.found(each) for each in judged}
        one, reason = self._chosen(work, found)
        before, gain = None, None
        if work.best.key != work.plan.key:
            before = found.pop(work.plan.name)
            gain = ratio_interval(found[work.best.name].per_chunk_kld, before.per_chunk_kld)
        comparison = compare_measurements(list(found), list(found.values()))
        self.builds.finish(one, work.order.file)
        stock_quants = tuple(each.name for each in judged if each.ftype)
        return RunResult(
            work.order, one.plan, one.name, reason, found[one.name], work.state, comparison, stock_quants, before, gain
        )

    def _chosen(self, work: _Work, found: dict[str, Measurement]) -> tuple[EvaluatedFile, str]:
        """The best plan, or the stock mix that it does not surely beat on the refinement text or does not beat at the end."""
        best = work.best
        if not work.fallbacks:
            return best, "no stock mix is as small"
        unbeaten = [
            each for each in work.fallbacks if not refine.significantly_better(work.state.best, self._scored(each))
        ]
        if unbeaten:
            stock_quant = min(unbeaten, key=lambda each: self.refining.found(each).kld.value)
            return (
                stock_quant,
                f"the plan is not surely better than {stock_quant.name} on the refinement text: the mix is handed over",
            )
        fallback = min(work.fallbacks, key=lambda each: found[each.name].kld.value)
        if found[fallback.name].kld.value < found[best.name].kld.value:
            return fallback, f"the plan is worse than {fallback.name} on the text that judges: the mix is handed over"
        return best, _words(work.state) if self.options.refine else "the plan as it was solved"


def _key(order: RunTarget) -> str:
    request = order.request
    types = [kind.name for kind in request.types]
    return digest_of(order.budget_bytes, types, repr(request.constraints), request.per, request.objective)[:16]


def _words(state: Refinement) -> str:
    if state.test is None:
        return "the plan as it was solved: no plan that was tried led on the windows to learn from"
    before = sum(refine.testing(state.plan.klds)) / len(refine.testing(state.plan.klds))
    change = f"{100 * state.test.difference / before:+.2f} % on the windows that test, p {state.test.p / 2:.2g}"
    if state.withdrawn:
        return f"the plan as it was solved: the refined one ({change}) loses more than it on the text that judges"
    if state.counts:
        return f"the refined plan ({change})"
    return f"the plan as it was solved: the refined one does not count ({change})"


def _told(work: _Work, number: int, tried: bool) -> str:
    if not tried:
        return f"{work.order.name}, round {number}: the corrected table gives no plan that was not measured"
    step = work.state.steps[-1]
    where = f"KLD {100 * step.relative:+.2f} % against the best so far on the windows to learn from"
    return f"{work.order.name}, round {number}: {where}, {100 * step.moved:.0f} % of the weights moved"
