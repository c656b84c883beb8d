"""Tasks in processes of this machine and of a Dask cluster: all results, and what becomes of workers that die."""

import os
import re
import signal

import psutil
import pytest
from distributed import LocalCluster

from quantplan.errors import QuantplanError
from quantplan.execution import Execution
from quantplan.parallel import worker_pool
from quantplan.parallel.worker_pool import Lost, WorkerPool, shortened

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")


def times(job, item):
    return job * item, os.getpid()


def refuses(job, item):
    if item == 3:
        raise QuantplanError(f"{job}: not the {item}")
    return item


def poison(job, item):
    """Kills every process that touches 3."""
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def poison_once(job, item):
    """Kills the first process that touches 3."""
    if item == 3 and not job.exists():
        job.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two worker processes with one core each."""
    settings = {"dashboard_address": ":0", "scheduler_kwargs": {"allowed_failures": 0}}
    with LocalCluster(n_workers=2, threads_per_worker=1, **settings) as found:
        yield found


@pytest.fixture(params=["jobs", "scheduler"])
def execution(request):
    if request.param == "jobs":
        return Execution(jobs=2)
    return Execution(scheduler=request.getfixturevalue("cluster").scheduler_address)


def test_all_results_from_other_processes(execution):
    with WorkerPool(execution) as pool:
        assert pool.size == 2
        found = {item: result for item, result in pool.run(times, 10, [1, 2, 3, 4])}
    assert {item: value for item, (value, _) in found.items()} == {1: 10, 2: 20, 3: 30, 4: 40}
    assert os.getpid() not in {pid for _, pid in found.values()}
    with WorkerPool(execution) as pool:  # a single task is no reason to do it here
        ((_, (_, pid)),) = pool.run(times, 1, [1])
    assert pid != os.getpid()


def test_what_a_task_raises(execution):
    with WorkerPool(execution) as pool, pytest.raises(QuantplanError, match="tell: not the 3"):
        list(pool.run(refuses, "tell", [1, 2, 3, 4]))


def test_a_task_that_kills_its_workers_is_named_after_the_rest(execution):
    found = []
    with WorkerPool(execution) as pool, pytest.raises(Lost) as caught:
        for item, _ in pool.run(poison, None, [1, 2, 3, 4, 5, 6]):
            found.append(item)
    assert sorted(found) == [1, 2, 4, 5, 6] and caught.value.items == [3]
    assert re.search("(died|lost a worker) 2 times", caught.value.reason)


def test_work_of_a_dead_worker_is_done_by_another(execution, tmp_path):
    with WorkerPool(execution) as pool:
        found = [item for item, _ in pool.run(poison_once, tmp_path / "dead", [1, 2, 3, 4, 5, 6])]
    assert sorted(found) == [1, 2, 3, 4, 5, 6] and (tmp_path / "dead").exists()


def test_no_process_is_left():
    with WorkerPool(Execution(jobs=2)) as pool:
        pids = {pid for _, (_, pid) in pool.run(times, 1, [1, 2, 3])}
    assert pids and not any(psutil.pid_exists(pid) for pid in pids)


def test_another_version_is_refused(execution, monkeypatch):
    monkeypatch.setattr(worker_pool, "versions", lambda: {"quantplan": "0.0.1", "llama-cpp-python": "0.0.2"})
    with (
        WorkerPool(execution) as pool,
        pytest.raises(QuantplanError, match=r"has quantplan .* instead of 0.0.1, llama-cpp"),
    ):
        list(pool.run(times, 1, [1]))


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr(worker_pool, "cores", lambda: 9)
    with WorkerPool(Execution(jobs=4)) as pool:
        assert (pool.threads(0), pool.threads(3)) == (2, 3)
    with WorkerPool(Execution(jobs=20)) as pool:
        assert pool.threads(0) == 1


# -- clusters alone


def test_a_cluster_without_workers(monkeypatch):
    monkeypatch.setattr(worker_pool, "PATIENCE_SECONDS", 1.0)
    found = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        WorkerPool(Execution(scheduler=cluster.scheduler_address)) as pool,
        pytest.raises(Lost, match="no worker came within 1 s") as caught,
    ):
        for item, _ in pool.run(times, 1, list(range(500))):
            if not found:
                cluster.scale(0)
            found.append(item)
    assert found and sorted(found + caught.value.items) == list(range(500))


def test_no_scheduler_there(monkeypatch):
    monkeypatch.setattr(worker_pool, "CONNECT_SECONDS", 1)
    with pytest.raises(QuantplanError, match="no Dask scheduler answers at tcp://127.0.0.1:1; start one"):
        WorkerPool(Execution(scheduler="tcp://127.0.0.1:1"))


def test_a_few_names_and_how_many_more():
    assert shortened(list("abc")) == "a, b, c"
    assert shortened(list("abcdefg")) == "a, b, c, d, e and 2 more"
