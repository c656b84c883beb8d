"""llama-gguf-split: one GGUF cut into shards."""

import re
from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.llamacpp.tools import run
from quantplan.progress import SILENT, Reporter

TOOL = "llama-gguf-split"
_UNITS = {"M": 10**6, "G": 10**9}  # split_str_to_n_bytes, tools/gguf-split/gguf-split.cpp


def shard_bytes(size: str) -> int:
    """What ``5G`` or ``500M`` means to the tool, in bytes; BadUsage for anything else."""
    match = re.fullmatch(r"([1-9]\d*)([MG])", size.strip().upper())
    if not match:
        raise BadUsage(f"--split-max-size {size}: a whole number followed by M or G, as in 5G")
    return int(match[1]) * _UNITS[match[2]]


def split(source: Path, prefix: Path, size: str, report: Reporter = SILENT) -> None:
    """Writes ``PREFIX-00001-of-0000N.gguf`` and so on, each with at most ``size`` bytes of tensors, a larger tensor alone.

    Raises ToolFailed, ToolMissing. The tool may end well on a full disk: read the shards back.
    """
    limit = size.strip().upper()
    paths = [str(path.absolute()) for path in (source, prefix)]
    run([TOOL, "--split", "--split-max-size", limit, *paths], report=report)
