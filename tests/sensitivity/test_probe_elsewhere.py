"""Probes and measurements by other processes: the numbers of this one to the last bit, whoever dies on the way."""

import os
import signal
from dataclasses import replace

import psutil
import pytest
from distributed import LocalCluster
from reporters import Recorder
from rpc_server import rpc_server

from quantplan.errors import BadFile, BadUsage, ModelMismatch, QuantplanError, WorkersLost
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import Recipe, quantize
from quantplan.llamacpp.tools import run as run_tool
from quantplan.parallel import worker_pool
from quantplan.progress import SILENT
from quantplan.quant_type import parse_types
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import Journal
from quantplan.sensitivity import probe_workers
from quantplan.sensitivity.activation_quantization import activation_quantization
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.probe import probe
from quantplan.sensitivity.probe_workers import ProbeJob, ProbeWorkers, model_here
from quantplan.sensitivity.tensor_swap import TensorSwapper

pytestmark = [
    pytest.mark.llamacpp,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system"),
]
NAMES = (
    "blk.0.attn_q.weight",
    "blk.0.attn_v.weight",
    "blk.0.ffn_down.weight",
    "blk.1.ffn_up.weight",
    "blk.1.attn_output.weight",
    "token_embd.weight",
)


@pytest.fixture(scope="module")
def small(case, tmp_path_factory):
    """The case with few tensors and an imatrix in a file: workers read it themselves."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "text.txt").write_text(case.text, encoding="utf-8")
    words = ["-m", case.model.path, "-f", folder / "text.txt", "-o", folder / "i.gguf", "-c", "128", "-t", "1"]
    run_tool(["llama-imatrix", *map(str, words), "--no-ppl", "--chunks", "4"])
    options = replace(case.options, chunks=0, extend=True)
    tensors = tuple(case.model.by_name[name] for name in NAMES)
    return replace(case, imatrix=read_imatrix(folder / "i.gguf"), options=options, tensors=tensors)


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    """What this process finds, and its journal."""
    folder = tmp_path_factory.mktemp("alone")
    return run(small, folder, Execution(1)), folder


def run(small, folder, execution, report=SILENT):
    options = replace(small.options, execution=execution)
    return probe(
        small.model, small.tensors, small.imatrix, small.text, options, Cache(Plain(), folder, "probe"), report
    )


def same(found, straight):
    assert (found.scales, found.floor, found.uniform) == (straight.scales, straight.floor, straight.uniform)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found


@pytest.fixture(params=["jobs", "scheduler"])
def execution(request):
    if request.param == "jobs":
        return Execution(1, jobs=2)
    return Execution(1, scheduler=request.getfixturevalue("cluster").scheduler_address)


def kill_a_worker(pids):
    """A reporter that kills a process after the second tensor, once."""
    killed = []

    def tell(_stage, done, _total):
        if done >= 2 and not killed:
            killed.append(next(iter(pids())))
            os.kill(killed[0], signal.SIGKILL)

    return Recorder(tell), killed


def worker_pids(execution, request):
    if execution.jobs > 1:
        earlier = {process.pid for process in psutil.Process().children()}
        return lambda: [
            process.pid
            for process in psutil.Process().children()
            if process.pid not in earlier and "spawn_main" in "".join(process.cmdline())
        ]
    return lambda: [worker.process.pid for worker in request.getfixturevalue("cluster").workers.values()]


def test_a_probe_by_two_workers(small, alone, tmp_path, execution):
    found = run(small, tmp_path, execution)
    same(found, alone[0])
    assert found.forward_passes == alone[0].forward_passes and found.overhead > 0
    assert Journal(tmp_path, "probe").results == Journal(alone[1], "probe").results


def test_a_worker_that_is_killed_in_the_middle(small, alone, tmp_path, execution, request):
    report, killed = kill_a_worker(worker_pids(execution, request))
    same(run(small, tmp_path, execution, report), alone[0])
    assert killed


def test_what_is_lost_is_named_and_done_later(small, alone, tmp_path, monkeypatch):
    """A task dies whenever it runs: all others are done, and the next run does this one alone."""
    doomed = small.tensors[2].name
    monkeypatch.setattr(probe_workers, "swaps_in_worker", deadly)
    monkeypatch.setattr(worker_pool, "MOST_TOGETHER", 1)
    monkeypatch.setenv("DEADLY_TENSOR", doomed)
    with pytest.raises(WorkersLost, match=f"Not probed: {doomed}; 5 of 6 tensors are done and kept"):
        run(small, tmp_path, Execution(1, jobs=2))
    kept = Journal(tmp_path, "probe").results
    assert {t.name for t in small.tensors} - kept.keys() == {doomed}
    monkeypatch.undo()
    later = run(small, tmp_path, Execution(1, jobs=2))
    same(later, alone[0])
    assert later.forward_passes < alone[0].forward_passes


def deadly(job, swaps):
    """A worker's task that ends its process at the tensor which the environment names."""
    if any(os.environ["DEADLY_TENSOR"] in swap.tensors for swap in swaps):
        os.kill(os.getpid(), signal.SIGKILL)
    return _honest(job, swaps)


