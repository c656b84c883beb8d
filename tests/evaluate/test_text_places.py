"""Where a chunk stands in its text, and that measurements, tables and reports name the chunks where a file breaks."""

from dataclasses import replace

import pytest

from quantplan.evaluate import measure as module
from quantplan.evaluate.compare import compare_measurements
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.text_places import placed
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.records.formats import MEASUREMENTS
from quantplan.report.comparison_tables import comparison_tables
from quantplan.report.measurement_table import measurement_table
from quantplan.report.spikes import spike_lines
from quantplan.spikes import Spike

N_CTX = 64
TEXT = "".join(f"This is line {number} of a text, and nothing else is in it.\n" for number in range(1, 400))


def test_the_line_is_found(reference_model):
    from quantplan.llamacpp.engine import Engine
    from quantplan.llamacpp.loaded_model import EngineOptions

    with Engine(reference_model, EngineOptions(N_CTX, vocabulary_only=True)) as engine:
        tokens = engine.tokenize(TEXT).tolist()
        before = b"".join(engine.piece(token) for token in tokens[: 9 * N_CTX + N_CTX // 2])
    assert TEXT.encode().startswith(before)
    (found,) = placed([Spike(10, 1.0, 9.0)], read_model(reference_model), TEXT, N_CTX)
    assert found.line == before.count(b"\n") + 1 > 20
    assert len(found.words) == 60
    assert " ".join(TEXT[len(before) :].split()).startswith(found.words)


@pytest.fixture
def broken(reference_model, monkeypatch):
    """A measurement in which chunk 10 of 12 breaks."""
    original = module.figures

    def figures(scores, chunks):
        made = original(scores, chunks)
        klds = [0.01 + 0.001 * number for number in range(chunks)]
        klds[9] = 2.0
        return replace(made, per_chunk_kld=tuple(klds), kld=Estimate(sum(klds) / chunks, 0.1))

    monkeypatch.setattr(module, "figures", figures)
    options = MeasureOptions(N_CTX, 12, Execution(1))
    return measure(reference_model, [reference_model], TEXT, options)[0]


def test_measurements_name_the_place(broken, tmp_path):
    (spike,) = broken.spikes
    assert (spike.chunk, spike.kld) == (10, 2.0) and spike.line and spike.words
    MEASUREMENTS.write(broken, tmp_path / "m.json")
    assert MEASUREMENTS.read(tmp_path / "m.json") == broken
    line = (
        f"a.gguf breaks in chunk 10 of 12 (tokens 576 to 639, line {spike.line} of the text: {spike.words!r}): KLD 2, "
    )
    assert list(spike_lines("a.gguf", broken))[0].startswith(line)
    assert any("breaks in chunk 10 of 12" in note for note in measurement_table([broken]).notes)


def test_comparisons_name_it_too(broken):
    tables = comparison_tables(compare_measurements(["a", "b"], [broken, replace(broken, spikes=())]))
    notes = [note for table in tables for note in table.notes if "breaks in chunk 10" in note]
    assert [note.split(" breaks")[0] for note in notes] == ["a", "b"]
    assert "line" in notes[0] and "line" not in notes[1]  # a record from before: its chunks are known, the text is not


def test_the_worst_three_are_told(broken):
    many = replace(broken, spikes=tuple(Spike(number, 3.0 - number / 10, 9.0) for number in range(1, 8)))
    lines = list(spike_lines("a", many))
    assert len(lines) == 4 and lines[-1] == "a breaks in 4 more chunks; its record lists them"
