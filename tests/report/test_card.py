"""A card says what is known, says what is not, and nothing in a name can break it."""

import random
from dataclasses import replace

import pytest
from measurement_parts import CONDITIONS, MEASUREMENT
from model_parts import model_of

from quantplan.measurement import Estimate
from quantplan.plan import Outcome, Plan, PlannedTensor
from quantplan.quant_type import BY_NAME
from quantplan.report.card import SHORT, Identity, ancestors, base_models, card_text, front_matter, rules_text
from quantplan.report.card_data import CardData, ComparedFiles, ComparedRow, PublishedFile
from quantplan.report.card_use import tag_of
from quantplan.task_score import TaskConditions, TaskScore
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput

MODEL = model_of({"output.weight": (256, 512), "blk.0.attn_v.weight": (256, 256), "blk.1.attn_v.weight": (256, 256)})
NOBODY = Identity()


def plan_of(kind="Q4_K", **fields):
    tensors = tuple(PlannedTensor(t.name, BY_NAME[kind], t.bytes_as(BY_NAME[kind]), True) for t in MODEL.tensors)
    given = {
        "calibrated": True,
        "outcome": Outcome("optimal", 1.0, 1.0, 0.0),
        "predicted_kld": 0.0123,
        "predicted_kld_err": 0.0004,
    }
    return Plan("/home/me/model.gguf", "model", MODEL.digest, tensors, "Q4_K_M", 100, 75_000, **given | fields)


def file_of(name, size, digest=None, plan=None):
    plan = plan or plan_of()
    return PublishedFile(name, MODEL, plan.types, {each.name: each.bytes for each in plan.tensors}, size, plan, digest)


def measured(kld, name="a", error=0.0001, **fields):
    return replace(MEASUREMENT, kld=Estimate(kld, error), kld_chunk_err=error, **fields)


def published(klds, sizes=(1000, 2000, 3000), **fields):
    files = tuple(file_of(f"m-{index}.gguf", size, f"d{index}") for index, size in enumerate(sizes))
    found = {file.name: (measured(kld),) for file, kld in zip(files, klds, strict=False) if kld is not None}
    return CardData(files, found, **fields)


