"""Which files were finished with compensated rounding: a header cannot tell, so the cache notes the digest of what was built."""

from pathlib import Path

from quantplan.plan import Plan
from quantplan.records.cache import Cache, Plain
from quantplan.records.codec import encode
from quantplan.records.journal import digest_of
from quantplan.tensor import Model

VERSION = 1


def note_finished(plan: Plan, built: Model, cache: Path) -> None:
    """Notes that this is the plan's file, whatever its name. Raises BadFile, NoSpace."""
    _noted(cache).put(_key(plan), built.digest)


def rounded_as_planned(plan: Plan, built: Model, cache: Path | None) -> bool:
    """Whether a file of the plan's types is rounded as the plan says: the one that was noted for it where that is compensated,
    else none that was noted.
    """
    noted = _noted(cache)
    if plan.rounding:
        return noted.get(_key(plan)) == built.digest
    return built.digest not in {noted[key] for key in noted}


def _noted(cache: Path | None) -> Cache[str]:
    return Cache(Plain(str), cache, "finished", VERSION)


def _key(plan: Plan) -> str:
    """All that the weights of a plan's file depend on."""
    imatrix = plan.imatrix.digest if plan.imatrix else None
    return digest_of(plan.model_digest, imatrix, plan.encodings, encode(plan.rounding))
