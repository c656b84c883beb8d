"""`quantplan score` as a person runs it."""

import json
import re
import shutil

import pytest
from chat_models import SWITCHED, with_template
from rpc_server import rpc_server

from quantplan.evaluate.suites.suite_gap import TOO_FEW
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.llamacpp.quantize import Recipe, quantize

SUITE = """\
format: quantplan-suite
version: 1
name: tiny
parts:
  - name: words
    kind: facts
    weight: 3
    max_tokens: 8
    items:
      - {name: any, question: "Who?", accept: [/.+/]}
      - {name: none, question: "Who?", accept: [zyx]}
  - kind: direct
    weight: 1
    max_tokens: 8
    items:
      - {question: "Who?"}
  - kind: perplexity
    weight: 1
"""


@pytest.fixture
def suite(workplace):
    (workplace / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    return "tiny.yaml"


@pytest.fixture(scope="session")
def quantized(reference_model, tmp_path_factory):
    """The bundled model in Q4_0."""
    path = tmp_path_factory.mktemp("scored") / "prose-Q4_0.gguf"
    quantize(reference_model, Recipe("Q4_0", pure=True), path, threads=1)
    return path


@pytest.mark.llamacpp
def test_answers_elsewhere_are_the_same(command, workplace, suite, reference_model, monkeypatch):
    """Each in a cache of its own: nothing is taken from another."""
    answers = []
    with rpc_server() as server:
        for extra in ((), ("--jobs", 2), ("--rpc", server.address)):
            monkeypatch.setenv("QUANTPLAN_CACHE", str(workplace / f"cache{len(answers)}"))
            ended = command("score", reference_model, "--suite", suite, "--threads", 1, *extra, "--json")
            assert ended.code == 0, ended.err
            (score,) = json.loads(ended.out)
            answers.append([item["text"] for part in score["parts"] for item in part["items"]])
            assert score["conditions"]["backend"] == (f"RPC[{server.address}]" if "--rpc" in extra else "cpu")
    assert answers[0] == answers[1] == answers[2] and len(answers[0]) == 2
    ended = command("score", reference_model, "--suite", suite, "--rpc", "127.0.0.1:1")
    assert ended.code == 1 and "no RPC server answers at 127.0.0.1:1" in ended.error


@pytest.mark.llamacpp
def test_two_models_and_a_text(command, workplace, suite, reference_model, quantized, small_text):
    words = ("score", quantized, "--suite", suite, "--model", reference_model, "--text", small_text)
    ended = command(*words, "--ctx", 128, "--chunks", 4, "--threads", 1, "--out", "records", "--show-answers")
    assert ended.code == 0, ended.err
    assert "words" in ended.out and "perplexity" in ended.out and "Difference from" in ended.out
    assert "Without direct: the file has no chat template." in ended.out
    assert TOO_FEW in " ".join(ended.out.split())
    assert re.search(r"words: none  0\.00 \(no zyx\)  '", ended.out)
    assert "Length of answers" in ended.out and "100.0 %" in ended.out  # 8 tokens end no answer of this model
    assert "prose-Q4_0.gguf: the file has no chat template" in ended.err
    records = sorted((workplace / "records").iterdir())
    assert len(records) == 2 and all(name.name.endswith(".suite.json") for name in records)
    found = {path.name[:9]: SUITE_SCORES.read(path) for path in records}
    assert found["prose-10m"].parts[-1].credit.value == 1
    ratio = found["prose-Q4_"].parts[-1].credit
    assert 0.8 < ratio.value <= 1 and ratio.stderr > 0
    assert found["prose-Q4_"].conditions.suite == "tiny"


@pytest.mark.llamacpp
def test_json_and_what_is_kept(command, suite, reference_model, quantized, files):
    words = (
        "surgery",
        "score",
        quantized,
        reference_model,
        "--suite",
        suite,
        "--model",
        reference_model,
        "--threads",
        1,
    )
    before = command(*words, "--dry-run")
    assert before.code == 0 and before.out.count("to be asked") == 2
    assert "suite tiny: 3 items, at most 24 tokens a model" in before.out
    assert "words (facts): 2 items, 60 % of the score" in before.out
    announced = json.loads(command(*words, "--dry-run", "--json").out)
    assert announced["items"] == 3 and set(announced["kept"].values()) == {False}
    assert announced["parts"][0]["share"] == pytest.approx(60)
    assert files() == ["tiny.yaml"]
    ended = command(*words, "--json")
    one, base = json.loads(ended.out)
    assert one["against"]["file"] == base["file"] and base["against"] is None
    assert one["against"]["overall"]["low"] is None and one["against"]["overall"]["high"] is None
    assert one["score"] == 50.0 and one["score_err"] > 0 and one["items"] == 2
    assert [part["reason"] for part in one["parts"]][0] == ""
    assert one["parts"][0]["items"][0]["text"].strip()
    assert TOO_FEW in one["judgement"]
    assert command(*words, "--dry-run").out.count(": answers are in the cache") == 2
    assert json.loads(command(*words, "--json").out) == [one, base]


def test_a_chat_template_is_used(command, workplace, suite, reference_model):
    with_template(reference_model, workplace / "chat.gguf", SWITCHED)
    (score,) = json.loads(command("score", "chat.gguf", "-s", suite, "--threads", 1, "--json").out)
    assert score["template"] and score["thinks"] == "switch"
    direct = score["parts"][1]
    assert direct["reason"] == "" and direct["share"] == 25
    assert [item["name"] for item in direct["items"]] == ["1"]


def test_suites_side_by_side(command, suite, small_model):
    ended = command("score", small_model, "--suite", "short", "--suite", suite, "--dry-run")
    assert ended.code == 0
    assert "suite short+tiny: 78 items" in ended.out
    assert "words (facts)" in ended.out and "tiny:direct (direct)" in ended.out


def test_the_suite_of_the_command(command, small_model):
    """320 items without an option; fewer or other parts, and more items where a program makes them."""
    ended = command("score", small_model, "--dry-run")
    assert ended.code == 0 and "suite assistant: 320 items" in ended.out
    words = ("score", small_model, "--dry-run", "--json", "--items", 70, "--parts", "tools,facts")
    parts = json.loads(command(*words).out)["parts"]
    assert [(part["name"], part["items"]) for part in parts] == [("tools", 70), ("facts", 60)]
    assert "suite short: 75 items" in command("score", small_model, "--dry-run", "--suite", "short").out
    without = json.loads(
        command("score", small_model, "--dry-run", "--json", "--parts=-code", "--suite", "default").out
    )
    assert len(without["parts"]) == 5
    ended = command("score", small_model, "--parts", "tool")
    assert ended.code == 2 and "the suite assistant has the parts tools, instructions, code" in ended.error


@pytest.mark.llamacpp
def test_abilities_against_the_base(command, reference_model, quantized):
    words = (
        "score",
        quantized,
        "--base",
        reference_model,
        "--items",
        2,
        "--parts",
        "tools,instructions,arithmetic,facts",
    )
    ended = command(*words, "--threads", 1)
    assert ended.code == 0 and "notice" not in ended.err
    assert "Without tools: the file has no chat template to offer tools in." in ended.out
    assert "prose-Q4_0.gguf" in ended.out and "Tokens / those of" in ended.out
    (one,) = json.loads(command(*words, "--threads", 1, "--json").out)
    assert one["against"]["part_items"] == {"instructions": 2, "arithmetic": 2, "facts": 2}
    assert one["against"]["directional"] == ["instructions", "arithmetic", "facts"]
    assert one["lengths"]["answers"] == 6 and one["against"]["lengths"]["tokens"]["ratio"] > 0
    assert one["parts"][0]["reason"] and one["parts"][0]["credit"] is None


def test_the_project_says_what_is_the_original(command, workplace, suite, small_model):
    shutil.copy(small_model, workplace / "model.gguf")
    assert command("init", "model.gguf").code == 0
    ended = command("score", "model.gguf", "--suite", suite, "--threads", 1)
    assert ended.code == 0, ended.err
    assert "Difference from" not in ended.out  # the original itself
    assert [path.name[:6] for path in (workplace / "reports").glob("*.suite.json")] == ["model-"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--text", "t.txt"), 2, "the suite assistant has no perplexity part; leave --text out, or give --suite short"),
        (
            ("--text", "t.txt", "--suite", "short"),
            2,
            "the perplexity part needs the original model; name it with --model",
        ),
        (("--chunks", "4"), 2, "--ctx and --chunks cut the text of the perplexity part; name one with --text FILE"),
        (("--suite", "none.yaml"), 3, "cannot read the suite none.yaml: No such file or directory; give a YAML file"),
        (("--suite", "bad.yaml"), 3, r"bad.yaml, line 5: part 1 \(words\): `kind` is 'fact'; the kinds are tools"),
        (("--suite", "tiny.yaml", "--suite", "tiny.yaml", "-s", "tiny.yaml"), 2, "two suites have the name tiny"),
    ],
)
def test_mistakes(command, workplace, suite, small_model, words, code, message):
    (workplace / "bad.yaml").write_text(SUITE.replace("kind: facts", "kind: fact"), encoding="utf-8")
    ended = command("score", small_model, *words)
    assert ended.code == code
    assert re.search(message, ended.error)


