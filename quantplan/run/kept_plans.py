"""The plans of a run, kept as files in the cache."""

from collections.abc import Callable
from pathlib import Path

from quantplan.plan import Plan
from quantplan.records.cache import Cache, Plain
from quantplan.records.formats import PLANS
from quantplan.records.journal import digest_of


class KeptPlans:
    """Plans that were solved for, so that after an interruption the same ones go on, were the solver's time as it may."""

    def __init__(self, cache: Path, *made_from: object) -> None:
        self._cache = cache
        self._files: Cache[dict[str, str]] = Cache(Plain(dict[str, str]), cache, "run", *made_from)

    def get(self, key: str, make: Callable[[], Plan | None]) -> Plan | None:
        return self.several(key, lambda: {"": plan} if (plan := make()) else {}).get("")

    def several(self, key: str, make: Callable[[], dict[str, Plan]]) -> dict[str, Plan]:
        kept = self._files.get(key)
        if kept is not None and all((self._cache / file).is_file() for file in kept.values()):
            return {name: PLANS.read(self._cache / file) for name, file in kept.items()}
        made = make()
        files = {name: f"plan-{digest_of(self._files.name, key, name)[:32]}.json" for name in made}
        for name, plan in made.items():
            PLANS.write(plan, self._cache / files[name])
        self._files.put(key, files)
        return made

    def like(self, beginning: str) -> list[Plan]:
        """All that were kept under keys of that beginning."""
        files = [file for key in self._files if key.startswith(beginning) for file in self._files[key].values()]
        return [PLANS.read(self._cache / file) for file in files if (self._cache / file).is_file()]
