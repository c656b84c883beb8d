"""What a run is asked for and what it hands over: texts, options, the files that are wanted, how far each has come."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.comparison import Comparison
from quantplan.errors import BadUsage, TextTooShort
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.significance import Ratio
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import imatrix as imatrix_tool
from quantplan.llamacpp.engine import Engine, EngineOptions
from quantplan.measurement import Measurement
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, parse_budget
from quantplan.progress import Reporter
from quantplan.run import refine
from quantplan.run.refine import Refinement
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.tensor import Model

# Half of it teaches, half tests: plans of one size that differ by 1 % are told apart by some 128 windows of 256 tokens
REFINE_TOKENS = 65536


@dataclass(frozen=True)
class Texts:
    """``probing``: imatrix, probe and kernels; ``refinement``: disjoint from it; ``judging``: seen by nothing but the end."""

    probing: str
    refinement: str
    judging: str


@dataclass(frozen=True)
class RunOptions:
    """``measuring``: how the text that judges is read; ``refine_chunks`` 0: as many as make REFINE_TOKENS tokens;
    ``baselines``: stock mixes to measure besides the nearest in size.
    """

    pricing: SensitivityOptions
    measuring: MeasureOptions
    refine_chunks: int = 0
    refine: bool = True
    baselines: tuple[str, ...] = ()
    keep_all: bool = False

    @property
    def refining(self) -> MeasureOptions:
        """How the refinement text is read."""
        chunks = self.refine_chunks or max(refine.LEAST_CHUNKS, REFINE_TOKENS // self.measuring.n_ctx)
        return replace(self.measuring, chunks=chunks)


@dataclass(frozen=True)
class RunTarget:
    """A file that is wanted: ``name`` is that of plan, file and records; its request has a budget."""

    request: PlanRequest
    name: str
    file: Path

    @property
    def budget_bytes(self) -> int:
        budget = parse_budget(self.request)
        if budget is None:
            raise BadUsage("a run needs the size of the file: give --budget")
        return budget.bytes


@dataclass(frozen=True)
class RunResult:
    """What was handed over for a target. ``comparison``: the best plan first, then ``stock_quants``, on the evaluation text.

    ``before``: there, too, the plan before refinement, and ``gain``: KLD of the refined plan over its; None where refinement
    does not count.
    """

    order: RunTarget
    plan: Plan
    kept: str
    reason: str
    measurement: Measurement
    refinement: Refinement
    comparison: Comparison
    stock_quants: tuple[str, ...]
    before: Measurement | None
    gain: Ratio | None

    @property
    def is_stock_quant(self) -> bool:
        return self.kept in self.stock_quants


@dataclass(frozen=True)
class RunStatus:
    """How far an order has come: plans solved so far and how many of them are measured on the refinement text, whether
    some plan was judged at the end, whether the file of one of those is there.
    """

    order: RunTarget
    priced: bool = False
    planned: int = 0
    measured: int = 0
    judged: bool = False
    there: bool = False


def make_imatrix(
    model: Model, text: str, name: str, out: Path, options: imatrix_tool.ImatrixOptions, report: Reporter
) -> Imatrix:
    """llama-imatrix over a text that becomes known as ``name``."""
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8")
        check = lambda part: read_imatrix(part).check_belongs_to(model)  # noqa: E731
        imatrix_tool.make(model.path, file, out, options, report=report, check=check)
    return read_imatrix(out)


def check_texts(model: Model, texts: Texts, n_ctx: int) -> None:
    """TextTooShort, naming the text, where one has too few windows for what is asked of it."""
    asked = (("calibration", texts.probing, 2), ("refinement", texts.refinement, refine.LEAST_CHUNKS))
    with Engine(model.path, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        for name, text, least in (*asked, ("judging", texts.judging, 2)):
            try:
                found = len(engine.chunks(text))
            except TextTooShort:
                found = 0
            if found < least:
                raise TextTooShort(
                    f"the {name} text has {found} windows of {n_ctx} tokens, at least {least} are needed; give more text"
                    f"{' with --refine-text' if name == 'refinement' else ''}, or a smaller --ctx"
                )


def disk_needed(budgets: Sequence[int]) -> tuple[int, int]:
    """Bytes beside the sources: the least that will do, and what keeps every file until nobody asks for it any more.

    The least is one file under trial and those delivered so far; else the plan, its mix, its neighbours and a round's plan.
    """
    return sum(budgets) + max(budgets), sum(budgets) * (2 + 1 + refine.SAMPLED + 1)
