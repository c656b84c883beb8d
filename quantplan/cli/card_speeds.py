"""Tokens per second that `quantplan card` measures itself, where it is told to."""

from collections.abc import Sequence
from pathlib import Path

from quantplan.cli import console
from quantplan.cli.bench_options import BenchOptions
from quantplan.cli.records_output import write_records
from quantplan.devices.speed.llama_bench import measure_speed
from quantplan.evaluate.published_files import PublishedFile
from quantplan.execution import Execution
from quantplan.records.formats import THROUGHPUTS
from quantplan.throughput import Throughput


def measured_speeds(
    files: Sequence[PublishedFile], bench: BenchOptions, execution: Execution, reports: Path | None
) -> list[Throughput]:
    """Of the files that are built, their records kept in ``reports``; nothing where no test is asked for."""
    tests, built = bench.tests, [file.path for file in files if file.path]
    if tests is None or not built:
        return []
    with console.progress("speed") as bar:
        speeds = measure_speed(built, execution, bench.repetitions, tests, bar, console.LINES)
    write_records(reports, speeds, THROUGHPUTS.write, lambda _: "speed")
    return speeds
