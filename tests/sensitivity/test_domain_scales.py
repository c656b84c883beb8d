"""What tensors cost on each text of several: told from the noise of chunks, kept in the table, planned for."""

from dataclasses import replace

import numpy as np
import pytest

from quantplan.errors import BadFile, BadUsage, TextTooShort
from quantplan.execution import Execution
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.quant_type import parse_types
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES
from quantplan.sensitivity.domain_scales import domain_interactions, domain_ratios, level
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.probe import Probe
from quantplan.sensitivity.probe_text import chunk_order, least_chunks, spread
from quantplan.sensitivity.scales import TensorScale
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.sensitivity_table import Interaction
from quantplan.solver.worst_domain import WORST_DOMAIN
from quantplan.text import Domain, Domains


def test_texts_take_turns():
    texts = {"a": np.arange(10).reshape(5, 2), "b": np.arange(100, 104).reshape(2, 2)}
    chunks, names = spread(texts)
    assert names == ("a", "b", "a", "b", "a", "a", "a")
    assert sorted(chunks.tolist()) == sorted([*texts["a"].tolist(), *texts["b"].tolist()])
    assert [row for row, name in zip(chunks.tolist(), names, strict=True) if name == "a"] == texts["a"][
        chunk_order(5)
    ].tolist()
    alone, none = spread({"": texts["a"]})
    assert none == () and alone.tolist() == texts["a"][chunk_order(5)].tolist()


def test_every_text_has_its_share():
    assert [least_chunks(5, n_ctx, 0) for n_ctx in (128, 512, 4096)] == [40, 10, 10]
    assert least_chunks(5, 128, asked=8) == 10 and least_chunks(1, 128, 0) == 0
    assert ProbeOptions(512, domains=5).base_chunks(1000) == 12 and ProbeOptions(512, domains=5).base_chunks(11) == 11
    assert ProbeOptions(512).on(Domains((Domain("a", "1"), Domain("b", "2")))).domains == 2
    assert ProbeOptions(512, domains=2).on("text").domains == 1


