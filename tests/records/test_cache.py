import pytest
from record_parts import MEASUREMENT

from quantplan.measurement import Estimate
from quantplan.records.cache import Cache, Plain
from quantplan.records.formats import MEASUREMENTS


def opened(folder, made_from=1):
    return Cache(MEASUREMENTS, folder, "measure", "model", made_from)


def test_values_come_back_as_they_were(tmp_path):
    opened(tmp_path).put("a", MEASUREMENT)
    again = opened(tmp_path)
    assert "a" in again and again["a"] == MEASUREMENT and list(again) == ["a"]
    assert again.get("b") is None and again.get("b", 1) == 1
    with pytest.raises(KeyError):
        again["b"]
    assert list(opened(tmp_path, made_from=2)) == []


def test_without_a_folder_in_memory_only(tmp_path):
    cache = opened(None)
    cache.put("a", MEASUREMENT)
    assert cache["a"] is MEASUREMENT and cache.name == "" and list(opened(None)) == []


def test_what_cannot_be_decoded_is_missing(tmp_path):
    Cache(Plain(), tmp_path, "measure", "model", 1).put("a", {"kld": 1})
    cache = opened(tmp_path)
    assert "a" not in cache
    cache.put("a", MEASUREMENT)
    assert opened(tmp_path)["a"] == MEASUREMENT


def test_forgotten_results_are_measured_again(tmp_path):
    cache = opened(tmp_path)
    cache.put("a", MEASUREMENT)
    cache.forget()
    assert "a" not in cache and "a" in opened(tmp_path)


@pytest.mark.parametrize(
    ("cls", "value"), [(object, {"klds": [0.1, 2]}), (Estimate, Estimate(1.0, None)), (dict[str, str], {"a": "b"})]
)
def test_plain_values(tmp_path, cls, value):
    Cache(Plain(cls), tmp_path, "plain").put("a", value)
    assert Cache(Plain(cls), tmp_path, "plain")["a"] == value
