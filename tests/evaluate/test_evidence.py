"""Files judged by all that was measured of them: order, marks, refusals, and the tables that come of it."""

import csv
import html.parser
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from measurement_parts import SIZE, measured

from quantplan.comparison import ComparedFile
from quantplan.errors import BadFile, BadUsage, ConditionsDiffer
from quantplan.evaluate.compare import CompareOptions, compare_files
from quantplan.evaluate.from_records import are_records, read_compared_files
from quantplan.records.comparison_csv import comparison_csv
from quantplan.records.formats import COMPARISONS, MEASUREMENTS, TASK_SCORES, THROUGHPUTS
from quantplan.report.comparison_tables import comparison_tables
from quantplan.report.table import Table, as_html, as_markdown
from quantplan.task_score import TaskConditions, TaskScore, average
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput

CONDITIONS = TaskConditions("multiple-choice", "d" * 64, 400, 256, "cpu", "0.5.0 (build 1)")
MACHINE = SpeedConditions("EPYC", "CPU", 2, 0, 3, "0c1e570 (1)")


def score(task, share, seed=0, **change):
    outcomes = tuple(bool(each) for each in np.random.default_rng(seed).random(400) < share)
    conditions = replace(CONDITIONS, **change)
    return TaskScore(
        task=task, file="a.gguf", model_digest="c" * 64, file_bytes=SIZE, outcomes=outcomes, conditions=conditions
    )


def speed(prompt, generation, **change):
    tests = (SpeedTest("pp512", (prompt, prompt + 1, prompt - 1)), SpeedTest("tg128", (generation,) * 3))
    conditions = replace(MACHINE, **change)
    return Throughput(file="a.gguf", model_digest="c" * 64, file_bytes=SIZE, tests=tests, conditions=conditions)


def contestant(name, factor, size=SIZE, tasks=(0.6, 0.5), seed=1, tps=(300.0, 30.0)):
    scores = (score("arc", tasks[0], 3), score("mmlu", tasks[1], 4)) if tasks else ()
    return ComparedFile(
        name=name,
        measurement=measured(factor, size, seed=seed),
        tasks=scores,
        throughput=speed(*tps) if tps else None,
        blocks=10,
        elements=10_099_200,
    )


@pytest.fixture
def three():
    """Two that are much alike, and one that is larger, better and slower."""
    return [
        contestant("mine", 1),
        contestant("theirs", 1.01, seed=2),
        contestant("large", 0.1, size=2 * SIZE, tasks=(0.8, 0.7), tps=(200.0, 20.0)),
    ]


def test_scores_and_average():
    one, two = score("arc", 0.6), score("mmlu", 0.5)
    share = sum(one.outcomes) / 400
    assert one.score.value == 100 * share
    assert one.score.stderr == pytest.approx(100 * (share * (1 - share) / 399) ** 0.5)
    assert average([one, two]).value == (one.score.value + two.score.value) / 2
    assert average([one, two]).stderr == pytest.approx(np.hypot(one.score.stderr, two.score.stderr) / 2)
    assert replace(one, outcomes=(True,)).score.stderr is None


def test_what_is_inside_the_noise_is_marked(three):
    found = compare_files(three, CompareOptions(("f16", 3 * SIZE)))
    mine, theirs, large = found.rows
    assert mine.gaps == {} and set(large.gaps) == {"kld", "ppl", "arc", "mmlu", "average", "pp512", "tg128"}
    assert theirs.alike("kld") and theirs.alike("arc") and theirs.alike("tg128")
    assert not any(large.alike(name) for name in ("kld", "arc", "mmlu", "average", "pp512", "tg128"))
    assert large.gaps["kld"].difference == pytest.approx(-0.9 * mine.measurement.per_chunk_kld[0], rel=0.5)
    assert large.gaps["tg128"].difference == -10
    assert mine.shrinkage == pytest.approx(2 / 3) and large.shrinkage == pytest.approx(1 / 3)
    assert found.reference == "f16 (20.21 MB)"
    sizes, losses, against, tasks, speeds = comparison_tables(found)
    assert losses.rows[1][3].startswith("≈ ") and not losses.rows[2][3].startswith("≈")
    assert "chunks" in against.rows[0][-1] and "tokens) would decide" in against.rows[0][-1]
    assert against.rows[1][-1] == "lower"
    assert tasks.headings == ("File", "arc", "mmlu", "Average", "against mine")
    assert tasks.rows[1][-1] == "+0.00" and float(tasks.rows[2][-1]) == pytest.approx(20, abs=4)
    assert tasks.rows[1][1].startswith("≈ ")
    assert speeds.rows[2][1] == "200.00 ± 0.58" and speeds.rows[1][1].startswith("≈ ")
    assert sizes.rows[0][1:3] == ("6.74", "66.7 %") and sizes.rows[2][-1] == "larger"
    assert any("McNemar" in note for note in tasks.notes) and any("EPYC" in note for note in speeds.notes)


