"""Where models are run: in this process, in several here, by the workers of a Dask cluster, or on the devices of RPC servers."""

import os
import re
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage

_SCHEDULER = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")
_ENDPOINT = re.compile(r"[^\s:,/]+:\d{1,5}")


@dataclass(frozen=True)
class Execution:
    """How models are run; only ``gpu_layers`` and ``rpc`` change results, through the kernels of the backend.

    ``threads``: of each process, 0 for all cores. ``gpu_layers``: offloaded layers. ``jobs``: processes on this machine;
    ``scheduler``: address of a Dask scheduler; ``rpc``: servers, host:port each. ``memory``: bytes that sums of second moments
    may take, 0 for half of what is free; the model and its buffers come on top.
    """

    threads: int = 0
    gpu_layers: int = 0
    jobs: int = 1
    scheduler: str | None = None
    rpc: tuple[str, ...] = ()
    memory: int = 0

    @property
    def many(self) -> bool:
        """Whether work is cut into tasks for several processes."""
        return self.jobs > 1 or self.scheduler is not None

    @property
    def threads_used(self) -> int:
        """Threads of a process on this machine."""
        return self.threads or cores()

    @property
    def backend(self) -> str:
        """The name under which results are filed: cpu, gpu, or RPC[host:port,host:port] as ggml names servers."""
        return f"RPC[{','.join(self.rpc)}]" if self.rpc else "gpu" if self.gpu_layers else "cpu"

    def within_worker(self, threads: int) -> "Execution":
        """The same as one worker process of several runs it."""
        return replace(self, threads=threads, jobs=1, scheduler=None)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_execution(
    threads: int = 0, gpu_layers: int = 0, jobs: int = 1, scheduler: str | None = None, rpc: str | None = None
) -> Execution:
    """The options ``--threads --gpu-layers --jobs --scheduler --rpc``; BadUsage where they exclude each other."""
    given = [f"--jobs {jobs}"] if jobs > 1 else []
    given += [f"--scheduler {scheduler}"] if scheduler is not None else []
    given += [f"--rpc {rpc}"] if rpc is not None else []
    if len(given) > 1:
        # a server answers one client at a time, and one model is spread over all of its devices
        raise BadUsage(f"{given[0]} and {given[1]}: choose one; workers hold the model whole, RPC servers share it")
    if jobs < 1:
        raise BadUsage(f"--jobs {jobs}: a number of processes from 1 on")
    if scheduler is not None and not _SCHEDULER.fullmatch(scheduler):
        raise BadUsage(f"--scheduler {scheduler}: write the address that dask scheduler prints, tcp://host:8786")
    servers = tuple(word.strip() for word in rpc.split(",")) if rpc is not None else ()
    for server in servers:
        if not _ENDPOINT.fullmatch(server) or not 0 < int(server.rsplit(":", 1)[1]) < 65536:
            raise BadUsage(f"--rpc {server or rpc}: write host:port, several with commas between")
    if len(set(servers)) < len(servers):
        raise BadUsage(f"--rpc {rpc}: a server is named twice")
    return Execution(threads, gpu_layers, jobs, scheduler, servers)