def rows(text, first):
    """The first table whose heading begins so, as cells."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next(index for index in range(start, len(lines)) if not lines[index].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start:end]]


def card(found, identity=NOBODY, metadata=None):
    return card_text(found, identity, metadata or {})


def test_nothing_is_invented():
    text = card(published([], sizes=(1000,)))
    assert "Nothing was measured: how much these files lose is not known." in text
    assert rows(text, "File")[2][4] == "not measured (expected: 0.0123 ± 0.0004)"
    assert "Unknown here: see the base model." in text
    assert "license:" not in text and "base_model" not in text and "quantized_by" not in text and "-hf" not in text
    assert text.startswith("---\nlibrary_name: gguf\ntags:\n- gguf\n- quantplan\n---\n\n# model GGUF\n")


def test_an_uncalibrated_expectation_is_none():
    found = CardData((file_of("m.gguf", 1000, plan=plan_of(calibrated=False)),), {})
    text = card(found)
    assert rows(text, "File")[2][4] == "not measured" and "scales are a prior" in text and "0.0123" not in text


def test_advice_follows_from_size_and_kld():
    found = {cells[0]: cells[-1] for cells in rows(card(published([0.02, 0.01, 0.005])), "File")[2:]}
    assert found == {"`m-0.gguf`": "the smallest", "`m-1.gguf`": "", "`m-2.gguf`": "loses least of those measured"}


def test_a_larger_file_that_loses_more_is_not_advised():
    found = rows(card(published([0.01, 0.02])), "File")
    assert found[3][-1] == "`m-0.gguf` is no larger and loses less"


def test_a_difference_inside_the_noise_is_no_advice():
    found = rows(card(published([0.0100, 0.01025])), "File")
    assert found[3][-1] == ""  # 0.00025 apart, errors of 0.0001 each


def test_files_under_other_conditions_are_not_compared():
    found = published([0.02, 0.01, None])
    others = replace(CONDITIONS, chunks=4)
    found = replace(found, measured={**found.measured, "m-2.gguf": (measured(0.001, conditions=others),)})
    text = card(found)
    assert rows(text, "File")[4][4].startswith("not measured")
    assert "Not measured under these conditions: `m-2.gguf`." in text
    assert "16 windows of 256 tokens; in-process" in text and "4 windows of 256 tokens; in-process" in text


def test_names_cannot_break_the_card():
    name = "a|b`c_*d*.gguf"
    text = card(CardData((file_of(name, 1000, "d"),), {name: (measured(0.01, notes=("lost | summary",)),)}))
    assert rows(text, "File")[2][0] == "``a\\|b`c_*d*.gguf``"
    assert "### a\\|b\\`c\\_\\*d\\*.gguf" in text and "lost \\| summary" in text


def test_what_was_typed_without_private_folders():
    plan = plan_of(
        made_from={
            "command": "quantplan solve -m /home/me/models/model.gguf --budget=/home/me/x.gguf --pin output=Q6_K"
        }
    )
    text = card(CardData((file_of("m.gguf", 1000, plan=plan),), {}))
    assert "quantplan solve -m model.gguf --budget=x.gguf --pin output=Q6_K\n" in text and "/home" not in text
    assert "llama-quantize --tensor-type-file m.tensor-types.txt model.gguf m.gguf Q4_K_M" in text


def test_layer_plans_show_layer_types():
    plan = plan_of(layer_types=((0, "Q4_K_M"), (1, "Q4_K_S")), flags="--output-tensor-type Q4_K")
    text = card(CardData((file_of("m.gguf", 1000, plan=plan),), {}))
    assert 'LAYER_TYPES=\'[\n[0,"Q4_K_M"],[1,"Q4_K_S"]\n]\'\nFLAGS="--output-tensor-type Q4_K"' in text
    assert "a type for each layer chosen" in text


def test_long_rules_are_folded():
    roles = ("attn_q", "attn_k", "attn_v", "ffn_up", "ffn_down")
    model = model_of({f"blk.{block}.{role}.weight": (256, 256) for block in range(8) for role in roles}, blocks=8)
    draw = random.Random(0).choice
    kinds = [BY_NAME[draw(("Q3_K", "Q4_K", "Q5_K", "Q6_K"))] for _ in model.tensors]
    tensors = tuple(PlannedTensor(t.name, k, t.bytes_as(k), True) for t, k in zip(model.tensors, kinds, strict=True))
    plan = replace(plan_of(), tensors=tensors)
    file = PublishedFile("m.gguf", model, plan.types, {t.name: t.bytes for t in tensors}, 1000, plan)
    assert len(rules_text(file).splitlines()) > SHORT
    assert "<summary>Rules for --tensor-type-file, m.tensor-types.txt</summary>" in card(CardData((file,), {}))
    assert "<details>" not in card(published([], sizes=(1000,)))


def test_comparisons_with_noise_marks_tasks_and_speeds():
    score = TaskScore(
        task="arc",
        file="x",
        model_digest="d0",
        file_bytes=1,
        outcomes=(True,) * 3 + (False,),
        conditions=TaskConditions("multiple-choice", "t", 4, 512, "cpu", "b1"),
    )
    speed = Throughput(
        file="x",
        model_digest="d0",
        file_bytes=1,
        tests=(SpeedTest("tg128", (10.0, 12.0)),),
        conditions=SpeedConditions("chip", "CPU", 2, 0, 2, "b1"),
    )
    first = ComparedRow("m-0.gguf", measured(0.01), 1, 1, 1, False, False, True, (score,), speed)
    other = ComparedRow(
        "Q4_K_M",
        measured(0.02),
        0.5,
        0.4,
        None,
        False,
        True,
        False,
        (replace(score, outcomes=(True,) * 4),),
        None,
        frozenset({"ppl", "arc"}),
    )
    text = card(published([0.01], sizes=(1000,), compared=(ComparedFiles((first, other), "At a_b it wins."),)))
    heading, _, own, rival = rows(text[text.index("against others") :], "File")
    assert heading[3:] == ["KLD", "KLD ratio", "95 % interval", "Remark"]
    assert own[:1] == ["`m-0.gguf`"] and rival == [
        "`Q4_K_M`",
        "6.74 MB",
        "≈ 37.7 ± 2.4",
        "0.02000 ± 0.00010",
        "0.500",
        "0.400 to ∞",
        "larger, inside the noise",
    ]
    assert rows(text, "Solved, %")[2:] == [["`m-0.gguf`", "75 ± 25"], ["`Q4_K_M`", "≈ 100 ± 0"]]
    assert rows(text, "Tokens/s")[2:] == [["`m-0.gguf`", "11.0 ± 1.0"], ["`Q4_K_M`", "-"]]
    assert "≈: the difference from `m-0.gguf` is inside the noise." in text and "> At a\\_b it wins." in text


def test_scores_and_speeds_of_their_own_records():
    score = TaskScore(
        task="mmlu",
        file="x",
        model_digest="d0",
        file_bytes=1,
        outcomes=(True, False) * 8,
        conditions=TaskConditions("multiple-choice", "t", 16, 512, "cpu", "b1"),
    )
    found = published([0.01], sizes=(1000,), scores={"m-0.gguf": (score,)})
    assert rows(card(found), "Solved, %")[0][1] == "mmlu (16 tasks)"


# --- front matter


HUB = "https://huggingface.co/"


def test_front_matter_from_the_metadata():
    metadata = {
        "general.license": "other",
        "general.license.name": "my: license",
        "general.license.link": "LICENSE",
        "general.languages": ("en", "no"),
        "general.source.repo_url": f"{HUB}Qwen/Qwen3-8B",
        "general.base_model.count": 1,
        "general.base_model.0.repo_url": f"{HUB}Qwen/Qwen3-8B-Base",
    }
    assert front_matter(published([]), NOBODY, metadata)[:10] == [
        "license: other",
        'license_name: "my: license"',
        "license_link: LICENSE",
        "language:",
        "- en",
        '- "no"',
        "base_model:",
        "- Qwen/Qwen3-8B",
        "base_model_relation: quantized",
        "library_name: gguf",
    ]
    assert "## License\n\nmy: license: LICENSE" in card(published([]), metadata=metadata)


def test_what_a_model_was_made_from_is_not_called_the_model():
    metadata = {"general.base_model.count": 1, "general.base_model.0.repo_url": f"{HUB}o/base"}
    assert base_models(NOBODY, metadata) == ancestors(metadata) == ("o/base",)
    lines = front_matter(published([]), NOBODY, metadata)
    assert "- o/base" in lines and "base_model_relation: quantized" not in lines


def test_what_is_given_wins():
    given = Identity(base_model="me/mine", license="mit", quantized_by="no")
    lines = front_matter(published([]), given, {"general.license": "apache-2.0", "general.license.link": "x"})
    assert lines[:5] == [
        "license: mit",
        "base_model:",
        "- me/mine",
        "base_model_relation: quantized",
        'quantized_by: "no"',
    ]
    assert "license_link" not in "".join(lines)


@pytest.mark.parametrize("url", ["https://elsewhere.org/a/b", "a/b/c", "file", 7, None, "https://huggingface.co/a/b c"])
def test_urls_that_name_no_repository(url):
    assert base_models(NOBODY, {"general.source.repo_url": url}) == ()


# --- use


NAMES = ["M-Q4_K_M.gguf", "M-UD-Q4_K_M.gguf", "M-Q4_K_M-plan.gguf", "M-4.5bpw.gguf", "M-x4.5bpw.gguf", "M2.Q8_H.gguf"]


@pytest.mark.parametrize(
    "name, tag",
    [
        ("M-Q4_K_M-plan.gguf", "plan"),
        ("M-UD-Q4_K_M.gguf", "UD-Q4_K_M"),
        ("M-4.5bpw.gguf", "4.5bpw"),
        ("M-x4.5bpw.gguf", "x4.5bpw"),
        ("M2.Q8_H.gguf", "Q8_H"),
    ],
)
def test_a_tag_is_the_shortest_that_means_the_file(name, tag):
    assert tag_of(name, NAMES) == tag


def test_a_file_that_no_tag_means_is_named_whole():
    assert tag_of("a-Q4.gguf", ["a-Q4.gguf", "a-Q4-a-Q4.gguf"]) is None
    found = CardData((file_of("a-Q4-a-Q4.gguf", 1), file_of("a-Q4.gguf", 2)), {})
    assert "llama-cli -hf o/r -hff a-Q4.gguf" in card(found, Identity("o/r"))


def test_commands_name_the_repository():
    text = card(published([]), Identity("o/r"))
    assert "llama-cli -hf o/r:2\n" in text and "llama-cli -m m-2.gguf\n" in text
    assert "Llama.from_pretrained(repo_id='o/r', filename='m-2.gguf')" in text
    assert "ollama run hf.co/o/r:2\n" in text and "ollama create m-2 -f Modelfile" in text
    assert "create_chat_completion" not in text
    assert "create_chat_completion" in card(published([]), metadata={"tokenizer.chat_template": "{{ x }}"})


def test_a_split_file_is_said_to_be_one():
    file = replace(file_of("m-00001-of-00003.gguf", 1), shards=3)
    text = card(CardData((file,), {}), Identity("o/r"))
    assert "| `m-00001-of-00003.gguf` and 2 more |" in text
    assert (
        "Ollama takes no split files: join them first with `llama-gguf-split --merge`." in text and "ollama" not in text
    )


def test_names_with_spaces_are_quoted():
    text = card(CardData((file_of("a b.gguf", 1),), {}), Identity("o/r"))
    assert "llama-cli -hf 'o/r:a b'\nllama-cli -m 'a b.gguf'\n" in text
    assert "ollama run 'hf.co/o/r:a b'\n" in text and "ollama create a-b -f Modelfile" in text


def test_tensors_in_ram_are_part_of_the_command():
    plan = plan_of(on_cpu=(r"^blk\.1\.attn_v\.weight$=CPU",))
    text = card(CardData((file_of("m.gguf", 1000, plan=plan),), {}))
    assert r"llama-cli -m m.gguf -ngl 999 --override-tensor '^blk\.1\.attn_v\.weight$=CPU'" in text
