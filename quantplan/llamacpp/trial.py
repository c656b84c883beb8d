"""A model tried in a process of its own before it is loaded into this one: llama.cpp ends the process, not the call, where sizes
in a header contradict each other in a way that only it knows.
"""

from contextlib import suppress
from functools import cache
from pathlib import Path

from quantplan.errors import BadFile, ToolMissing
from quantplan.llamacpp import libraries
from quantplan.llamacpp.tools import first_reason, run

_TOOL = "llama-fit-params"  # makes model and context, and allocates neither: 0.2 s


def check_survives(path: Path) -> None:
    """BadFile for a model that would end this process, unless whoever runs it gets ggml's last words (``on_abort``: commands,
    workers). Without llama.cpp's tools nothing is tried.
    """
    if path.is_file() and not libraries.aborts_are_heard():
        status = path.stat()
        _try(path, status.st_size, status.st_mtime_ns)


@cache
def _try(path: Path, _size: int, _modified: int) -> None:
    with suppress(ToolMissing):
        finished = run([_TOOL, "-m", str(path.absolute()), "--fit-print", "on", "-c", "512", "-ngl", "0"], check=False)
        if finished.code < 0 or "GGML_ASSERT" in finished.log:
            said = first_reason(finished.log.splitlines()) or f"signal {-finished.code}"
            raise BadFile(
                f"{path}: llama.cpp breaks off with this model: {said}; the sizes in its header contradict each other, is it "
                "damaged? Convert or download it again"
            )
