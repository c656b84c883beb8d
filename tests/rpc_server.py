"""A server of llama.cpp's RPC backend on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from quantplan.llamacpp import rpc, tools


@dataclass(frozen=True)
class Server:
    """``address``: host:port."""

    address: str
    process: subprocess.Popen

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def rpc_server(port: int = 0) -> Iterator[Server]:
    """A server with one thread, at a free port or the one given; skips where llama.cpp was built without."""
    executable = shutil.which(rpc.SERVER, path=str(tools.bin_folder()))
    if executable is None or not rpc.supported():
        pytest.skip(f"no {rpc.SERVER}: build llama-cpp-python with -DGGML_RPC=ON to test RPC")
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command, quiet = [executable, "-H", "127.0.0.1", "-p", str(port), "-t", "1"], subprocess.DEVNULL
    with subprocess.Popen(command, env=tools.environment(), stdout=quiet, stderr=quiet) as process:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            yield Server(f"127.0.0.1:{port}", process)
        finally:
            process.kill()
