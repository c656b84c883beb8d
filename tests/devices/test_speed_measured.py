"""Measuring speed: what is timed, what is taken from the journal, and the check against llama-bench."""

import math
from dataclasses import replace

import pytest
from model_parts import model_of
from reporters import Recorder
from speed_parts import DENSE, dense_table, types_of
from tiny_models import tiny_moe

from quantplan.devices.speed import matmul, overhead
from quantplan.devices.speed import measure as speeding
from quantplan.devices.speed.measure import (
    SpeedOptions,
    check_against_bench,
    pending,
    speed_table,
    tasks,
)
from quantplan.devices.speed.overhead import block_counts
from quantplan.devices.speed.table import GENERATION, PROMPT, Shape, products
from quantplan.errors import BadUsage, ModelMismatch
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.bench import BenchRow
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME, parse_types

Q4, Q8, Q4_K, F16 = (BY_NAME[name] for name in ("Q4_0", "Q8_0", "Q4_K", "F16"))
OPTIONS = SpeedOptions(Execution(1), repetitions=1)


@pytest.fixture
def moments(monkeypatch):
    """Timings of a few milliseconds: these tests look at what is done, not at the figures."""
    monkeypatch.setattr(matmul, "SECONDS", 0.005)
    monkeypatch.setattr(matmul, "PASS_BYTES", 1 << 19)
    monkeypatch.setattr(matmul, "PASS_PRODUCTS", 1 << 22)


# --- without llama.cpp


def test_tasks_are_types_and_stored_types_in_every_shape_at_both_batches():
    model = model_of({"token_embd.weight": (256, 100), "blk.0.attn_q.weight": (256, 64), "output.weight": (256, 100)})
    found = {
        (task.quant_type.name, str(task.shape), task.batch)
        for task in tasks(model, products(model, model.tensors), (Q8,))
    }
    shapes = ("256x64", "256x100")
    kinds = ("Q8_0", "F16", "Q4_0")  # asked for, stored, and that of the synthetic models
    assert found == {(kind, shape, batch) for kind in kinds for shape in shapes for batch in (GENERATION, PROMPT)}


def test_fallback_is_timed_where_rows_do_not_fit():
    model = model_of({"token_embd.weight": (96, 100), "blk.0.attn_q.weight": (96, 64), "output.weight": (96, 100)})
    kinds = {task.quant_type.name for task in tasks(model, products(model, model.tensors), (Q4_K,))}
    assert kinds == {"Q5_0", "F16", "Q4_0"}


def test_working_set_is_the_model_or_more_than_the_caches(monkeypatch):
    monkeypatch.setattr(speeding, "last_level_cache", lambda: 0)
    small = model_of({"token_embd.weight": (256, 100), "blk.0.attn_q.weight": (256, 64), "output.weight": (256, 100)})
    found = tasks(small, products(small, small.tensors), (Q8,))
    assert {task.working_set for task in found if task.quant_type == Q8} == {(64 + 100) * Q8.row_bytes(256)}
    large = model_of(
        {"token_embd.weight": (4096, 100), "blk.0.ffn_up.weight": (4096, 1 << 18), "output.weight": (4096, 64)}
    )
    found = tasks(large, products(large, large.tensors), (Q8,))
    assert {task.working_set for task in found} == {256 << 20}
    monkeypatch.setattr(speeding, "last_level_cache", lambda: 300 << 20)
    found = tasks(large, products(large, large.tensors), (Q8,))
    assert {task.working_set for task in found if task.quant_type == Q8} == {600 << 20}


def test_blocks_of_synthetic_models():
    blocks = {f"blk.{index}.ffn_up.weight": (4096, 16384) for index in range(20)}
    types = dict.fromkeys(blocks, Q8)
    model = model_of(blocks, blocks=20)
    assert block_counts(model, types) == (2, 5)  # 71 MB a block
    assert block_counts(replace(model, blocks=3), types) == (1, 3)
    assert block_counts(replace(model, blocks=1), types) == (1,)
    huge = model_of({f"blk.{index}.ffn_up.weight": (4096, 1 << 18) for index in range(4)}, blocks=4)
    assert block_counts(huge, {}) == (1, 2)


def test_line_through_two_sizes_by_hand():
    line = overhead.overhead_line({2: Estimate(300.0, 3.0), 4: Estimate(500.0, 4.0)}, 6)
    assert (line.fixed, line.per_block, line.of(6)) == (100.0, 100.0, 700.0)
    assert line.stderr == pytest.approx(math.hypot(2 * 4.0, 3.0))
    assert overhead.overhead_line({2: Estimate(300.0, 3.0), 4: Estimate(500.0, 4.0)}, 4).stderr == 4.0


def test_part_of_the_blocks_on_a_gpu_is_refused():
    model = model_of({"output.weight": (64, 64)}, blocks=10)
    for layers in (-1, 1, 10):
        with pytest.raises(BadUsage, match="gpu-layers"):
            speeding.check_layers(model, SpeedOptions(Execution(gpu_layers=layers)))
    speeding.check_layers(model, SpeedOptions(Execution(gpu_layers=11)))


def test_the_faster_of_two_timings_counts(tmp_path):
    from quantplan.records.cache import Cache, Plain

    task = speeding.TimingTask(Q8, Shape(256, 64), GENERATION, 1 << 20)
    journal = Cache(Plain(), tmp_path, "speed")
    for batch in (GENERATION, PROMPT):
        for key, ns in zip(replace(task, batch=batch).keys, (3.0 * batch, 2.0 * batch), strict=True):
            journal.put(key, {"ns": ns, "stderr": 0.0})
    (found,) = speeding.best_speeds([task, replace(task, batch=PROMPT)], journal)
    assert (found.generation.value, found.prompt.value) == (2.0, 2.0 * PROMPT)
    assert found.generation.stderr == pytest.approx(0.01 * 2.0)


