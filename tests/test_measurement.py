import json
from dataclasses import replace

import pytest
from measurement_parts import CONDITIONS, MEASUREMENT

from quantplan.errors import BadFile, ConditionsDiffer
from quantplan.measurement import PERCENTILES, check_comparable
from quantplan.records.formats import MEASUREMENTS


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.json"
    MEASUREMENTS.write(MEASUREMENT, path)
    assert MEASUREMENTS.read(path) == MEASUREMENT
    assert json.loads(path.read_text())["version"] == 2


def test_what_the_tool_did_not_say_stays_unknown(tmp_path):
    unknown = replace(
        MEASUREMENT,
        base_ppl=None,
        delta_p=None,
        kld_percentiles=dict.fromkeys(PERCENTILES),
        per_chunk_kld=(),
        notes=("no summary",),
    )
    MEASUREMENTS.write(unknown, tmp_path / "a.json")
    assert MEASUREMENTS.read(tmp_path / "a.json") == unknown
    assert MEASUREMENTS.encode(unknown)["kld_p99"] is None and MEASUREMENTS.encode(unknown)["base_ppl_err"] is None


def test_every_figure_stands_beside_its_error():
    found = MEASUREMENTS.encode(MEASUREMENT)
    names = ("ppl", "base_ppl", "ln_ppl_ratio", "kld", "delta_p", "rms_dp", "same_top")
    assert {name: (found[name], found[f"{name}_err"]) for name in names} == {
        name: (getattr(MEASUREMENT, name).value, getattr(MEASUREMENT, name).stderr) for name in names
    }
    assert found["kld_p99_9"] == pytest.approx(0.0999) and found["kld_p0_1"] == pytest.approx(0.0001)
    assert found["conditions"]["n_ctx"] == 256


@pytest.mark.parametrize("damage", [{"kld": None}, {"conditions": {}}, {"per_window_kld": None}, {"ppl": "x"}])
def test_a_damaged_record_is_refused(tmp_path, damage):
    MEASUREMENTS.write(MEASUREMENT, tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | damage))
    with pytest.raises(BadFile, match="damaged measurement .*measure again"):
        MEASUREMENTS.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_ctx": 512}, "n_ctx 256 / 512"),
        ({"chunks": 15}, "chunks 16 / 15"),
        ({"text_digest": "d" * 64}, "text_digest aaaaaaaaaaaa / dddddddddddd"),
        ({"base_digest": "d" * 64}, "base_digest"),
        ({"engine": "llama-perplexity"}, "engine in-process / llama-perplexity"),
        ({"backend": "gpu"}, "backend cpu / gpu"),
        ({"llama_cpp": "other"}, "llama_cpp"),
        ({"metrics": 2}, "metrics 1 / 2"),
    ],
)
def test_unequal_conditions_do_not_compare(change, said):
    other = replace(MEASUREMENT, file="b.gguf", conditions=replace(CONDITIONS, **change))
    with pytest.raises(ConditionsDiffer, match=rf"a.gguf and b.gguf .*\({said}"):
        check_comparable([MEASUREMENT, MEASUREMENT, other])


def test_equal_conditions_compare():
    check_comparable([MEASUREMENT, replace(MEASUREMENT, file="b.gguf")])
    assert CONDITIONS.differences(CONDITIONS) == []