def made_up(ratios, noise, chunks=8, seed=0):
    """A probe of tensors with these ratios on two texts, whose chunks are hard or easy for all alike."""
    rng = np.random.default_rng(seed)
    domains = ("a", "b") * (chunks // 2)
    hard = rng.lognormal(0, 0.5, chunks)
    of_text = np.array([0, 1] * (chunks // 2))
    # level 1 on either text
    hard = np.where(of_text == 0, hard / hard[of_text == 0].mean(), hard / hard[of_text == 1].mean())
    klds = {
        f"t{number}": (0.01 * hard * np.array(pair)[of_text] * rng.lognormal(0, noise, chunks)).tolist()
        for number, pair in enumerate(ratios)
    }
    return Probe(domains=domains, klds=klds), {name: TensorScale(1.0, 0.1, "probed") for name in [*klds, "unseen"]}


def test_ratios_are_those_of_the_texts():
    pairs = [(0.5, 1.5), (1.0, 1.0), (1.5, 0.5), (0.8, 1.2)]
    probe, scales = made_up(pairs, noise=0.01)
    found = domain_ratios(probe, scales)
    for number, (one, other) in enumerate(pairs):
        assert (found[f"t{number}"]["a"], found[f"t{number}"]["b"]) == pytest.approx((one, other), rel=0.05)
    assert found["unseen"]["a"] == pytest.approx(np.mean([one for one, _ in pairs]), rel=0.05)


def test_what_is_noise_tells_no_tensors_apart():
    """All tensors alike, chunks that scatter: raw ratios differ by some ten percent, shrunk ones hardly."""
    errors = {"raw": [], "shrunk": []}
    for seed in range(5):
        probe, scales = made_up([(1.0, 1.0)] * 40, noise=0.4, seed=seed)
        found = domain_ratios(probe, scales)
        raw = [np.mean(klds[::2]) / np.mean(klds) for klds in probe.klds.values()]
        errors["raw"].append(np.std(raw))
        errors["shrunk"].append(np.std([found[name]["a"] for name in probe.klds]))
    assert np.mean(errors["shrunk"]) < 0.5 * np.mean(errors["raw"])


def test_how_klds_add_up_on_each_text():
    probe, scales = made_up([(0.5, 1.5)] * 4, noise=0.01)
    ratios = domain_ratios(probe, scales)
    errors = dict.fromkeys(probe.klds, 0.01)
    probe.uniform["Q4_K"] = {"klds": [0.03 * 0.5, 0.03 * 1.5] * 4, "errors": errors}
    found = domain_interactions(probe, scales, ratios, Interaction(0.7, 0.0))
    assert {name: curve.factor for name, curve in found.items()} == pytest.approx({"a": 0.75, "b": 0.75}, rel=0.05)
    assert level(probe)["b"].value == pytest.approx(0.045)
    assert (
        domain_ratios(Probe(klds={"t": [0.1]}), scales) == {}
        and domain_interactions(probe, scales, {}, Interaction()) == {}
    )


# --- with a model


@pytest.fixture(scope="module")
def texts(calibration_text):
    text = calibration_text.read_text(encoding="utf-8")
    code = "".join(f"def f{number}(x):\n    return [x + {number}] * {number}\n\n" for number in range(200))
    return Domains((Domain("prose", text[:6_000]), Domain("code", code[:6_000])))


@pytest.fixture(scope="module")
def table(case, texts, tmp_path_factory):
    probe = ProbeOptions(n_ctx=128, chunks=16, extend=False, execution=Execution(1))
    options = SensitivityOptions(
        parse_types("Q3_K,Q4_K,Q6_K,Q8_0,F16"), probe, sample_elements=1 << 14, compensate=False
    )
    return price(case.model, case.tensors, case.imatrix, texts, options, tmp_path_factory.mktemp("cache")).table


@pytest.mark.llamacpp
def test_the_table_keeps_what_each_text_costs(table, tmp_path):
    assert set(table.domains) == {"prose", "code"}
    assert all(set(row.domains) == {"prose", "code"} for row in table.rows.values() if row.source == "probed")
    path = tmp_path / "table.json"
    SENSITIVITY_TABLES.write(table, path)
    assert SENSITIVITY_TABLES.read(path) == table
    content = path.read_text()
    path.write_text(content.replace('"code": 1.', '"tool": 1.').replace('"code": 0.', '"tool": 0.'))
    with pytest.raises(BadFile, match="times its damage on the text tool"):
        SENSITIVITY_TABLES.read(path)


@pytest.mark.llamacpp
def test_a_text_is_predicted_by_its_own_ratios(table, case):
    types = {name: "Q4_K" if "Q4_K" in row.weights else next(iter(row.weights)) for name, row in table.rows.items()}
    both = table.predict_domains(types)
    for name, (kld, _) in both.items():
        own, curve = table.in_domain(name), table.domains[name]
        singles = sum(row.domains.get(name, 1.0) * row.weights[types[row.tensor]] for row in table.rows.values())
        assert kld == own.predict(types)[0] == pytest.approx(curve.total(singles), rel=0.2)
    assert not table.in_domain("code").domains


@pytest.mark.llamacpp
def test_the_worst_text_is_planned_for(table, case, tmp_path):
    request = PlanRequest(case.model, case.imatrix, parse_types("Q3_K,Q4_K,Q6_K,Q8_0"), "6bpw")
    mean, _ = plan_for(request, table)
    worst, _ = plan_for(replace(request, objective=WORST_DOMAIN), table)
    assert worst.outcome.minimised == WORST_DOMAIN and worst.file_bytes <= worst.budget_bytes
    assert set(worst.predicted_domains) == {"prose", "code"}
    first_order = max(curve.factor for curve in table.domains.values())
    assert (
        worst.outcome.objective <= max(kld for kld, _ in mean.predicted_domains.values()) * 1.001 + 1e-9 * first_order
    )
    PLANS.write(worst, tmp_path / "plan.json")
    assert PLANS.read(tmp_path / "plan.json") == worst
    assert not worst.with_stock_rounding().predicted_domains or worst.rounding is None
    one = replace(table, domains={}, rows={name: replace(row, domains={}) for name, row in table.rows.items()})
    with pytest.raises(BadUsage, match="needs sensitivities of several texts"):
        plan_for(replace(request, objective=WORST_DOMAIN), one)


@pytest.mark.llamacpp
def test_a_text_that_is_too_short_is_named_before_anything_is_measured(case, texts, tmp_path):
    options = SensitivityOptions(parse_types("Q4_K"), case.options, compensate=False)
    short = Domains((*texts.parts, Domain("note", "A short note.")))
    with pytest.raises(TextTooShort, match=r"the text note has \d tokens, at least 256 are needed"):
        price(case.model, case.tensors, case.imatrix, short, options, tmp_path)
