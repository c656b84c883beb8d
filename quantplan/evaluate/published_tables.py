"""The sensitivity tables that plans were made from, as they are published next to the files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.evaluate.published_files import PublishedFile
from quantplan.gguf.shards import model_stem
from quantplan.planning.kept_tables import table_digest, table_of
from quantplan.sensitivity_table import SensitivityTable

ENDING = ".sensitivity.json"


@dataclass(frozen=True)
class PublishedTable:
    """A table under the name it is published with."""

    name: str
    table: SensitivityTable


def published_tables(files: Iterable[PublishedFile], cache: Path) -> tuple[tuple[PublishedTable, ...], tuple[str, ...]]:
    """The tables of the files' plans, each once, and why those that are missing are. A table whose scales were not measured
    is of no use to others and left out.
    """
    tables: dict[str, PublishedTable] = {}
    missing = []
    for file in files:
        if file.plan is None or not file.plan.calibrated or "damage_table" not in file.plan.made_from:
            continue
        try:
            table = table_of(file.plan, cache)
        except BadFile as error:
            missing.append(f"{file.name}: {error}")
            continue
        number = f"-{len(tables) + 1}" if tables else ""
        name = f"{model_stem(file.header.path.name)}{number}{ENDING}"
        tables.setdefault(table_digest(table), PublishedTable(name, table))
    return tuple(tables.values()), tuple(missing)
