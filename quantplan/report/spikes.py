"""The chunks where a file breaks, in sentences."""

from collections.abc import Iterator

from quantplan.measurement import Measurement
from quantplan.spikes import Spike, find_spikes

_SHOWN = 3  # of a file; its record has them all


def spikes_of(measurement: Measurement) -> tuple[Spike, ...]:
    """Those of its record, of one that was written before there were any those of its chunks."""
    return measurement.spikes or find_spikes(measurement.per_chunk_kld)


def spike_lines(name: str, measurement: Measurement) -> Iterator[str]:
    """A sentence for each of the worst spikes of a file, and how many more there are."""
    spikes, conditions = spikes_of(measurement), measurement.conditions
    for spike in spikes[:_SHOWN]:
        first = (spike.chunk - 1) * conditions.n_ctx
        line = "" if spike.line is None else f", line {spike.line:,} of {spike.domain or 'the text'}: {spike.words!r}"
        yield (
            f"{name} breaks in chunk {spike.chunk} of {conditions.chunks} (tokens {first:,} to "
            f"{first + conditions.n_ctx - 1:,}{line}): KLD {spike.kld:.3g}, {spike.ratio:.3g} times the median chunk's"
        )
    if len(spikes) > _SHOWN:
        yield f"{name} breaks in {len(spikes) - _SHOWN} more chunks; its record lists them"