def test_a_leaderboard(three):
    found = compare_files(three, CompareOptions(sort_by="kld"))
    assert [row.name for row in found.rows] == ["large", "mine", "theirs"]
    kld = three[0].measurement.kld.value
    leader = three[2].measurement.kld.value
    expected = f"large leads by kld ({leader:.4g}), then mine ({kld:.4g}). Measured on 16 chunks of 256 tokens."
    assert found.verdict == expected
    assert [row[:2] for row in comparison_tables(found)[0].rows] == [("large", "1"), ("mine", "2"), ("theirs", "3")]
    assert [row[:2] for row in comparison_tables(found)[2].rows] == [("mine", "2"), ("theirs", "3")]
    assert [row.name for row in compare_files(three, CompareOptions(sort_by="average")).rows][0] == "large"
    fastest = compare_files(three, CompareOptions(sort_by="tg128"))
    assert fastest.verdict.startswith(
        "mine leads by tg128 (30), then theirs (30). Not significantly different from mine: theirs."
    )
    assert compare_files(three, CompareOptions(sort_by="size")).rows[-1].name == "large"
    with pytest.raises(BadUsage, match=r"--sort hellaswag: not measured of mine; there is kld, ppl"):
        compare_files(three, CompareOptions(sort_by="hellaswag"))


def test_layers_and_weights_where_they_differ(three):
    """Surgery: a model with two layers more."""
    sizes = comparison_tables(compare_files(three))[0]
    assert "Layers" not in sizes.headings and "Weights" not in sizes.headings
    longer = replace(three[1], blocks=12, elements=1_820_000_000)
    sizes = comparison_tables(compare_files([three[0], longer]))[0]
    at = sizes.headings.index("Layers")
    assert [row[at : at + 2] for row in sizes.rows] == [("10", "10.10 M"), ("12", "1.82 B")]


def test_the_first_file_has_its_own_name(three):
    assert "mine and theirs" in compare_files(three[:2], CompareOptions(subject="mine")).verdict


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": (score("arc", 0.5), score("mmlu", 0.5, data_digest="e" * 64))}, "data_digest dddddddddddd / eeeee"),
        ({"tasks": (score("arc", 0.5, tasks=399), score("mmlu", 0.5))}, "arc of a.gguf.*tasks 400 / 399"),
        ({"tasks": (score("arc", 0.5),)}, "mine was measured at the tasks arc, mmlu, theirs at arc"),
        ({"throughput": speed(1.0, 2.0, threads=4)}, "threads 2 / 4"),
        ({"throughput": speed(1.0, 2.0, processor="M4")}, "processor EPYC / M4"),
        ({"throughput": None}, "the speed of theirs was not measured"),
    ],
)
def test_other_conditions_are_refused(three, change, said):
    with pytest.raises(ConditionsDiffer, match=said):
        compare_files([three[0], replace(three[1], **change)])


def test_without_single_chunks_there_is_no_pairing(three):
    unpaired = replace(three[1], measurement=replace(three[1].measurement, per_chunk_kld=()))
    with pytest.raises(BadUsage, match="theirs has no KLDs per chunk"):
        compare_files([three[0], unpaired])


# --- files


def test_records_are_read_as_they_were_written(tmp_path):
    TASK_SCORES.write(score("arc", 0.5), tmp_path / "a.json")
    assert TASK_SCORES.read(tmp_path / "a.json") == score("arc", 0.5)
    THROUGHPUTS.write(speed(300.0, 30.0), tmp_path / "b.json")
    assert THROUGHPUTS.read(tmp_path / "b.json") == speed(300.0, 30.0)


