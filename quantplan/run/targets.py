"""What a run makes and from what: targets, texts, options, results."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.comparison import Comparison
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage, TextTooShort
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.significance import Ratio
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import imatrix as imatrix_tool
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.measurement import Measurement
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, parse_budget
from quantplan.progress import Reporter
from quantplan.run import refine
from quantplan.run.refine import Refinement
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.tensor import Model
from quantplan.text import Domains, SpecialText, Text, content, undivided

# Half of it corrects, half tests: about 128 chunks of 256 tokens tell whether 1 % between two plans is significant
REFINE_TOKENS = 65536


@dataclass(frozen=True)
class Texts:
    """``calibration``: imatrix, probe and activation quantization; ``validation``: refinement; ``evaluation``: the end alone.

    ``other_domain``: where compensated rounding must be better too; may be empty.
    """

    calibration: Text
    validation: Text
    evaluation: Text
    other_domain: Text = ""


@dataclass(frozen=True)
class RunOptions:
    """``measuring``: how the evaluation text is read; ``refine_chunks`` 0: as many as make REFINE_TOKENS tokens;
    ``baselines``: stock quants to measure besides the nearest in size; ``speeds``: needed where a target has ``least_tps``;
    ``source``: of the sensitivities, as ``sensitivities`` takes it.
    """

    pricing: SensitivityOptions
    measuring: MeasureOptions
    refine_chunks: int = 0
    refine: bool = True
    baselines: tuple[str, ...] = ()
    keep_all: bool = False
    speeds: SpeedTable | None = None
    source: str = "probe"

    @property
    def refining(self) -> MeasureOptions:
        """How the validation text is read."""
        chunks = self.refine_chunks or max(refine.LEAST_CHUNKS, REFINE_TOKENS // self.measuring.n_ctx)
        return replace(self.measuring, chunks=chunks)


@dataclass(frozen=True)
class RunTarget:
    """A file to make: ``name`` is that of plan, file and records. BadUsage for a request without any limit.

    ``caches``: the types of the KV cache are chosen with those of the weights.
    """

    request: PlanRequest
    name: str
    file: Path
    caches: CacheSensitivity | None = None

    def __post_init__(self) -> None:
        if not self.request.limited:
            raise BadUsage("nothing limits the file: give --budget, --max-kld, --vram or --min-tps")

    @property
    def budget_bytes(self) -> int | None:
        budget = parse_budget(self.request)
        return None if budget is None else budget.bytes


@dataclass(frozen=True)
class RunResult:
    """What was made of a target. ``comparison``: the best plan first, then the ``stock_quants``, on the evaluation text.

    ``before``: the plan before refinement on that text, and ``gain``: KLD of the refined plan over its; None where refinement
    does not count.
    """

    target: RunTarget
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
    """How far a target has come: plans solved so far and how many of them are measured on the validation text, whether
    some plan was measured on the evaluation text, whether the file of one of those exists.
    """

    target: RunTarget
    has_table: bool = False
    planned: int = 0
    measured: int = 0
    evaluated: bool = False
    file_exists: bool = False


def make_imatrix(
    model: Model, text: Text, name: str, out: Path, options: imatrix_tool.ImatrixOptions, report: Reporter
) -> Imatrix:
    """llama-imatrix over a text that becomes known as ``name``; domains are joined."""
    text = undivided(text)
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        file = Path(folder) / name
        # the tool drops one newline at the end
        end = "\n" if isinstance(text, SpecialText) else ""
        file.write_bytes((content(text) + end).encode("utf-8", "surrogateescape"))
        imatrix_tool.make(
            model,
            file,
            out,
            replace(options, parse_special=isinstance(text, SpecialText)),
            report=report,
            check=lambda part: read_imatrix(part).check_belongs_to(model),
        )
    return read_imatrix(out)


def check_texts(model: Model, texts: Texts, n_ctx: int) -> None:
    """TextTooShort, naming the text, where one has too few chunks; of domains each needs two."""
    needed = (
        ("calibration", texts.calibration, 2),
        ("validation", texts.validation, refine.LEAST_CHUNKS),
        ("evaluation", texts.evaluation, 2),
        *([("other domain's", texts.other_domain, 2)] if texts.other_domain else []),
    )
    with Engine(model, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        for name, text, least in needed:
            try:
                chunks = len(engine.chunks(text))
            except TextTooShort as error:
                if isinstance(text, Domains):
                    raise TextTooShort(f"{name} text: {error}") from None
                chunks = 0
            if chunks < least:
                raise TextTooShort(
                    f"the {name} text has {chunks} chunks of {n_ctx} tokens, at least {least} are needed; give more text"
                    f"{' with --validation' if name == 'validation' else ''}, or a smaller --ctx"
                )


def disk_needed(targets: Sequence[RunTarget]) -> tuple[int, int]:
    """Bytes besides the sources: the least that will do, and what keeps every file until it is no longer needed.

    The least is one file to measure and the finished ones; else the plan, its stock quant, its neighbours and a round's plan.
    Without a budget a file counts as large as its source.
    """
    sizes = [target.budget_bytes or target.request.model.file_bytes for target in targets]
    return sum(sizes) + max(sizes), sum(sizes) * (2 + 1 + refine.SAMPLED + 1)
