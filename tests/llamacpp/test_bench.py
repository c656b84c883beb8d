"""llama-bench: its command line, and what is believed of its output."""

import json
from pathlib import Path

import pytest

from quantplan.errors import BadUsage, ToolFailed
from quantplan.execution import Execution
from quantplan.llamacpp.bench import BenchTests, argv, bench, parse

TESTS = [(512, 0), (0, 128)]


def entry(prompt, generation, samples=(100.0, 110.0), **changes):
    mean = sum(samples) / len(samples) if samples else 0.0
    fields = {
        "build_commit": "0c1e570",
        "build_number": 1,
        "cpu_info": "AMD EPYC",
        "backends": "CPU",
        "n_threads": 2,
        "n_prompt": prompt,
        "n_gen": generation,
        "avg_ts": mean,
        "stddev_ts": 5.0,
        "samples_ts": list(samples),
    }
    return json.dumps(fields | changes)


def test_command_line_names_every_test_as_a_pair_and_switches_the_defaults_off():
    words = argv(Path("model.gguf"), [(512, 0), (0, 128), (512, 128)], 3, 2, 0)
    assert words[:3] == ["llama-bench", "-m", "model.gguf"]
    line = " ".join(words)
    assert "-p 0 -n 0 -pg 512,0 -pg 0,128 -pg 512,128" in line
    assert "-o jsonl -r 3 -t 2 -ngl 0" in line


def test_rows_come_in_the_order_they_were_asked_for():
    log = "\n".join(["warning: debug build", entry(0, 128, (10.0, 12.0)), "", entry(512, 0), "done"])
    prompt, generation = parse(log, TESTS, 2)
    assert (prompt.name, prompt.mean, prompt.deviation, prompt.samples) == ("pp512", 105.0, 5.0, (100.0, 110.0))
    assert (generation.name, generation.mean, generation.threads) == ("tg128", 11.0, 2)
    assert generation.stderr == pytest.approx(5.0 / 2**0.5)
    assert prompt.build == "0c1e570 (1)"


def test_combined_test_has_both_in_its_name():
    assert parse(entry(512, 128), [(512, 128)], 2)[0].name == "pp512+tg128"


def test_single_repetition_has_no_error():
    assert parse(entry(512, 0, (100.0,), stddev_ts=0.0), [(512, 0)], 1)[0].stderr is None


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "no result for pp512"),
        (entry(512, 0), "no result for tg128"),
        (entry(512, 0)[:-20] + "\n" + entry(0, 128), "damaged result"),
        (entry(512, 0, (100.0,)) + "\n" + entry(0, 128), "1 of 2 repetitions of pp512"),
        (entry(512, 0, (), avg_ts=100.0) + "\n" + entry(0, 128), "a mean of 100"),
        (entry(512, 0, (0.0, 100.0)) + "\n" + entry(0, 128), "damaged result"),
        (entry(512, 0, (float("nan"), 100.0)) + "\n" + entry(0, 128), "damaged result"),
        (entry(512, 0, avg_ts=float("inf")) + "\n" + entry(0, 128), "damaged result"),
        (entry(512, 0, avg_ts=500.0) + "\n" + entry(0, 128), "a mean of 500"),
        (entry(512, 0, samples_ts=None) + "\n" + entry(0, 128), "damaged result"),
        ('{"n_prompt": 512}\n' + entry(0, 128), "KeyError"),
    ],
)
def test_damaged_output_is_refused(log, reason):
    with pytest.raises(ToolFailed, match=reason):
        parse(log, TESTS, 2)


def test_error_names_the_command():
    with pytest.raises(ToolFailed, match="llama-bench -m x.gguf"):
        parse("", TESTS, 2, "llama-bench -m x.gguf")


def test_nothing_to_test_is_a_mistake():
    with pytest.raises(BadUsage, match="test"):
        bench(Path("model.gguf"), BenchTests((), ()))


@pytest.mark.llamacpp
def test_real_run(reference_model):
    tests = BenchTests((16,), (4,), ((16, 4),))
    rows = bench(reference_model, tests, repetitions=2, execution=Execution(1))
    assert [row.name for row in rows] == ["pp16", "tg4", "pp16+tg4"]
    assert all(row.threads == 1 and len(row.samples) == 2 for row in rows)


@pytest.mark.llamacpp
def test_file_that_is_no_model(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ToolFailed, match="failed to load model"):
        bench(tmp_path / "model.gguf", BenchTests((16,), ()), repetitions=1, execution=Execution(1))
