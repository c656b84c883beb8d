"""Tokens per second as JSON, with the repetitions they come from. See docs/formats.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.records.codec import read_record, write_record
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput

THROUGHPUT_FORMAT, THROUGHPUT_VERSION = "quantplan-throughput", 1  # 1: first
_PLAIN = ("file", "file_bytes", "model_digest")


def as_fields(measured: Throughput) -> dict[str, Any]:
    """JSON values; ``tps`` and ``tps_err`` of a test follow from its ``samples``, which are read back."""
    return {name: getattr(measured, name) for name in _PLAIN} | {
        "tests": [_test(each) for each in measured.tests],
        "conditions": asdict(measured.conditions),
    }


def _test(test: SpeedTest) -> dict[str, Any]:
    return {"name": test.name, "tps": test.speed.value, "tps_err": test.speed.stderr, "samples": list(test.samples)}


def from_fields(content: dict[str, Any]) -> Throughput:
    """What ``as_fields`` wrote; KeyError or TypeError for anything else."""
    return Throughput(
        **{name: content[name] for name in _PLAIN},
        tests=tuple(SpeedTest(each["name"], tuple(map(float, each["samples"]))) for each in content["tests"]),
        conditions=SpeedConditions(**content["conditions"]),
    )


def write_throughput(measured: Throughput, path: Path) -> None:
    write_record(path, THROUGHPUT_FORMAT, THROUGHPUT_VERSION, as_fields(measured))


def read_throughput(path: Path | str) -> Throughput:
    """A measurement as it was written; BadFile where fields are missing."""
    content = read_record(path, THROUGHPUT_FORMAT, THROUGHPUT_VERSION)
    try:
        return from_fields(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: damaged speeds ({type(error).__name__}: {error}); measure again") from None
