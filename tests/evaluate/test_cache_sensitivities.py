"""What cache types cost, measured on the bundled model."""

from dataclasses import replace

import pytest
from model_shapes import dense

from quantplan.cache_types import F16_CACHE, parse_kv
from quantplan.devices.memory_formulas import possible_caches, smallest_cache
from quantplan.errors import BadUsage, TextTooShort
from quantplan.evaluate import cache_sensitivities as module
from quantplan.evaluate.cache_sensitivities import CacheMeasureOptions, cache_sensitivity
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine

OPTIONS = CacheMeasureOptions(chunks=2, execution=Execution(1))
PAIRS = [F16_CACHE, *map(parse_kv, ("q8_0,f16", "f16,q4_0", "q4_0,f16"))]


@pytest.fixture
def model(reference_model):
    return read_model(reference_model)


@pytest.fixture
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:40_000]


@pytest.mark.llamacpp
def test_klds_of_pairs_resume_and_are_those_of_measure(monkeypatch, model, text, tmp_path):
    monkeypatch.setattr(module, "possible_caches", lambda _: PAIRS[:3])
    first = cache_sensitivity(model, text, 300, OPTIONS, cache=tmp_path)
    runs = []
    logits = Engine.logits
    monkeypatch.setattr(Engine, "logits", lambda self, chunks: runs.append(self.options) or logits(self, chunks))
    monkeypatch.setattr(module, "possible_caches", lambda _: PAIRS)
    measured = cache_sensitivity(model, text, 300, OPTIONS, cache=tmp_path)
    assert [run.cache_types for run in runs] == [F16_CACHE, PAIRS[3]]  # the base again, and what was left
    assert measured.pairs[:2] == first.pairs and measured.n_ctx == 300 and measured.model_digest == model.digest
    klds = [measured.klds[pair].value for pair in PAIRS]
    assert klds[0] == 0 < klds[1] < klds[3] and klds[2] > 0 and measured.klds[PAIRS[3]].stderr > 0
    how = MeasureOptions(300, 2, Execution(1), cache_types=PAIRS[1])
    (alone,) = measure(model.path, [model.path], text, how)
    assert alone.kld.value == klds[1] and measured.conditions == replace(alone.conditions, cache_types="f16")


@pytest.mark.llamacpp
def test_chunks_are_as_long_as_the_text_allows(monkeypatch, model, text):
    monkeypatch.setattr(module, "possible_caches", lambda _: PAIRS[:2])
    assert cache_sensitivity(model, text[:3000], 32_768, OPTIONS).n_ctx < 1024
    with pytest.raises(TextTooShort, match="2 chunks of at least 256"):
        cache_sensitivity(model, text[:600], 32_768, OPTIONS)


def test_a_header_has_nothing_to_measure(tmp_path):
    plain = dense("deepseek2", 2, 256, 512, 4, 1, 100)
    latent = replace(plain, numbers={**plain.numbers, "attention.key_length_mla": 192})
    header = read_model(latent.write(tmp_path / "header.gguf"))
    with pytest.raises(BadUsage, match="give --kv-sensitivity FILE"):
        cache_sensitivity(header, "text", 4096, OPTIONS)
    assert {len(set(pair)) for pair in possible_caches(header)} == {1} and len(possible_caches(header)) == 6
    assert smallest_cache(header) == parse_kv("q4_0")
    odd = read_model(dense("qwen2", 2, 640, 1024, 8, 8, 1000, head=80).write(tmp_path / "odd.gguf"))
    assert possible_caches(odd) == (F16_CACHE,)
