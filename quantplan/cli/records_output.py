"""Where commands that measure keep their records."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantplan.cli import console, options


def write_records(
    out: Path | None, records: Sequence[Any], write: Callable[[Any, Path], None], suffix: Callable[[Any], str]
) -> None:
    """Each record under the name of its file and the beginning of that file's digest, in --out or the project's reports."""
    folder = options.records_folder(out)
    for record in records if folder else ():
        path = folder / f"{Path(record.file).stem}-{record.model_digest[:8]}.{suffix(record)}.json"  # type: ignore[operator]
        write(record, path)
        console.say(f"written: {path}")