_honest = probe_workers.swaps_in_worker


def test_nobody_to_make_the_survey(small, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "PATIENCE_SECONDS", 1.0)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(WorkersLost, match="no worker came within 1 s. Not probed: .*; 0 of 6 tensors are done"),
    ):
        run(small, tmp_path, Execution(1, scheduler=empty.scheduler_address))


def test_a_corrupt_line_is_made_again(small, alone, tmp_path):
    journal = Journal(alone[1], "probe")
    lines = journal.path.read_bytes().split(b"\n")
    name = small.tensors[3].name
    altered = [line.replace(b'"klds": [0', b'"klds": [1') if f'["{name}"'.encode() in line else line for line in lines]
    assert altered != lines
    (tmp_path / journal.path.name).write_bytes(b"\n".join(altered))
    again = run(small, tmp_path, Execution(1, jobs=2))
    same(again, alone[0])
    assert again.forward_passes >= 1


# -- what a worker refuses


def job_of(small, **changed):
    job = ProbeJob(
        small.model.path, small.model.digest, small.imatrix.path, small.imatrix.digest, small.text, small.options
    )
    return replace(job, **changed)


def test_a_worker_that_finds_other_files(small, tmp_path, reference_model):
    with pytest.raises(BadFile, match=r"on the worker .*nothing.gguf: .*same files under the same paths"):
        model_here(tmp_path / "nothing.gguf", small.model.digest)
    with pytest.raises(ModelMismatch, match="on the worker .* is another model"):
        model_here(reference_model, small.model.digest)
    with pytest.raises(ModelMismatch, match="on the worker .* is another imatrix"):
        probe_workers.load(job_of(small, imatrix_digest="0"))
    with pytest.raises(BadFile, match="on the worker .*i.dat"):
        probe_workers.load(job_of(small, imatrix=tmp_path / "i.dat"))


def test_its_error_reaches_the_user(small, tmp_path, execution):
    moved = tmp_path / "moved.gguf"
    moved.write_bytes(small.model.path.read_bytes())
    model = read_model(moved)
    moved.unlink()
    with pytest.raises(BadFile, match="on the worker .*moved.gguf"):
        run(replace(small, model=model), tmp_path, execution)


def test_processes_that_memory_does_not_hold(small, monkeypatch):
    monkeypatch.setattr(probe_workers.psutil, "virtual_memory", lambda: type("", (), {"available": 13_000_000})())
    with pytest.raises(BadUsage, match="--jobs 3: each process holds the model, .* use fewer, at most 2"):
        ProbeWorkers(small.model, None, small.text, replace(small.options, execution=Execution(1, jobs=3)))


def test_a_worker_keeps_one_model_between_tasks(small, monkeypatch):
    loaded = []
    monkeypatch.setattr(probe_workers, "load", lambda job: loaded.append(job) or TensorSwapper(*parts(small)))
    kept = probe_workers.KeptModel()
    first, second = job_of(small), job_of(small, text=small.text + " ")
    for job in (first, first, second):
        with kept as turn:
            turn.swapper(job)
    assert loaded == [first, second]
    with pytest.raises(QuantplanError), kept:
        raise QuantplanError("a task failed: whatever it left in memory is not believed")
    with kept as turn:
        turn.swapper(second)
        kept.release()
    assert loaded == [first, second, second]


def parts(small):
    return small.model, small.imatrix, small.text, small.options


# -- RPC


@pytest.fixture(scope="module")
def pricing(small):
    def options(execution):
        probing = replace(small.options, chunks=16, extend=False, execution=execution)
        return SensitivityOptions(parse_types("k,Q8_0"), probing, sample_elements=1 << 14, compensate=False)

    return options


def table(small, pricing, folder, execution, report=SILENT):
    options = pricing(execution)
    return price(small.model, small.tensors, small.imatrix, small.text, options, folder, report).table


