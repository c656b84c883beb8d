"""The whole chain for one or several targets: measure the table, solve, build, measure, refine, evaluate, keep the best.

Every result is kept under a digest of what it was made from before the next step begins, so that the same command resumes
after kill -9 and measures nothing twice. What does not depend on the target is shared: imatrix, round trip, probe, and the
base's logits of one round of measurements.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from quantplan.evaluate.baselines import BuildContext
from quantplan.evaluate.compare import compare_measurements
from quantplan.evaluate.significance import ratio_interval
from quantplan.measurement import Measurement
from quantplan.plan import Plan
from quantplan.planning.cache_choice import plan_with_cache, with_cache_of
from quantplan.planning.kept_tables import keep_table, table_digest
from quantplan.planning.sensitivities import sensitivities
from quantplan.planning.solving import plan_for
from quantplan.progress import SILENT, Reporter
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.run import reasons, refine
from quantplan.run.evaluation import Builds, EvaluatedFile, Evaluator
from quantplan.run.fallbacks import StockQuants
from quantplan.run.refine import Refinement, Scored
from quantplan.run.rounding_choice import choose_rounding
from quantplan.run.targets import RunOptions, RunResult, RunStatus, RunTarget, Texts, check_texts
from quantplan.run.work import KeptPlans, Work, noted_table, target_key
from quantplan.sensitivity_table import SensitivityTable

VERSION = 1  # 1: first


def run(
    targets: Sequence[RunTarget],
    texts: Texts,
    options: RunOptions,
    context: BuildContext,
    cache: Path,
    report: Reporter = SILENT,
) -> list[RunResult]:
    """Makes the files of all targets; ``report`` is told each decision in a sentence.

    Raises what the steps raise. All files exist when it returns; the context's folder is emptied unless ``keep_all``.
    """
    check_texts(targets[0].request.model, texts, options.measuring.n_ctx)
    return _Chain(targets, texts, options, context, cache, report).results()


def run_status(
    targets: Sequence[RunTarget], texts: Texts, options: RunOptions, context: BuildContext, cache: Path
) -> list[RunStatus]:
    """How far each target has come, by what the cache holds. Nothing is measured, built or solved for it."""
    return _Chain(targets, texts, options, context, cache, SILENT).status()


class _Chain:
    def __init__(
        self,
        targets: Sequence[RunTarget],
        texts: Texts,
        options: RunOptions,
        context: BuildContext,
        cache: Path,
        report: Reporter,
    ) -> None:
        first = targets[0].request
        self.model, self.imatrix = first.model, first.imatrix
        self.targets, self.texts, self.options, self.cache = targets, texts, options, cache
        self.report = report
        self.stock_quants = StockQuants(self.model, self.imatrix, options.speeds)
        self.builds = Builds(context)
        self.validation = Evaluator(self.builds, texts.validation, options.refining, cache)
        self.noted = noted_table(first, texts.calibration, options, cache)
        self.evaluation = Evaluator(self.builds, texts.evaluation, options.measuring, cache)
        self.judges = {"validation text": self.validation}  # of compensated rounding
        if texts.other_domain:
            self.judges["text of another domain"] = Evaluator(self.builds, texts.other_domain, options.refining, cache)

    def results(self) -> list[RunResult]:
        table = self._table()
        self._open_plans(table)
        works = self._first_measured([self._begin(target, table) for target in self.targets])
        for number in range(1, refine.ROUNDS + 1) if self.options.refine else ():
            works = self._round(number, works, table)
        return self._finish(works)

    def status(self) -> list[RunStatus]:
        name = self.noted.get("table")
        if name is None or not (self.cache / name).is_file():
            return [RunStatus(target) for target in self.targets]
        self._open_plans(SENSITIVITY_TABLES.read(self.cache / name))
        return [self._status_of(target) for target in self.targets]

    def _status_of(self, target: RunTarget) -> RunStatus:
        files = [EvaluatedFile(target.name, plan) for plan in self.plans.like(target_key(target))]
        if not files:
            return RunStatus(target, has_table=True)
        measured = sum(self.validation.knows(file) for file in files)
        kept = [*files, *(EvaluatedFile(file.name, file.plan.with_stock_rounding()) for file in files)]
        evaluated = [file for file in kept if self.evaluation.knows(file)]
        exists = any(self.builds.as_planned(target.file, file) for file in evaluated)
        return RunStatus(target, True, len(files), measured, bool(evaluated), exists)

    def _table(self) -> SensitivityTable:
        table = sensitivities(
            self.model,
            self.options.source,
            calibration=self.texts.calibration,
            imatrix=self.imatrix,
            options=self.options.pricing,
            cache=self.cache,
            report=self.report,
        )
        name, noted = keep_table(table, self.cache).name, self.noted
        if noted.get("table") != name:
            noted.put("table", name)
        return table

    def _open_plans(self, table: SensitivityTable) -> None:
        self.plans = KeptPlans(self.cache, VERSION, table_digest(table), self.validation.made_from)

    # --- plans and fallbacks

    def _begin(self, target: RunTarget, table: SensitivityTable) -> Work:
        key, speeds = target_key(target), self.options.speeds
        plan = self.plans.get(f"{key} plan", lambda: self._planned(target, table))
        assert plan is not None
        request, most_bytes = with_cache_of(plan, target.request), target.budget_bytes
        if request.most_kld is not None:  # the size was asked for: what refines it must not make it larger
            request, most_bytes = replace(request, budget=f"{plan.file_bytes}B", most_kld=None), plan.file_bytes
        neighbours: dict[str, Plan] = {}
        if self.options.refine:
            neighbours = self.plans.several(
                f"{key} neighbours", lambda: refine.neighbours(request, table, plan, speeds)
            )
        return Work(
            target,
            request,
            EvaluatedFile(target.name, plan, finished=target.file),
            self._stock_files(target, self.stock_quants.fallbacks(request, most_bytes, self.options.baselines)),
            tuple(EvaluatedFile(f"{target.name} {name}", other) for name, other in neighbours.items()),
            stock_rounding=EvaluatedFile(
                f"{target.name} stock rounding", plan.with_stock_rounding(), finished=target.file
            )
            if plan.rounding
            else None,
        )

    def _planned(self, target: RunTarget, table: SensitivityTable) -> Plan:
        request, caches, speeds = target.request, target.caches, self.options.speeds
        return plan_with_cache(request, table, caches, speeds)[0] if caches else plan_for(request, table, speeds)[0]

    def _stock_files(self, target: RunTarget, names: Iterable[str]) -> tuple[EvaluatedFile, ...]:
        return tuple(EvaluatedFile(name, self.stock_quants.plan(name), name, target.file) for name in names)

    # --- measurements on the validation text

    def _first_measured(self, works: list[Work]) -> list[Work]:
        files = [file for work in works for file in work.files]
        self.validation.measure(files, self.report, "build and measure")
        works = self._with_rounding(works)
        works = [replace(work, state=self._first_state(work)) for work in works]
        self._tidy(works)
        return works

    def _with_rounding(self, works: list[Work]) -> list[Work]:
        """Compensated rounding only where it is significantly better than ggml's of the same types, on every text for it."""
        pairs = [(work.plan, work.stock_rounding) for work in works if work.stock_rounding]
        for evaluator in self.judges.values():
            evaluator.measure([file for pair in pairs for file in pair], self.report, "compensated rounding, or stock")
        return [self._rounded_better(work) for work in works]

    def _rounded_better(self, work: Work) -> Work:
        if work.stock_rounding is None:
            return work
        plan, stock = work.plan, work.stock_rounding
        choice = choose_rounding({text: (_scored(plan, by), _scored(stock, by)) for text, by in self.judges.items()})
        self.report.say(f"{work.target.name}: {choice.words}")
        work = replace(work, rounding=choice.words)
        return work if choice.compensated else replace(work, plan=stock, neighbours=())

    def _first_state(self, work: Work) -> Refinement:
        plans = tuple(self._scored(file) for file in (work.plan, *work.neighbours))
        return Refinement(plans, tuple(self._scored(file) for file in work.fallbacks))

    def _scored(self, file: EvaluatedFile) -> Scored:
        return _scored(file, self.validation)

    def _round(self, number: int, works: list[Work], table: SensitivityTable) -> list[Work]:
        tables = [table.with_stock_rounding() if work.stock_taken else table for work in works]
        factors = [refine.factors_of(work.request, own, work.state) for work, own in zip(works, tables, strict=True)]
        files = [self._proposed(number, *each) for each in zip(works, factors, tables, strict=True)]
        self.validation.measure([file for file in files if file], self.report, f"refine, round {number}")
        works = [
            replace(work, state=refine.after(work.state, self._scored(file) if file else None, correction))
            for work, file, correction in zip(works, files, factors, strict=True)
        ]
        for work, file in zip(works, files, strict=True):
            self.report.say(reasons.of_round(work.target.name, number, work.state, file is not None))
        self._tidy(works)
        return works

    def _proposed(
        self, number: int, work: Work, factors: refine.Correction, table: SensitivityTable
    ) -> EvaluatedFile | None:
        plan = self.plans.get(
            f"{target_key(work.target)} round {number}{' stock rounding' * work.stock_taken}",
            lambda: refine.proposal(work.request, table, work.state, factors, self.options.speeds),
        )
        name = f"{work.target.name} refined {number}"
        return EvaluatedFile(name, plan, finished=work.target.file) if plan else None

    def _tidy(self, works: Iterable[Work]) -> None:
        """Files that are no longer needed are removed."""
        if not self.options.keep_all:
            self.builds.drop_all_but([file for work in works for file in (work.plan, work.leader, *work.fallbacks)])

    # --- the evaluation text

    def _finish(self, works: list[Work]) -> list[RunResult]:
        files = [file for work in works for file in self._to_evaluate(work)]
        self.evaluation.measure(files, self.report, "evaluate")
        results = [self._result(self._confirmed(work)) for work in works]
        if not self.options.keep_all:
            self.builds.drop_all_but(())
        return results

    def _confirmed(self, work: Work) -> Work:
        """A refined plan that is worse than the plan before on the evaluation text is withdrawn."""
        if not work.state.counts:
            return work
        refined, before = (self.evaluation.measurement(file).kld.value for file in (work.best, work.plan))
        return work if refined <= before else replace(work, state=replace(work.state, withdrawn=True))

    def _to_evaluate(self, work: Work) -> list[EvaluatedFile]:
        """Best plan, the plan before where that is another, and all stock quants."""
        before = [work.plan] if work.best.key != work.plan.key else []
        named = self._stock_files(work.target, self.options.baselines)
        stock_quants = {file.name: file for file in (*work.fallbacks, *named)}
        if not stock_quants:  # for comparison; it is no fallback
            stock_quants = {
                name: EvaluatedFile(name, self.stock_quants.plan(name), name) for name in self.stock_quants.smallest()
            }
        return [work.best, *before, *stock_quants.values()]

    def _result(self, work: Work) -> RunResult:
        files = self._to_evaluate(work)
        measured = {file.name: self.evaluation.measurement(file) for file in files}
        kept, reason = self._kept(work, measured)
        before, gain = None, None
        if work.best.key != work.plan.key:
            before = measured.pop(work.plan.name)
            gain = ratio_interval(measured[work.best.name].per_chunk_kld, before.per_chunk_kld)
        comparison = compare_measurements(list(measured), list(measured.values()))
        self.builds.finish(kept, work.target.file)
        stock_quants = tuple(file.name for file in files if file.ftype)
        own = measured[kept.name]
        reason += reasons.above_target(work.target.request, own)
        reason += f"; {work.rounding}" if work.rounding else ""
        plan = replace(kept.plan, cache=work.plan.plan.cache)
        return RunResult(work.target, plan, kept.name, reason, own, work.state, comparison, stock_quants, before, gain)

    def _kept(self, work: Work, measured: dict[str, Measurement]) -> tuple[EvaluatedFile, str]:
        """The best plan; or the best stock quant that it is not significantly better than on the validation text, or that
        is better at the end.
        """
        best = work.best
        if not work.fallbacks:
            return best, reasons.NO_STOCK_QUANT
        as_good = [
            file for file in work.fallbacks if not refine.significantly_better(work.state.best, self._scored(file))
        ]
        if as_good:
            fallback = min(as_good, key=lambda file: self.validation.measurement(file).kld.value)
            return fallback, reasons.not_better(fallback.name)
        fallback = min(work.fallbacks, key=lambda file: measured[file.name].kld.value)
        if measured[fallback.name].kld.value < measured[best.name].kld.value:
            return fallback, reasons.worse_at_the_end(fallback.name)
        return best, reasons.of_refinement(work.state) if self.options.refine else reasons.AS_SOLVED


def _scored(file: EvaluatedFile, by: Evaluator) -> Scored:
    return Scored(file.name, file.plan, by.measurement(file).per_chunk_kld)
