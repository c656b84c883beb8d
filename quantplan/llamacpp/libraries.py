"""llama.cpp's shared libraries as llama-cpp-python installed them, loaded once, with the signatures of ``signatures``.

They are found without importing llama_cpp, which would cost half a second. All calls release the GIL.
"""

import ctypes
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from quantplan.errors import ToolMissing
from quantplan.llamacpp.signatures import SIGNATURES, AbortCallback, LogCallback


def _build_options() -> str:
    """CMAKE_ARGS for this machine. llama.cpp's AMX kernels crash where the compiler drops their tile configuration (llama.cpp
    PR 26954; seen with GCC 12.2): processors that have AMX do without.
    """
    options = (
        "-DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON -DLLAMA_BUILD_SERVER=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"
    )
    cpu = Path("/proc/cpuinfo")
    amx = cpu.is_file() and "amx_int8" in cpu.read_text(encoding="utf-8", errors="replace").split()
    return f"{options} -DGGML_RPC=ON{' -DCMAKE_CXX_FLAGS=-mno-amx-int8' if amx else ''}"


INSTALL_HINT = (
    f'CMAKE_ARGS="{_build_options()}" pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python'
)
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_PREFIX = "" if sys.platform == "win32" else "lib"


def library_folder() -> Path:
    """The folder with libggml and libllama; ToolMissing where llama-cpp-python is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise ToolMissing(f"llama-cpp-python is not installed; run: {INSTALL_HINT}")
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def library_path(name: str) -> Path:
    """The installed library ``name``: a key of SIGNATURES."""
    return library_folder() / f"{_PREFIX}{name}{_SUFFIX}"


@cache
def load(name: str) -> ctypes.CDLL:
    """The library with its functions declared; ToolMissing where it cannot be loaded or does not have one of them."""
    if name != "ggml-base":
        load("ggml-base")  # first, from its own folder: the others then use this one and no other installation's
    path = library_path(name)
    try:
        library = ctypes.CDLL(str(path))
        for function, (result, arguments) in SIGNATURES[name].items():
            entry = getattr(library, function)
            entry.restype, entry.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ToolMissing(f"cannot use {path}: {error}; run: {INSTALL_HINT}") from None
    if name == "ggml-base" and _abort_callbacks:
        library.ggml_set_abort_callback(_abort_callbacks[-1])
    return library


_abort_callbacks: list[Any] = []  # ggml keeps the pointer of the last one for the life of the process


def on_abort(say: Callable[[str], None]) -> None:
    """``say`` gets ggml's last words where an assertion of it ends this process, in place of a stack trace on stderr.

    Libraries that are not loaded yet are told when they are.
    """
    folder = re.compile(r"^.*/(?=\S+:\d+: )")
    _abort_callbacks.append(
        AbortCallback(lambda message: say(folder.sub("", message.decode("utf-8", "replace").strip())))
    )
    if load.cache_info().currsize:
        base().ggml_set_abort_callback(_abort_callbacks[-1])


def aborts_are_heard() -> bool:
    """Whether somebody gets ggml's last words."""
    return bool(_abort_callbacks)


def base() -> ctypes.CDLL:
    """libggml-base: types, gguf, graphs, backends."""
    return load("ggml-base")


@cache
def cpu() -> ctypes.CDLL:
    """libggml-cpu, initialized."""
    library = load("ggml-cpu")
    library.ggml_cpu_init()
    return library


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collects what ggml logs (it would go to stderr) so that an error message can say it."""
    lines: list[str] = []
    callback = LogCallback(lambda _level, text, _data: lines.append(text.decode("utf-8", "replace").strip()))
    base().ggml_log_set(callback, None)
    try:
        yield lines
    finally:
        base().ggml_log_set(_silent, None)


_silent = LogCallback(lambda _level, _text, _data: None)