@pytest.mark.parametrize("damage", [{"outcomes": "012"}, {"outcomes": ""}, {"conditions": {}}, {"notes": None}])
def test_a_damaged_score_is_refused(tmp_path, damage):
    TASK_SCORES.write(score("arc", 0.5), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | damage))
    with pytest.raises(BadFile, match="damaged score"):
        TASK_SCORES.read(tmp_path / "a.json")


def test_records_compare_like_files(tmp_path):
    paths = []
    for name, digest in (("one", "1" * 64), ("two", "2" * 64)):
        of = {"file": f"{name}.gguf", "model_digest": digest}
        MEASUREMENTS.write(replace(measured(1, seed=int(digest[0])), **of), tmp_path / f"{name}.json")
        TASK_SCORES.write(replace(score("arc", 0.5), **of), tmp_path / f"{name}-arc.json")
        THROUGHPUTS.write(replace(speed(300.0, 30.0), **of), tmp_path / f"{name}-speed.json")
        paths += [tmp_path / f"{name}{kind}.json" for kind in ("-arc", "-speed", "")]
    assert are_records(paths)
    found = compare_files(read_compared_files(paths))
    assert [row.name for row in found.rows] == ["one.gguf", "two.gguf"]
    assert found.rows[1].alike("arc") and found.rows[1].throughput
    with pytest.raises(BadUsage, match=r"no record of the KLD of one.gguf"):
        read_compared_files(paths[:2])
    with pytest.raises(BadUsage, match="a second record"):
        read_compared_files([paths[0], paths[0]])
    with pytest.raises(BadUsage, match=r"only with records, and .*model.gguf is not one"):
        are_records([*paths, tmp_path / "model.gguf"])
    assert not are_records([tmp_path / "model.gguf", tmp_path / "gone.json"])


def test_csv_has_a_line_a_file_and_plain_numbers(three):
    found = compare_files(three, CompareOptions(("f16", 3 * SIZE)))
    first, second, third = csv.DictReader(io.StringIO(comparison_csv(found)))
    assert (first["name"], first["kld_difference"], first["arc_alike"]) == ("mine", "", "0")
    assert (second["arc_alike"], third["arc_alike"]) == ("1", "0")
    assert float(third["average"]) == third_average(three) and float(third["tg128"]) == 20
    assert float(third["kld_difference_low"]) < float(third["kld_difference"]) < 0
    assert float(first["arc_err"]) == pytest.approx(three[0].tasks[0].score.stderr)


def third_average(three):
    return average(three[2].tasks).value


def test_json_holds_everything(tmp_path, three):
    found = compare_files(three)
    COMPARISONS.write(found, tmp_path / "c.json")
    row = COMPARISONS.encode(found)["rows"][2]
    assert row["gaps"]["arc"]["decided"] and row["average"] == third_average(three)
    assert row["throughput"]["tests"][1] == {"name": "tg128", "tps": 20.0, "tps_err": 0.0, "samples": [20.0] * 3}
    assert len(row["tasks"][0]["outcomes"]) == 400 and row["shrinkage"] is None


def test_markdown(three):
    found = compare_files(three)
    text = as_markdown(comparison_tables(found), found.verdict)
    assert text.endswith(f"\n{found.verdict}\n")
    lines = [line for line in text.splitlines() if line.startswith("| mine")]
    assert len(lines) == 4  # its own row is not held against itself
    assert "| File | arc | mmlu | Average | against mine |\n| :-- | --: | --: | --: | --: |\n| mine |" in text
    assert "a\\|b" in as_markdown([Table("t", ("File",), (("a|b",),))], "")


class Page(html.parser.HTMLParser):
    """Text of the cells, and every tag closed that was opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_html_is_a_page_of_its_own(three):
    found = compare_files([replace(three[0], name="<b>mine"), *three[1:]])
    page = Page(as_html(comparison_tables(found), "mine & others", found.verdict))
    assert page.links == [] and "<b>mine" in page.cells and "≈ " in "".join(page.cells)
