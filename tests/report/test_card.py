"""A card says what is known, says what is not, and nothing in a name can break it."""

import math
import random
from dataclasses import replace

import pytest
from card_parts import NOBODY, card, file_of, measured, plan_of, published, rows
from measurement_parts import CONDITIONS
from model_parts import model_of

from quantplan.cache_sensitivity import ChosenCache
from quantplan.comparison import Gap
from quantplan.evaluate.compare import compare_measurements, retested
from quantplan.evaluate.published_files import PublishedFile
from quantplan.evaluate.published_tables import PublishedTable
from quantplan.measurement import Estimate
from quantplan.plan import PlannedTensor, RoundingUse
from quantplan.quant_type import BY_NAME
from quantplan.report.card_data import CardData
from quantplan.report.card_origin import Identity, ancestors, base_models, front_matter
from quantplan.report.card_provenance import SHORT, rules_text
from quantplan.report.card_use import tag_of
from quantplan.sensitivity_table import SensitivityTable
from quantplan.task_score import TaskConditions, TaskScore
from quantplan.throughput import SpeedConditions, SpeedTest, Throughput


def test_nothing_is_invented():
    text = card(published([], sizes=(1000,)))
    assert "Nothing was measured: how much these files lose is not known." in text
    assert rows(text, "File")[2][5] == "not measured (expected: 0.0123 ± 0.0004)"
    assert "Unknown here: see the base model." in text
    assert "license:" not in text and "base_model" not in text and "quantized_by" not in text and "-hf" not in text
    assert text.startswith("---\nlibrary_name: gguf\ntags:\n- gguf\n- quantplan\n---\n\n# model GGUF\n")


def test_compensated_rounding_is_named_with_its_gain():
    plan = plan_of().with_compensation(("output.weight",), RoundingUse("t" * 64, 512, 128))
    text = card(CardData((file_of("m.gguf", 1000, plan=replace(plan, stock_rounding_kld=0.02)),), {}))
    assert "by quantplan" in text and " and error-compensated rounding.\n" in text
    assert (
        "Rounding error-compensated for 1 of 3 tensors: expected KLD 0.0123, 0.02 with llama-quantize's rounding"
        in text
    )
    note = "The rules rebuild the types, not the compensated rounding of 1 tensor; `quantplan quantize` builds both."
    assert text.index("llama-quantize --tensor-type-file") < text.index(note)
    assert "compensated" not in card(published([]))


def test_an_uncalibrated_expectation_is_none():
    found = CardData((file_of("m.gguf", 1000, plan=plan_of(calibrated=False)),), {})
    text = card(found)
    assert rows(text, "File")[2][5] == "not measured" and "scales are a prior" in text and "0.0123" not in text


def test_advice_follows_from_size_and_kld():
    found = {cells[0]: cells[-1] for cells in rows(card(published([0.02, 0.01, 0.005])), "File")[2:]}
    assert found == {"`m-0.gguf`": "the smallest", "`m-1.gguf`": "", "`m-2.gguf`": "the lowest KLD of those measured"}


def test_a_larger_file_that_loses_more_is_not_advised():
    found = rows(card(published([0.01, 0.02])), "File")
    assert found[3][-1] == "`m-0.gguf` is no larger and has a significantly lower KLD"


def test_a_difference_that_is_not_significant_is_no_advice():
    found = rows(card(published([0.0100, 0.01025])), "File")
    assert found[3][-1] == ""  # 0.00025 apart, errors of 0.0001 each


@pytest.mark.parametrize("klds", [(0.01, 0.02), (0.01, 0.01025), (0.01, 0.0104), (0.01, 0.0106)])
def test_card_and_compare_agree(klds):
    """One rule says what is significant: a card never contradicts a comparison of the same measurements."""
    found = published(list(klds), sizes=(1000, 2000))
    small, large = (found.measured[file.name][0] for file in found.files)
    comparison = compare_measurements(["m-0.gguf", "m-1.gguf"], [small, large])
    text = card(replace(found, compared=(comparison,)))
    advised = "`m-0.gguf` is no larger and has a significantly lower KLD" in rows(text, "File")[3][-1]
    remark = rows(text[text.index("against others") :], "File")[3][-1]
    assert advised == comparison.rows[1].significant == ("not significant" not in remark)
    assert ("not significantly different" in comparison.verdict) != advised


def test_without_klds_per_chunk_nothing_is_said_to_be_better():
    found = published([0.01, 0.02], sizes=(1000, 2000))
    unknown = {name: (replace(own[0], per_chunk_kld=()),) for name, own in found.measured.items()}
    text = card(replace(found, measured=unknown))
    assert [cells[-1] for cells in rows(text, "File")[2:]] == ["the smallest", ""]
    assert "Not all of these KLDs are comparable" in text


