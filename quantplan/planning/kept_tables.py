"""The sensitivity table of a plan, kept in the cache for questions about the plan."""

from pathlib import Path

from quantplan.errors import BadFile, ModelMismatch
from quantplan.plan import Plan
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


def read_table(path: Path | str, model: Model) -> SensitivityTable:
    """A sensitivity table file for a model; ModelMismatch where it was made for another."""
    table = SENSITIVITY_TABLES.read(path)
    if table.model_digest and table.model_digest != model.digest:
        raise ModelMismatch(
            f"{path} was made for another model (digest {table.model_digest[:12]}, this is {model.digest[:12]})"
        )
    return table


def _path(cache: Path, digest: str) -> Path:
    return cache / f"damage-{digest[:32]}.json"