def test_synthetic_models_of_killed_processes_are_removed(tmp_path):
    import os
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead, alive = tmp_path / f"synthetic-{process.pid}-abc", tmp_path / f"synthetic-{os.getpid()}-abc"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "synthetic.gguf").write_bytes(b"x")
    overhead.remove_orphans(tmp_path)
    assert (dead.exists(), alive.exists()) == (False, True)


# --- with it


@pytest.mark.llamacpp
def test_figures_are_positive_and_the_second_call_measures_nothing(reference_model, tmp_path, moments, monkeypatch):
    model = read_model(reference_model)
    report = Recorder()
    table = speed_table(model, (Q4_K, Q8), OPTIONS, tmp_path, report)
    for speed in table.speeds:
        for figure in (speed.generation, speed.prompt):
            assert 0 < figure.value < 1e6
            assert 0 < figure.stderr < math.inf
    for kind in (Q4_K, Q8, F16):
        for batch in (GENERATION, PROMPT):
            speed = table.tokens_per_second(overhead.uniform_types(table, kind), batch)
            assert 0 < speed.value < math.inf
            assert 0 < speed.stderr < math.inf
    assert {stage for stage, *_ in report.events} == {"speed of matrix products", "speed of synthetic models"}
    assert list(tmp_path.glob("synthetic-*")) == []

    def measured_again(*_arguments, **_options):
        raise AssertionError("what is in the journal was measured again")

    monkeypatch.setattr(matmul, "time_product", measured_again)
    monkeypatch.setattr(overhead, "bench", measured_again)
    again = Recorder(measured_again)
    assert speed_table(model, [Q4_K, Q8], OPTIONS, tmp_path, again) == table
    with pytest.raises(AssertionError):
        speed_table(model, [Q4_K, Q8], replace(OPTIONS, again=True), tmp_path)
    with pytest.raises(AssertionError):
        speed_table(model, [Q4_K, Q8], replace(OPTIONS, execution=Execution(2)), tmp_path)


@pytest.mark.llamacpp
def test_interrupted_measurement_goes_on(reference_model, tmp_path, moments, monkeypatch):
    model, timed = read_model(reference_model), matmul.time_product
    calls = []

    def interrupted(kind, shape, load):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(kind)
        return timed(kind, shape, load)

    monkeypatch.setattr(matmul, "time_product", interrupted)
    with pytest.raises(KeyboardInterrupt):
        speed_table(model, [Q8], OPTIONS, tmp_path)
    todo, known = pending(model, (Q8,), OPTIONS, tmp_path)
    assert known == 3
    runs = 2 * 3  # of llama-bench: two sizes, three turns
    assert todo + known - runs == 2 * len(tasks(model, products(model, speeding.quantizable(model)), (Q8,)))


@pytest.mark.llamacpp
def test_experts_that_a_token_meets_count(tmp_path, moments):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    table = speed_table(model, [Q8], OPTIONS, tmp_path)
    experts = Shape(256, 256, 8, 2)
    assert table.products["blk.0.ffn_up_exps.weight"].shape == experts
    rate = table.speed(Q8, experts).generation.value
    assert table.tensor_ns("blk.0.ffn_up_exps.weight", Q8, GENERATION) == pytest.approx(rate * 2 * 256 * 256)


@pytest.mark.llamacpp
def test_check_runs_llama_bench_on_the_file(reference_model, tmp_path, moments):
    model = read_model(reference_model)
    table = speed_table(model, [Q8], OPTIONS, tmp_path)
    prompt, generation = check_against_bench(table, model, OPTIONS)
    assert (prompt.test, generation.test) == ("pp512", "tg128")
    for row, batch in ((prompt, PROMPT), (generation, GENERATION)):
        assert row.predicted == table.tokens_per_second({}, batch)
        assert row.ratio == row.predicted.value / row.measured.mean
    with pytest.raises(ModelMismatch, match="was not made from"):
        check_against_bench(table, read_model(tiny_moe(tmp_path / "moe.gguf")), OPTIONS)


def test_check_compares_each_test_with_its_own_prediction(reference_model):
    """Figures of the tool are given here, so the ratios are exact."""
    table, built = dense_table(), model_of(DENSE, kind="Q4_0")
    expected = {batch: table.tokens_per_second(types_of(Q4), batch).value for batch in (PROMPT, GENERATION)}
    rows = [
        BenchRow(512, 0, expected[PROMPT] / 2, 0.0, (1.0,), 2, "", "", ""),
        BenchRow(0, 128, expected[GENERATION] * 4, expected[GENERATION], (1.0,), 2, "", "", ""),
    ]
    found = check_against_bench(table, built, OPTIONS, run=lambda *_arguments, **_options: rows)
    assert [row.ratio for row in found] == pytest.approx([2.0, 0.25])
    assert [row.disturbed for row in found] == [False, True]


def test_types_of_the_command_line_are_all_timed():
    model = model_of({"token_embd.weight": (256, 64), "blk.0.attn_q.weight": (256, 64), "output.weight": (256, 64)})
    kinds = {task.quant_type for task in tasks(model, products(model, model.tensors), parse_types("all"))}
    assert kinds == set(parse_types("all"))
