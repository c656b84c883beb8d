"""How large the caches are that stand between this process and memory."""

import os
import re
from pathlib import Path

_SYSTEM = Path("/sys/devices/system/cpu")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_cache(system: Path = _SYSTEM) -> int:
    """Bytes of the last level of all caches of the processors that this process may use; 0 where Linux does not say."""
    caches: dict[tuple[int, str], int] = {}
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    for index in (folder for cpu in usable for folder in (system / f"cpu{cpu}" / "cache").glob("index*")):
        try:
            level, shared, size = ((index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if match and level.isdigit():
            caches[int(level), shared] = int(match.group(1)) * _UNITS[match.group(2)]
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last)
