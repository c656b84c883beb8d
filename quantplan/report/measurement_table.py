"""Measurements as a table."""

from collections.abc import Sequence

from quantplan.cache_types import F16_CACHE, kv_name
from quantplan.measurement import Conditions, Measurement
from quantplan.report.cells import READ, estimate, number, per_token
from quantplan.report.spikes import spike_lines
from quantplan.report.table import Columns, Table, table_of

# what every table of measurements shows of a file, whatever names it
FIGURES: Columns[Measurement] = (
    ("bpw", lambda file: f"{file.bpw:.3f}"),
    (READ, lambda file: per_token(file.bytes_per_token)),
    ("PPL", lambda file: estimate(file.ppl)),
    ("ln(PPL/base)", lambda file: estimate(file.ln_ppl_ratio)),
    ("KLD", lambda file: estimate(file.kld)),
    ("KLD median", lambda file: number(file.kld_median)),
    ("KLD 99 %", lambda file: number(file.kld_percentiles[99.0])),
    ("RMS Δp %", lambda file: estimate(file.rms_dp)),
    ("Same top %", lambda file: estimate(file.same_top)),
)


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    """One row a file, each figure with its standard error."""
    conditions = measurements[0].conditions
    columns = (("File", lambda file: file.file), ("Bytes", lambda file: f"{file.file_bytes:,}"), *FIGURES)
    title = f"{chunks_of(conditions)}, {conditions.engine}, {conditions.backend}"
    notes = [line for measurement in measurements for line in spike_lines(measurement.file, measurement)]
    return table_of(title, columns, measurements, notes)


def chunks_of(conditions: Conditions) -> str:
    """How the text was run, with the types of the KV cache where they are not llama.cpp's default."""
    cache = "" if conditions.cache_types == kv_name(F16_CACHE) else f", KV cache {conditions.cache_types}"
    return f"{conditions.chunks} chunks of {conditions.n_ctx} tokens{cache}"
