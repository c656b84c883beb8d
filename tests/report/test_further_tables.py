"""What was measured by text, of cache types and at suites is on the card and on the page, as its records say."""

from dataclasses import replace

from card_parts import card, file_of, measured, published
from measurement_parts import CONDITIONS, MEASUREMENT
from report_parts import made_up_data
from surgery_records import SUITE_SCORE

from quantplan.cache_sensitivity import CachePair, CacheSensitivity
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.measurement import DomainFigures, Estimate
from quantplan.records.formats import CACHE_SENSITIVITIES, MEASUREMENTS
from quantplan.report.card_data import card_data
from quantplan.report.further_tables import cache_table, suite_tables, tables_by_text
from quantplan.report.page import page
from quantplan.spikes import Spike

FIGURES = {
    name: getattr(MEASUREMENT, name) for name in DomainFigures.__dataclass_fields__ if hasattr(MEASUREMENT, name)
}
CHAT, CODE = (DomainFigures(**FIGURES | {"name": name, "chunks": 8}) for name in ("chat", "code_x"))
SPIKE = Spike(3, 0.5, 40.0, 12, "def f(x)")
BY_TEXT = measured(0.01, domains=(CHAT, replace(CODE, kld=Estimate(0.05, 0.001))), spikes=(SPIKE,))
CACHES = CacheSensitivity("original", 4096, (CachePair("q8_0", Estimate(0.001, 0.0001)),), CONDITIONS)
SCORE = replace(SUITE_SCORE, model_digest="d0")
ORIGINAL = replace(SUITE_SCORE, file="orig.gguf", model_digest="original")


def found():
    return replace(
        published([None], sizes=(1000,)),
        measured={"m-0.gguf": (BY_TEXT,)},
        suite_scores={"m-0.gguf": (SCORE,)},
        original_scores=(ORIGINAL,),
        caches=(CACHES,),
    )


def test_tables_by_text_join_files_of_the_same_conditions():
    other = measured(0.02, domains=(CHAT, CODE))
    (table,) = tables_by_text([("a", BY_TEXT), ("b", other), ("c", measured(0.03))])
    assert [row[:2] for row in table.rows] == [("chat", "a"), ("chat", "b"), ("code_x", "a"), ("code_x", "b")]
    elsewhere = replace(other, conditions=replace(CONDITIONS, n_ctx=512))
    assert len(tables_by_text([("a", BY_TEXT), ("b", elsewhere)])) == 2


def test_cache_types():
    assert cache_table(CACHES).rows == (("q8_0", "0.00100 ± 0.00010"),)
    assert "chunks of 4096 tokens" in cache_table(replace(CACHES, conditions=None)).notes[0]


def test_scores_stand_next_to_the_original_asked_alike():
    scores, gaps = suite_tables([SCORE], [ORIGINAL])
    assert [row[0] for row in scores.rows] == ["orig.gguf", "m.gguf"] and [row[0] for row in gaps.rows] == ["m.gguf"]
    otherwise = replace(ORIGINAL, conditions=replace(ORIGINAL.conditions, suite_digest="b" * 64))
    assert len(suite_tables([SCORE], [otherwise])) == len(suite_tables([SCORE])) == 1
    assert len(suite_tables([replace(SCORE, model_digest="original")], [ORIGINAL])) == 1  # the original itself


def test_the_card_has_them():
    text = card(found())
    assert "m-0.gguf breaks in chunk 3 of 16" in text and "'def f\\(x\\)'" not in text and "def f(x)" in text
    assert "#### By text" in text and "| code\\_x | m-0.gguf |" in text and "worst text" in text
    assert "| q8\\_0 | 0.00100 ± 0.00010 |" in text
    assert "#### Suite small: percent ± standard error" in text and "#### Difference from orig.gguf" in text
    assert "####" not in card(published([0.01], sizes=(1000,)))


def test_the_page_has_them():
    data = made_up_data(
        measurements=(replace(BY_TEXT, file="x/m.gguf"),), caches=(CACHES,), scores=(SCORE,), originals=(ORIGINAL,)
    )
    titles = [table["title"].split(":")[0] for table in data["tables"]]
    assert titles == ["By text", "Types of the KV cache (K, V)", "Suite small", "Difference from orig.gguf"]
    html = page(data)
    assert "<h2>Types of the KV cache (K, V)</h2>" in html and '<td class="text">m.gguf</td>' in html
    assert made_up_data()["tables"] == [] and "By text" not in page(made_up_data())


def test_records_find_their_files(tmp_path):
    files = [file_of("m-0.gguf", 1000, "d0")]
    measurement = replace(BY_TEXT, model_digest="d0", conditions=replace(CONDITIONS, base_digest="original"))
    MEASUREMENTS.write(measurement, tmp_path / "m.json")
    for name, score in (("s", SCORE), ("o", ORIGINAL), ("x", replace(SCORE, model_digest="other"))):
        SUITE_SCORES.write(score, tmp_path / f"{name}.json")
    CACHE_SENSITIVITIES.write(CACHES, tmp_path / "c.json")
    CACHE_SENSITIVITIES.write(replace(CACHES, model_digest="other"), tmp_path / "y.json")
    data = card_data(files, sorted(tmp_path.glob("*.json")))
    assert data.suite_scores == {"m-0.gguf": (SCORE,)} and data.original_scores == (ORIGINAL,)
    assert data.caches == (CACHES,) and data.left_out == ("x.json", "y.json")
