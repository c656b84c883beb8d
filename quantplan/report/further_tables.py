"""Tables that cards and report pages share: what files lose by text, what cache types cost, how files answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.cache_types import F16_CACHE, kv_name
from quantplan.evaluate.suites.suite_gap import suite_gap
from quantplan.evaluate.suites.suite_score import SuiteConditions, SuiteScore
from quantplan.measurement import Measurement
from quantplan.report.cells import estimate
from quantplan.report.domain_table import domain_table
from quantplan.report.measurement_table import chunks_of
from quantplan.report.suite_table import gaps_table, suite_table
from quantplan.report.table import Table


def tables_by_text(measured: Iterable[tuple[str, Measurement]]) -> list[Table]:
    """A table for all files, by name, that were measured under the same conditions on several texts."""
    groups: dict[object, dict[str, Measurement]] = {}
    for name, measurement in measured:
        texts = tuple((domain.name, domain.chunks) for domain in measurement.domains)
        if texts:
            groups.setdefault((measurement.conditions, texts), {})[name] = measurement
    return [_by_text(list(group), list(group.values())) for group in groups.values()]


def _by_text(names: Sequence[str], measurements: Sequence[Measurement]) -> Table:
    table, conditions = domain_table(names, measurements), measurements[0].conditions
    return replace(table, title=f"{table.title}: {chunks_of(conditions)}, text {conditions.text_digest[:12]}")


def cache_table(caches: CacheSensitivity) -> Table:
    """The KLD of each pair of types of the KV cache, besides that of the weights."""
    rows = tuple((kv_name(types), estimate(kld)) for types, kld in caches.klds.items() if types != F16_CACHE)
    chunks = f"{caches.conditions.chunks} chunks" if caches.conditions else "chunks"
    note = (
        f"The unquantized model with this cache against itself with {kv_name(F16_CACHE)}, on {chunks} of {caches.n_ctx} tokens, "
        "± standard error over chunks. It comes on top of what the weights lose."
    )
    return Table("Types of the KV cache (K, V)", ("Types", "KLD"), rows, (note,))


def suite_tables(scores: Sequence[SuiteScore], originals: Iterable[SuiteScore] = ()) -> list[Table]:
    """Of each suite, the files' scores, with those of the original model where that was asked the same, and the differences."""
    known: Mapping[SuiteConditions, SuiteScore] = {original.conditions: original for original in originals}
    groups: dict[SuiteConditions, dict[str, SuiteScore]] = {}
    for score in scores:
        groups.setdefault(score.conditions, {})[score.file] = score
    tables = []
    for conditions, group in groups.items():
        original, own = known.get(conditions), list(group.values())
        tables.append(suite_table([*([original] if original else []), *own]))
        others = {score.file: score for score in own if original and score.model_digest != original.model_digest}
        if original and others:
            gaps = {file: suite_gap(score, original) for file, score in others.items()}
            tables.append(gaps_table(gaps, original.file, [part.name for part in original.parts]))
    return tables
