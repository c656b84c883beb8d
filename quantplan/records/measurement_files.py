"""Measurements as JSON: flat figures, each with its error beside it as ``NAME_err``. See docs/formats.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.measurement import PERCENTILES, Conditions, Estimate, Measurement
from quantplan.records.codec import finite, read_record, write_record

MEASUREMENT_FORMAT, MEASUREMENT_VERSION = "quantplan-measurement", 1  # 1: first
_PLAIN = (
    "file",
    "file_bytes",
    "bpw",
    "model_digest",
    "ppl_correlation",
    "kld_chunk_err",
    "kld_median",
    "kld_maximum",
)
_ESTIMATES = ("ppl", "base_ppl", "ln_ppl_ratio", "kld", "delta_p", "rms_dp", "same_top")
_CHUNKS = ("per_chunk_kld", "per_chunk_nll", "per_chunk_base_nll")


def as_fields(measurement: Measurement) -> dict[str, Any]:
    """All of it as JSON values: ``kld`` and ``kld_err``, ``kld_p99_9``; what was not measured is null."""
    content = {name: getattr(measurement, name) for name in ("file", "file_bytes", "bpw")}
    for name in _ESTIMATES:
        estimate = getattr(measurement, name)
        content[name] = finite(estimate.value) if estimate else None
        content[f"{name}_err"] = finite(estimate.stderr) if estimate else None
    content |= {_stored(name): getattr(measurement, name) for name in _PLAIN}
    content |= {_percentile(each): measurement.kld_percentiles[each] for each in PERCENTILES}
    content["conditions"] = {_stored(name): value for name, value in asdict(measurement.conditions).items()}
    content["notes"] = list(measurement.notes)
    return content | {_stored(name): list(getattr(measurement, name)) for name in _CHUNKS}


def from_fields(content: dict[str, Any]) -> Measurement:
    """The measurement that ``as_fields`` wrote; KeyError or TypeError for anything else."""
    estimates = {name: _estimate(content, name) for name in _ESTIMATES}
    return Measurement(
        **{name: content[_stored(name)] for name in _PLAIN},
        **estimates,  # type: ignore[arg-type]
        **{name: tuple(float(each) for each in content[_stored(name)]) for name in _CHUNKS},  # type: ignore[arg-type]
        kld_percentiles={each: content[_percentile(each)] for each in PERCENTILES},
        conditions=Conditions(
            **{name.replace("window", "chunk"): value for name, value in content["conditions"].items()}
        ),
        notes=tuple(content["notes"]),
    )


def write_measurement(measurement: Measurement, path: Path) -> None:
    write_record(path, MEASUREMENT_FORMAT, MEASUREMENT_VERSION, as_fields(measurement))


def read_measurement(path: Path | str) -> Measurement:
    """A measurement as it was written; BadFile where fields are missing."""
    content = read_record(path, MEASUREMENT_FORMAT, MEASUREMENT_VERSION)
    try:
        return from_fields(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: damaged measurement ({type(error).__name__}: {error}); measure again") from None


def _stored(name: str) -> str:
    """The name in the file: format 1 says windows where the code says chunks."""
    return name.replace("chunk", "window")


def _percentile(percent: float) -> str:
    return f"kld_p{percent:g}".replace(".", "_")


def _estimate(content: dict[str, Any], name: str) -> Estimate | None:
    value, error = content[name], content[f"{name}_err"]
    if value is None:
        if name in ("base_ppl", "delta_p"):
            return None
        raise ValueError(f"{name} is missing")
    return Estimate(float(value), None if error is None else float(error))
