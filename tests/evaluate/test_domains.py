"""Texts of several kinds: each is measured by itself, and all together."""

import json
from dataclasses import replace

import pytest
from measurement_parts import MEASUREMENT, measured
from tiny_models import tiny_tied

from quantplan.comparison import of_domain
from quantplan.errors import BadUsage, TextTooShort
from quantplan.evaluate.compare import compare_measurements
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.text_places import placed
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine, shared_out
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.texts import read_texts
from quantplan.measurement import DomainFigures, Estimate, Figures
from quantplan.records.comparison_csv import comparison_csv
from quantplan.records.formats import COMPARISONS, MEASUREMENTS
from quantplan.records.journal import text_digest
from quantplan.report.comparison_tables import comparison_tables
from quantplan.report.domain_table import WORST, domain_table
from quantplan.spikes import Spike
from quantplan.text import Domain, Domains, SpecialText, undivided

N_CTX = 32
OPTIONS = MeasureOptions(N_CTX, execution=Execution(1))
LINES = Domain(
    "lines", "".join(f"This is line {number} of a text, and nothing else is in it.\n" for number in range(40))
)
CODE = Domain("code", "".join(f"def f{number}(x): return x + {number}  # adds\n" for number in range(40)))
TEXTS = Domains((LINES, CODE))


@pytest.mark.parametrize(
    ("limit", "available", "expected"),
    [
        (None, [3, 9], [3, 9]),
        (8, [3, 9], [3, 5]),
        (8, [9, 3], [5, 3]),
        (7, [9, 9, 9], [3, 2, 2]),
        (1, [9, 9], [2, 2]),
        (99, [3, 9], [3, 9]),
    ],
)
def test_chunks_are_shared_out(limit, available, expected):
    assert sorted(shared_out(limit, available)) == sorted(expected)
    assert all(one <= other for one, other in zip(shared_out(limit, available), available, strict=True))


def test_each_text_is_cut_by_itself(reference_model):
    with Engine(reference_model, EngineOptions(N_CTX, vocabulary_only=True)) as engine:
        cut = engine.domain_chunks(TEXTS)
        for part in TEXTS.parts:
            assert cut[part.name].tolist() == engine.chunks(part.text).tolist()
        assert engine.chunks(TEXTS).tolist() == cut["lines"].tolist() + cut["code"].tolist()
        assert [len(chunks) for chunks in engine.domain_chunks(TEXTS, 6).values()] == [3, 3]
        assert list(engine.domain_chunks(LINES.text)) == [""]
        assert engine.tokenize(TEXTS).tolist() == engine.tokenize(f"{LINES.text}\n{CODE.text}").tolist()
        with pytest.raises(TextTooShort, match=r"the text short has \d tokens, at least 64 are needed"):
            engine.chunks(Domains((LINES, Domain("short", "Too short."))))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [tiny_tied(folder / f"{seed}.gguf", seed) for seed in (0, 1)]


def test_figures_of_each_text_and_of_all(models, tmp_path):
    base, file = models
    (both,) = measure(base, [file], TEXTS, OPTIONS, cache=tmp_path)
    alone = [measure(base, [file], part.text, OPTIONS)[0] for part in TEXTS.parts]
    assert both.conditions.chunks == sum(each.conditions.chunks for each in alone)
    assert both.per_chunk_kld == pytest.approx(alone[0].per_chunk_kld + alone[1].per_chunk_kld, rel=1e-3)
    for domain, part, each in zip(both.domains, TEXTS.parts, alone, strict=True):
        assert (domain.name, domain.chunks) == (part.name, each.conditions.chunks)
        assert domain.kld.value == pytest.approx(each.kld.value, rel=1e-3)
        assert domain.ppl.value == pytest.approx(each.ppl.value, rel=1e-3)
        assert both.domain_klds()[domain.name] == pytest.approx(each.per_chunk_kld, rel=1e-3)
    assert both.worst_domain == max(both.domains, key=lambda domain: domain.kld.value).name
    assert both.conditions.text_digest == text_digest(TEXTS) != text_digest(undivided(TEXTS))
    MEASUREMENTS.write(both, tmp_path / "record.json")
    assert MEASUREMENTS.read(tmp_path / "record.json") == both
    assert json.loads((tmp_path / "record.json").read_text())["worst_domain"] == both.worst_domain
    assert measure(base, [file], TEXTS, OPTIONS, cache=tmp_path) == [both], "kept"


