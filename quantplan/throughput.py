"""Tokens per second of a file, as llama-bench measures them, with the machine they hold for."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.measurement import Estimate, check_conditions

# Share of a speed by which the same measurement a minute later differs on a quiet machine (measured; see method.md on
# speed): repetitions of one run share whatever the machine did in that minute, so their spread alone promises too much.
RUN_TO_RUN = 0.01


@dataclass(frozen=True)
class SpeedConditions:
    """Everything but the measured file that tokens per second depend on, as far as it can be known."""

    processor: str
    devices: str  # llama-bench's backends and GPUs
    threads: int
    gpu_layers: int
    repetitions: int
    llama_cpp: str


@dataclass(frozen=True)
class SpeedTest:
    """Tokens per second of the repetitions of one test: ``pp512``, ``tg128``, ``pp512+tg128``."""

    name: str
    samples: tuple[float, ...]

    @property
    def speed(self) -> Estimate:
        """Mean and its standard error over the repetitions; None for a single one."""
        mean, count = statistics.fmean(self.samples), len(self.samples)
        return Estimate(mean, statistics.stdev(self.samples) / math.sqrt(count) if count > 1 else None)


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One file's speeds."""

    file: str
    model_digest: str
    file_bytes: int
    tests: tuple[SpeedTest, ...]
    conditions: SpeedConditions


def check_same_machine(measured: Sequence[Throughput]) -> None:
    """ConditionsDiffer unless all were measured on the same machine in the same way."""
    check_conditions([(f"speed of {each.file}", each.conditions) for each in measured], "measure --speed")