def test_no_model(command, workplace):
    (workplace / "no.gguf").write_bytes(b"nothing")
    for name in ("no.gguf", "none.gguf"):
        ended = command("score", name)
        assert ended.code == 3 and name in ended.error


def test_a_header_without_weights(command, workplace):
    from quantplan.gguf.writer import write_header_only
    from quantplan.quant_type import BY_NAME

    write_header_only(workplace / "header.gguf", "llama", {}, [("blk.0.attn_q.weight", (4096, 65536), BY_NAME["F16"])])
    ended = command("score", "header.gguf")
    assert ended.code == 3 and "header without weights" in ended.error


def test_a_template_that_cannot_be_rendered(command, workplace, suite, small_model):
    with_template(small_model, workplace / "broken.gguf", "{% if %}")
    ended = command("score", "broken.gguf", "--suite", suite)
    assert ended.code == 3
    assert "is not Jinja" in ended.error


def test_a_full_disk_leaves_no_record(command, files, suite, small_model, full_disk):
    ended = command("score", small_model, "--suite", suite, "--threads", 1, "--out", "records")
    assert ended.code == 11
    assert files() == ["tiny.yaml"]


def test_help_ends_with_an_example(command):
    ended = command("score", "--help")
    assert ended.code == 0
    assert "Example: quantplan score prose-10m-f16.gguf" in ended.out