def test_a_file_without_loss_has_no_worst_text(models):
    (same,) = measure(models[0], [models[0]], TEXTS, replace(OPTIONS, chunks=4))
    assert [domain.chunks for domain in same.domains] == [2, 2] and same.worst_domain is None


def test_a_place_is_named_with_its_text(reference_model):
    chats = SpecialText(tuple(f"<|endoftext|>{line}" for line in CODE.text.splitlines(keepends=True)))
    texts = Domains((LINES, Domain("chats", chats)))
    spikes = [Spike(2, 1.0, 9.0), Spike(5 + 6, 1.0, 9.0)]
    first, second = placed(spikes, read_model(reference_model), texts, N_CTX, [("lines", 5), ("chats", 9)])
    assert (first.domain, second.domain) == ("lines", "chats")
    for spike, lines in ((first, LINES.text), (second, "".join(chats.pieces))):
        assert spike.words in " ".join("".join(lines.splitlines(keepends=True)[spike.line - 1 :]).split())
        assert spike.words not in " ".join("".join(lines.splitlines(keepends=True)[spike.line :]).split())


# --- tables


def with_domains(file, first):
    """The made-up chunks of a file as those of two texts; ``first`` has the KLD of the first."""
    own = {
        name: getattr(MEASUREMENT, name) for name in Figures.__dataclass_fields__ if not name.startswith("per_chunk")
    }
    klds = (first, 0.004)
    domains = tuple(
        DomainFigures(**(own | {"kld": Estimate(kld, 0.0001)}), name=name, chunks=8)
        for name, kld in zip(("code", "prose"), klds, strict=True)
    )
    return replace(file, domains=domains)


@pytest.fixture
def compared():
    files = [with_domains(measured(1, seed=1), 0.002), with_domains(measured(2, seed=2), 0.03)]
    return compare_measurements(["plan", "other"], files)


def test_files_are_compared_on_each_text(compared, tmp_path):
    other = compared.rows[1]
    assert set(other.gaps) >= {of_domain("code"), of_domain("prose")}
    assert other.gaps[of_domain("code")].difference > 0 and other.gaps[of_domain("code")].decided
    assert compared.verdict.endswith("of 2 texts; plan loses most on prose (KLD 0.004).")
    assert "kld:code,kld:code_err" in comparison_csv(compared).splitlines()[0]
    COMPARISONS.write(compared, tmp_path / "c.json")
    assert COMPARISONS.read(tmp_path / "c.json") == compared


def test_the_worst_text_is_marked(compared):
    table = comparison_tables(compared)[-1]
    assert table.title == "By text" and [row[:2] for row in table.rows] == [
        ("code", "plan"), ("code", "other"), ("prose", "plan"), ("prose", "other"),
    ]  # fmt: skip
    assert [row[-1] for row in table.rows] == ["", WORST, WORST, ""]
    assert table.rows[1][7].startswith("+") and table.rows[0][7] == ""
    alone = domain_table(["plan"], [compared.rows[0].measurement])
    assert len(alone.headings) == len(table.headings) - 2
    assert comparison_tables(compare_measurements(["a", "b"], [measured(1), measured(2)]))[-1].title != "By text"


# --- files


def test_each_file_is_a_domain_of_its_name(reference_model, tmp_path):
    model = read_model(reference_model)
    for name in ("b.txt", "a.md"):
        (tmp_path / name).write_text(name)
    assert read_texts([tmp_path], model) == Domains((Domain("a", "a.md"), Domain("b", "b.txt")))
    assert read_texts([tmp_path / "b.txt"], model) == "b.txt"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("another")
    with pytest.raises(BadUsage, match=r"a.md and .*a.txt are both called a, .* rename one"):
        read_texts([tmp_path, tmp_path / "more"], model)
