"""The sensitivity table of a plan, kept in the cache for questions about the plan."""

from pathlib import Path

from quantplan.errors import BadFile
from quantplan.hub.hub import Hub
from quantplan.hub.reference import RECORD, is_reference, parse_reference
from quantplan.plan import Plan
from quantplan.planning.siblings import for_sibling
from quantplan.progress import SILENT, Reporter
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.records.journal import digest_of
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model


def table_digest(table: SensitivityTable) -> str:
    return digest_of(SENSITIVITY_TABLES.encode(table))


def keep_table(table: SensitivityTable, cache: Path) -> Path:
    """The table in the cache under its digest, where ``table_of`` finds it."""
    path = _path(cache, table_digest(table))
    if not path.exists():
        SENSITIVITY_TABLES.write(table, path)
    return path


def table_of(plan: Plan, cache: Path) -> SensitivityTable:
    """The sensitivity table that a plan was made from; BadFile where the cache has lost it, or the plan was not solved."""
    digest = plan.made_from.get("damage_table")
    if not isinstance(digest, str):
        raise BadFile("the plan was not made from a sensitivity table; give one with --sensitivity FILE")
    path = _path(cache, digest)
    if not path.exists():
        raise BadFile(
            f"the sensitivity table of the plan is no longer in the cache ({path}): give it with --sensitivity FILE, or "
            "solve again"
        )
    table = SENSITIVITY_TABLES.read(path)
    if table_digest(table) != digest:
        raise BadFile(f"{path}: the table was changed since; delete it and solve again")
    return table


def table_file(path: Path | str, report: Reporter = SILENT) -> SensitivityTable:
    """The table in a file, or in one on a hub (``hf://owner/repo/table.json``); raises what ``Hub.fetch`` raises."""
    if is_reference(path):
        text = path.as_posix() if isinstance(path, Path) else path
        path = Hub().fetch(parse_reference(text, RECORD), report)
    return SENSITIVITY_TABLES.read(path)


def read_table(path: Path | str, model: Model, report: Reporter = SILENT) -> SensitivityTable:
    """As ``table_file``, for a model: its own, or that of a sibling (see ``siblings``). ModelMismatch for any other."""
    table = table_file(path, report)
    if not table.model_digest or table.model_digest == model.digest:
        return table
    return for_sibling(table, model, path)


def _path(cache: Path, digest: str) -> Path:
    return cache / f"damage-{digest[:32]}.json"