def test_a_server_that_dies_and_comes_back(small, pricing, tmp_path):
    """The command ends with what is missing, nothing that was done is lost, and the table is that of this process."""
    here = table(small, pricing, tmp_path / "here", Execution(1))
    with rpc_server() as server:
        execution = Execution(1, rpc=(server.address,))

        def tell(stage, done, _total):
            if stage == "probe" and done == 3:
                server.kill()

        with pytest.raises(
            WorkersLost, match=f"the RPC server {server.address} went away. Not probed: .*; 3 of 6 tensors"
        ) as e:
            table(small, pricing, tmp_path / "there", execution, Recorder(tell))
    assert e.value.exit_code == 13
    (kept,) = (tmp_path / "there").glob("probe-*.jsonl")
    names = {t.name for t in small.tensors}
    assert sum(name in kept.read_text() for name in names) == 3
    with rpc_server(int(server.address.rsplit(":", 1)[1])):
        report = Recorder()
        there = table(small, pricing, tmp_path / "there", execution, report)
    assert [done for stage, done, _ in report.events if stage == "probe"][:2] == [3, 4]
    assert (there.rows, there.interaction) == (here.rows, here.interaction)
    assert (here.backend, there.backend) == ("cpu", f"RPC[{server.address}]")
    assert table(small, pricing, tmp_path / "there", execution).rows == here.rows  # from the cache: nobody listens now


def test_kernels_unlike_the_cpus_are_left_out(small, pricing, tmp_path, monkeypatch):
    from quantplan.sensitivity import activation_quantization as kernel

    monkeypatch.setattr(kernel.rpc, "rounds_like_the_cpu", lambda _servers: False)
    journal = Cache(Plain(), tmp_path, "kernel")
    given = (small.model, small.tensors, small.text, 128)
    assert not kernel.known(journal)
    assert kernel.on_servers(*given, Execution(1, rpc=("a:1",)), journal) is None
    assert kernel.known(Cache(Plain(), tmp_path, "kernel"))
    assert activation_quantization(*given, Execution(1), journal).backend == "cpu"


# -- measurements


@pytest.fixture(scope="module")
def files(small):
    """The model in two types."""
    found = []
    for kind in ("Q8_0", "Q4_K"):
        found.append(small.model.path.with_name(f"measured-{kind}.gguf"))
        quantize(small.model.path, Recipe(kind, pure=True), found[-1], threads=1)
    return found


OPTIONS = MeasureOptions(n_ctx=128, chunks=16, execution=Execution(1))


@pytest.fixture(scope="module")
def measured(small, files):
    return measure(small.model.path, files, small.text, OPTIONS)


def test_measurements_by_two_workers(small, files, measured, execution, tmp_path):
    shares = []
    options = replace(OPTIONS, execution=execution)
    found = measure(small.model.path, files, small.text, options, shares.append, tmp_path)
    assert found == measured
    assert sum(shares) == pytest.approx(1)
    assert measure(small.model.path, files, small.text, OPTIONS, None, tmp_path) == found


def test_measurements_on_a_server(small, files, measured, tmp_path):
    """The base to the last bit; quantized files nearly: here llama.cpp repacks their weights, the server does not."""
    with rpc_server() as server:
        options = replace(OPTIONS, execution=Execution(1, rpc=(server.address,)))
        found = measure(small.model.path, files, small.text, options, None, tmp_path)
        own = measure(small.model.path, [small.model.path], small.text, options)[0]
    assert own.kld.value == 0 and own.base_ppl == measured[0].base_ppl
    for there, here in zip(found, measured, strict=True):
        assert there.conditions.backend == f"RPC[{server.address}]"
        assert there.base_ppl == here.base_ppl
        assert there.kld.value == pytest.approx(here.kld.value, rel=0.01)


def test_a_server_that_dies_between_two_files(small, files, tmp_path):
    with rpc_server() as server:
        options = replace(OPTIONS, execution=Execution(1, rpc=(server.address,)))
        shares = []

        def advance(share):
            shares.append(share)
            if sum(shares) > 0.7:  # the base and the first file are through
                server.kill()

        with pytest.raises(WorkersLost, match="went away. Not measured: .*measured-Q4_K.gguf; finished files are kept"):
            measure(small.model.path, files, small.text, replace(options, n_ctx=64, chunks=64), advance, tmp_path)
    (kept,) = tmp_path.glob("measure-*.jsonl")
    assert "Q8_0" in kept.read_text() and "Q4_K" not in kept.read_text()
