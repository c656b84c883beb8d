"""Every format: what was ever written still opens, and is written today as it was."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import record_parts as parts
import surgery_records

from quantplan.convert.conversion import CONVERSIONS
from quantplan.errors import BadFile
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.records.codec import FORMATS, encode, shape
from quantplan.records.formats import (
    CACHE_SENSITIVITIES,
    COMPARISONS,
    MEASUREMENTS,
    PLANS,
    RUNS,
    SENSITIVITY_TABLES,
    TASK_SCORES,
    THROUGHPUTS,
)
from quantplan.sensitivity.moment_files import INDEX_FORMAT
from quantplan.surgery.layer_map_files import LAYER_MAPS
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS

GOLDEN = {
    "plan": (PLANS, parts.PLAN),
    "plan-unpredicted": (PLANS, parts.UNPREDICTED),
    "sensitivities": (SENSITIVITY_TABLES, parts.SENSITIVITIES),
    "cache-sensitivity": (CACHE_SENSITIVITIES, parts.CACHE_SENSITIVITY),
    "conversion": (CONVERSIONS, parts.CONVERSION),
    "measurement": (MEASUREMENTS, parts.MEASUREMENT),
    "measurement-unmeasured": (MEASUREMENTS, parts.UNMEASURED),
    "task-score": (TASK_SCORES, parts.TASK_SCORE),
    "throughput": (THROUGHPUTS, parts.THROUGHPUT),
    "comparison": (COMPARISONS, parts.COMPARISON),
    "run": (RUNS, parts.RUN),
    "suite-score": (SUITE_SCORES, surgery_records.SUITE_SCORE),
    "second-moments": (INDEX_FORMAT, parts.SECOND_MOMENTS),
    "layer-map": (LAYER_MAPS, surgery_records.LAYER_MAP),
    "leaderboard": (LEADERBOARDS, surgery_records.LEADERBOARD),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_files_are_read_and_written_as_they_were(tmp_path, name):
    record_format, value = GOLDEN[name]
    golden = parts.GOLDEN / f"{name}.json"
    assert record_format.read(golden) == value
    record_format.write(value, tmp_path / "now.json")
    assert json.loads((tmp_path / "now.json").read_text()) == json.loads(golden.read_text())


def test_all_formats_have_golden_files():
    assert set(FORMATS.values()) == {record_format for record_format, _ in GOLDEN.values()}


def test_files_from_before_compensated_rounding_open():
    plan = PLANS.read(parts.GOLDEN / "plan-version-2.json")
    assert plan.rounding is None and plan.compensated == () and plan.types == parts.PLAN.types
    table = SENSITIVITY_TABLES.read(parts.GOLDEN / "sensitivities-version-1.json")
    assert all(row.stock == {} for row in table.rows.values()) and table.rows.keys() == parts.SENSITIVITIES.rows.keys()


def test_tables_from_before_shapes_open_and_keep_their_digest():
    path = parts.GOLDEN / "sensitivities-version-2.json"
    table = SENSITIVITY_TABLES.read(path)
    assert table == replace(parts.SENSITIVITIES, architecture="", shapes={})
    assert SENSITIVITY_TABLES.encode(table).keys() == json.loads(path.read_text()).keys() - {"format", "version"}


def test_files_of_version_1_open():
    plan = PLANS.read(parts.GOLDEN / "plan-version-1.json")
    assert plan.types == parts.PLAN.types and plan.limits == () and plan.outcome.minimised == "sum"
    first, second = COMPARISONS.read(parts.GOLDEN / "comparison-version-1.json").rows
    assert first.measurement == parts.OF_VERSION_1 and first.tasks == () and second.kld_ratio == math.inf
    assert not first.gaps and not second.significant and second.chunks_needed == 40


def test_plans_from_before_cache_types_open():
    plan = PLANS.read(parts.GOLDEN / "plan-version-3.json")
    assert plan.cache is None and plan == replace(parts.PLAN, cache=None, tensor_split=())


def test_scores_of_version_1_open():
    old = SUITE_SCORES.read(parts.GOLDEN / "suite-score-version-1.json")
    conditions = replace(surgery_records.SUITE_SCORE.conditions, grading=1)
    assert old == replace(surgery_records.SUITE_SCORE, conditions=conditions)


def test_measurements_from_before_cache_types_open():
    assert MEASUREMENTS.read(parts.GOLDEN / "measurement-version-1.json") == parts.OF_VERSION_1
    first, _ = COMPARISONS.read(parts.GOLDEN / "comparison-version-2.json").rows
    assert first.measurement == parts.OF_VERSION_1 and first.tasks
    assert LEADERBOARDS.read(parts.GOLDEN / "leaderboard-version-1.json").conditions.cache_types == "f16"


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("version", [99, 0, "1", None])
def test_unknown_versions_are_refused(tmp_path, name, version):
    content = json.loads((parts.GOLDEN / f"{name}.json").read_text())
    (tmp_path / "new.json").write_text(json.dumps(content | {"version": version}))
    with pytest.raises(BadFile, match="update quantplan"):
        GOLDEN[name][0].read(tmp_path / "new.json")


def damages(content):
    """Everything in the JSON missing or of another type, one at a time."""
    if isinstance(content, dict):
        for key, item in content.items():
            yield {other: value for other, value in content.items() if other != key}
            yield from (content | {key: changed} for changed in damages(item))
    elif isinstance(content, list):
        for index, item in enumerate(content):
            yield from ([*content[:index], changed, *content[index + 1 :]] for changed in damages(item))
    yield {} if isinstance(content, str) else "a text"


@pytest.mark.parametrize("name", GOLDEN)
def test_damaged_files_give_one_sentence(tmp_path, name):
    record_format, _ = GOLDEN[name]
    content = json.loads((parts.GOLDEN / f"{name}.json").read_text())
    refused = 0
    for damaged in damages(content):
        path = tmp_path / "damaged.json"
        path.write_text(json.dumps(damaged))
        try:
            record_format.read(path)
        except BadFile as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not JSON"), (b"\xff", "not UTF-8 text"), (b"[1]", "is needed, this is list"), (b"{}", "something else")],
)
def test_what_is_no_record(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadFile, match=message):
        PLANS.read(tmp_path / "a.json")


def test_a_missing_file(tmp_path):
    with pytest.raises(BadFile, match=r"cannot read .*a\.json: No such file"):
        PLANS.read(tmp_path / "a.json")


def test_a_text_is_no_list(tmp_path):
    content = json.loads((parts.GOLDEN / "measurement.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | {"notes": "a note"}))
    with pytest.raises(BadFile, match="notes is a text where a list is expected"):
        MEASUREMENTS.read(tmp_path / "a.json")


def test_nan_is_null_where_nothing_may_stand_and_refused_elsewhere(tmp_path):
    PLANS.write(replace(parts.PLAN, predicted_kld=math.nan), tmp_path / "a.json")
    assert PLANS.read(tmp_path / "a.json").predicted_kld is None
    with pytest.raises(ValueError, match="JSON"):
        MEASUREMENTS.write(replace(parts.MEASUREMENT, bpw=math.nan), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_the_json_of_a_type_is_declared_before_it_is_used():
    @dataclass(frozen=True)
    class Late:
        value: int

    assert encode(Late(1)) == {"value": 1}
    with pytest.raises(ValueError, match="the JSON of Late is in use"):
        shape(Late, names={"value": "number"})


def test_a_score_of_a_part_without_items_that_count_is_refused(tmp_path):
    fields = SUITE_SCORES.encode(surgery_records.SUITE_SCORE)
    part = next(part for part in fields["parts"] if part["items"] and not part["reason"])
    fields |= {"format": SUITE_SCORES.name, "version": SUITE_SCORES.version, "parts": [part | {"items": []}]}
    (tmp_path / "score.json").write_text(json.dumps(fields))
    with pytest.raises(BadFile, match=f"the part {part['name']} applies, and none of its items counts"):
        SUITE_SCORES.read(tmp_path / "score.json")