def test_a_recorded_comparison_is_retested():
    comparison = compare_measurements(["a", "b"], [measured(0.01), measured(0.02)])
    wrong = replace(comparison.rows[1], gaps=comparison.rows[1].gaps | {"kld": Gap(0.01, -1, 1, False, 99)})
    assert retested(replace(comparison, rows=(comparison.rows[0], wrong))).rows == comparison.rows


def test_files_under_other_conditions_are_not_compared():
    found = published([0.02, 0.01, None])
    others = replace(CONDITIONS, chunks=4)
    found = replace(found, measured={**found.measured, "m-2.gguf": (measured(0.001, conditions=others),)})
    text = card(found)
    assert rows(text, "File")[4][5].startswith("not measured")
    assert "Not measured under these conditions: `m-2.gguf`." in text
    assert "16 chunks of 256 tokens; in-process" in text and "4 chunks of 256 tokens; in-process" in text


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
    comparison = compare_measurements(["m-0.gguf", "Q4_K_M"], [measured(0.01), measured(0.0101, file_bytes=9_000_000)])
    first, other = comparison.rows
    first = replace(first, tasks=(score,), throughput=speed)
    gaps = other.gaps | {"ppl": Gap(0, -1, 1, False), "arc": Gap(25, -1, 50, False)}
    other = replace(other, tasks=(replace(score, outcomes=(True,) * 4),), high=math.inf, gaps=gaps)
    comparison = replace(comparison, rows=(first, other), verdict="At a_b it wins.")
    text = card(published([0.01], sizes=(1000,), compared=(comparison,)))
    heading, _, own, rival = rows(text[text.index("against others") :], "File")
    assert heading[3:] == ["KLD", "KLD ratio", "95 % interval", "Remark"]
    assert own[:1] == ["`m-0.gguf`"] and rival == [
        "`Q4_K_M`",
        "9.00 MB",
        "≈ 37.7 ± 2.4",
        "≈ 0.01010 ± 0.00010",
        "0.990",
        f"{other.low:.3f} to ∞",
        "larger, not significant",
    ]
    assert rows(text, "Solved, %")[2:] == [["`m-0.gguf`", "75 ± 25"], ["`Q4_K_M`", "≈ 100 ± 0"]]
    assert rows(text, "Tokens/s")[2:] == [["`m-0.gguf`", "11.0 ± 1.0"], ["`Q4_K_M`", "-"]]
    assert "≈: not significantly different from `m-0.gguf` (p > 0.05)." in text and "> At a\\_b it wins." in text


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


def test_cache_types_and_gpus_of_a_plan():
    cache = ChosenCache("q8_0,q5_1", Estimate(0.001, 0.0001), 32768, 4096)
    found = replace(
        published([0.01], sizes=(1000,)),
        files=(file_of("m-0.gguf", 1000, "d0", plan_of(cache=cache, tensor_split=(1, 2))),),
    )
    text = card(found)
    advice = rows(text, "File")[2][-1]
    assert "planned with a KV cache of q8_0,q5_1 at 32,768 tokens, KLD 0.00100 ± 0.00010 besides" in advice
    assert "planned for 2 GPUs" in advice
    assert "llama-cli -m m-0.gguf -ngl 999 --tensor-split 1,2 -c 32768 -ctk q8_0 -ctv q5_1" in text


def test_sensitivity_tables_and_the_command_that_uses_them():
    found = published((0.1, 0.01), tables=(PublishedTable("m.sensitivity.json", SensitivityTable("d", {})),))
    text = card(found, Identity(repo="me/m-GGUF"))
    assert "`m.sensitivity.json`: the expected KLD of each tensor" in text
    assert "quantplan solve --model MODEL.gguf --sensitivity hf://me/m-GGUF/m.sensitivity.json --budget 5bpw" in text
    assert "sensitivity.json" not in card(published((0.1, 0.01)))


def test_sensitivities_of_a_sibling_are_said_to_be_its():
    noted = {"model": "base.gguf", "digest": "d"}
    plain = card(CardData((file_of("m.gguf", 1, plan=plan_of(made_from={"sibling": noted})),), {}))
    assert "measured on `base.gguf`, a model with the same names and shapes, and not checked on this one." in plain
    checked = noted | {"check": {"tensors": [{}] * 8, "correlation": 0.987}}
    text = card(CardData((file_of("m.gguf", 1, plan=plan_of(made_from={"sibling": checked})),), {}))
    assert "checked on this one by probing 8 tensors (correlation of log KLD 0.99)." in text
