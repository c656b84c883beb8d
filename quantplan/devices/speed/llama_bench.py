"""Tokens per second of files through llama-bench. Nothing is kept: a speed holds for the minute it was measured in."""

from collections.abc import Sequence
from pathlib import Path

from quantplan.abilities import check_predicts, check_speed_tests
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.bench import USUAL_TESTS, BenchRow, BenchTests, bench
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.tensor import Model
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput


def measure_speed(
    files: Sequence[Path],
    execution: Execution = Execution(),
    repetitions: int = 5,
    tests: BenchTests = USUAL_TESTS,
    advance: Advance | None = None,
    report: Reporter = SILENT,
) -> list[Throughput]:
    """The tests of each file, by default pp512, tg128 and pp512+tg128. ``advance`` gets shares that add up to 1.

    Raises BadFile, BadUsage for a model that generates no text, ToolFailed, ToolMissing.
    """
    advance = advance or (lambda _share: None)
    models = [read_model(file) for file in files]
    for model in models:
        check_predicts(model)
        check_speed_tests(model, max(map(sum, tests.lengths), default=0))
    speeds = []
    for file, model in zip(files, models, strict=True):
        rows = bench(
            model.path,
            tests,
            repetitions=repetitions,
            execution=execution,
            report=report,
        )
        speeds.append(_throughput(file, model, rows, execution.gpu_layers))
        advance(1 / len(models))
    return speeds


def _throughput(file: Path, model: Model, rows: Sequence[BenchRow], gpu_layers: int) -> Throughput:
    first = rows[0]
    return Throughput(
        file=str(file),
        model_digest=model.digest,
        file_bytes=model.file_bytes,
        tests=tuple(SpeedTest(row.name, row.samples) for row in rows),
        conditions=SpeedConditions(
            processor=first.processor,
            devices=", ".join(filter(None, (first.backend, first.gpu))),
            threads=first.threads,
            gpu_layers=gpu_layers,
            repetitions=len(first.samples),
            llama_cpp=first.build,
        ),
    )
