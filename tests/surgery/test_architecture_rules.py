"""What a layer map may do to a model, by the header alone: each class of architecture, and why it says no."""

import re
from itertools import groupby

import model_shapes as shapes
import pytest

from quantplan.errors import BadUsage
from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.quant_type import BY_NAME
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.architectures.block_kinds import block_kinds
from quantplan.surgery.architectures.check import check, doubts, metadata_changes, violations
from quantplan.surgery.architectures.rules import RULES
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.layer_map import LayerMap, copy_of
from quantplan.surgery.operation import operate

F16 = BY_NAME["F16"]
_written: dict[str, object] = {}


def pattern(model):
    """The kind of each block, None where the rules are unknown or refuse every map."""
    kinds = block_kinds(model)
    if model.architecture not in RULES or kinds.refused:
        return None
    return tuple(kinds.name(block) or "alike" for block in range(model.blocks))


@pytest.fixture
def published(tmp_path_factory):
    """The header of a published model by its name in model_shapes."""

    def read(name):
        if name not in _written:
            _written[name] = read_model(getattr(shapes, name).write(tmp_path_factory.mktemp("shapes") / f"{name}.gguf"))
        return _written[name]

    return read


@pytest.fixture
def made(tmp_path):
    """A header of an architecture: blocks of one small matrix, metadata without the architecture's prefix."""

    def make(architecture, blocks=12, rows=lambda block: 32, vocabulary=64, **numbers):
        metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()}
        tensors = [("token_embd.weight", (32, vocabulary), F16)]
        tensors += [(f"blk.{block}.ffn_up.weight", (32, rows(block)), F16) for block in range(blocks)]
        path = tmp_path / f"{architecture}.gguf"
        write_header_only(path, architecture, {f"{architecture}.block_count": blocks, **metadata}, tensors)
        return read_model(path)

    return make


def allowed(model, text, skip_check=False):
    """The number of layers, the notes and the changed metadata of edits that are allowed."""
    made = apply_edits(model.blocks, parse_edits(text), model.mtp_blocks)
    notes = check(model, made, skip_check)
    return len(made), notes, metadata_changes(model, made)


def refused(model, text, skip_check=False):
    with pytest.raises(BadUsage) as error:
        check(model, apply_edits(model.blocks, parse_edits(text), model.mtp_blocks), skip_check)
    return str(error.value)


def runs(kinds):
    return [(kind, len(list(same))) for kind, same in groupby(kinds)]


# --- blocks all alike


@pytest.mark.parametrize("name", ["QWQ_32B", "QWEN3_1_7B", "QWEN3_30B_A3B", "PHI_3_MINI", "MAMBA_130M"])
def test_blocks_that_are_all_alike_go_anywhere(published, name):
    model = published(name)
    for text in ("delete 10", "swap 11 12", "repeat 8-10", "reverse 0-5", "bridge 5 after 20", "blend 2 9 0.5"):
        assert allowed(model, text)[1:] == ((), {})
    assert set(pattern(model)) == {"alike"}


def test_a_map_of_another_number_of_blocks_is_refused(published):
    with pytest.raises(BadUsage, match="for a model of 5 layers, this one has 28"):
        check(published("QWEN3_1_7B"), LayerMap(5, (copy_of(1),)))


def test_more_blocks_than_llama_cpp_holds(published):
    assert "513 layers are more than the 512" in refused(published("QWEN3_1_7B"), "repeat 0-4 x98")
    assert allowed(published("QWEN3_1_7B"), "repeat 0-10 x45")[0] == 512


# --- a period


def test_the_published_hybrid_takes_whole_periods(published):
    model = published("QWEN3_5_2B")
    assert runs(pattern(model)) == [("recurrent", 3), ("attention", 1)] * 6
    for text in ("repeat 8-11", "repeat 7-10"):  # the two published models, 24 + 4
        assert allowed(model, text) == (28, (), {})
    for first in range(17):  # the two passes of their search: blocks of 8 and of 4 anywhere
        assert allowed(model, f"repeat {first}-{first + 7}")[0] == 32
        assert allowed(model, f"repeat {first}-{first + 3}")[0] == 28


def test_the_published_hybrid_refuses_a_part_of_a_period(published):
    said = refused(published("QWEN3_5_2B"), "repeat 8-10")
    assert "layer 11 would be the original's 8 (recurrent)" in said
    assert (
        "llama.cpp takes layer 11 as attention (qwen35.full_attention_interval = 4: the last layer of every 4" in said
    )
    assert "27 layers are not a multiple of 4 like the original's 24" in said


@pytest.mark.parametrize(
    "text", ["delete 10", "swap 11 12", "bridge 5 after 20", "reverse 8-11", "blend 2 3 0.5 into 3"]
)
def test_what_breaks_a_period_is_refused_even_when_the_check_is_skipped(published, text):
    assert refused(published("QWEN3_5_2B"), text) == refused(published("QWEN3_5_2B"), text, skip_check=True)


@pytest.mark.parametrize(
    "text", ["swap 3 7", "swap 0 5", "reverse 7-11", "delete 8-11", "move 4-7 after 19", "blend 0 1 0.5 into 1"]
)
def test_exchanges_within_a_kind_keep_a_period(published, text):
    assert allowed(published("QWEN3_5_35B_A3B"), text)[1:] == ((), {})


def test_a_last_period_cut_short_is_done_when_the_check_is_skipped(published):
    model = published("QWEN3_5_2B")
    assert refused(model, "delete 23").endswith("--skip-architecture-check does it anyway")
    count, notes, _ = allowed(model, "delete 23", skip_check=True)
    assert count == 23 and notes == doubts(model, apply_edits(24, parse_edits("delete 23")))


def test_an_original_of_no_whole_number_of_periods_may_have_any(made):
    model = made("gemma3", 26, attention__sliding_window=512)  # as Gemma 3 1B
    assert allowed(model, "delete 25")[0] == 25
    assert "layer 5 would be the original's 6 (sliding)" in refused(model, "delete 5")


PERIODS = [
    ("gemma2", {}, 2, "sliding", "full"),
    ("gemma3", {"attention__sliding_window": 8}, 6, "sliding", "full"),
    ("gemma3", {"attention__sliding_window": 8, "attention__sliding_window_pattern": 3}, 3, "sliding", "full"),
    ("cohere2", {}, 4, "sliding", "full"),
    ("gpt-oss", {}, 2, "sliding", "full"),
    ("olmo2", {"attention__sliding_window": 8}, 4, "sliding", "full"),
    ("smollm3", {}, 4, "rope", "no rope"),
    ("qwen3next", {"full_attention_interval": 6}, 6, "recurrent", "attention"),
    ("llama4", {"attention__sliding_window": 0, "interleave_moe_layer_step": 2}, 2, "dense", "MoE"),
]


@pytest.mark.parametrize(("architecture", "numbers", "period", "others", "nth"), PERIODS)
def test_periods_with_and_without_a_key(made, architecture, numbers, period, others, nth):
    model = made(architecture, 12, **numbers)
    assert pattern(model) == tuple(nth if block % period == period - 1 else others for block in range(12))
    assert allowed(model, f"repeat 1-{period}")[0] == 12 + period
    assert f"llama.cpp takes layer {period - 2} as {others}" in refused(model, "delete 0")


@pytest.mark.parametrize("architecture", ["gemma3", "olmo2", "phi3", "mellum"])
def test_without_a_chunk_nothing_slides(made, architecture):
    assert set(pattern(made(architecture))) == {"alike"}


def test_periods_may_start_with_the_odd_one_and_come_together(made):
    assert pattern(made("cohere2moe", 6))[:5] == ("full", "sliding", "sliding", "sliding", "full")
    model = made("llama4", 12, interleave_moe_layer_step=2)
    assert pattern(model)[:4] == (
        "chunked, rope, dense",
        "chunked, rope, MoE",
        "chunked, rope, dense",
        "full, no rope, MoE",
    )
    assert allowed(model, "swap 0 2")[0] == 12
    assert "takes layer 0 as dense" in refused(model, "swap 0 1")


def test_a_stepped_mixture_behind_dense_blocks(made):
    model = made("ernie4_5-moe", 6, interleave_moe_layer_step=1, leading_dense_block_count=1)
    assert runs(pattern(model)) == [("dense", 1), ("MoE", 5)]


# --- arrays


def test_blocks_take_their_items_of_an_array_along(made):
    sliding = [True, True, False, True, False, False]
    model = made("gemma3", 6, attention__sliding_window=8, attention__sliding_window_pattern=sliding)
    assert pattern(model) == tuple("sliding" if each else "full" for each in sliding)
    for text in ("delete 3", "swap 0 1", "repeat 2-3"):
        assert allowed(model, text)[1:] == ((), {})
    assert "attention.sliding_window_pattern changed" in allowed(model, "swap 0 2")[1][0]


@pytest.mark.parametrize("architecture", ["jamba", "lfm2", "granitehybrid", "plamo2", "kimi-linear"])
def test_one_block_of_each_store_must_stay(made, architecture):
    model = made(architecture, 4, attention__head_count_kv=[0, 0, 2, 2])
    assert runs(pattern(model)) == [("recurrent", 2), ("attention", 2)]
    assert allowed(model, "delete 1 2")[0] == 2
    assert "at least one of layers 2, 3 (attention) must stay" in refused(model, "delete 2-3")
    assert "at least one of layers 0, 1 (recurrent) must stay" in refused(model, "delete 0-1", skip_check=True)


def test_a_recurrent_block_of_nemotron_has_neither_heads_nor_network(made):
    model = made("nemotron_h", 4, attention__head_count_kv=[0, 2, 0, 0], feed_forward_length=[0, 0, 64, 0])
    assert pattern(model)[:3] == (
        "no attention, no feed-forward",
        "attention, no feed-forward",
        "no attention, feed-forward",
    )
    assert "at least one of layers 0, 3 (no attention and no feed-forward) must stay" in refused(model, "delete 0 3")
    assert "layer 1 (attention) must stay" in refused(model, "delete 1")


def test_a_newer_array_in_place_of_a_period(made):
    recurrent = [True, True, True, False] * 2
    model = made("qwen3next", 8, full_attention_interval=4, attention__recurrent_layers=recurrent)
    assert pattern(model) == ("recurrent", "recurrent", "recurrent", "attention") * 2
    assert (
        "do not read qwen3next.attention.recurrent_layers will not run it as meant" in allowed(model, "swap 2 3")[1][0]
    )
    assert allowed(model, "repeat 0-3")[1] == ()


def test_a_headless_block_cannot_be_the_first(made):
    model = made(
        "deci", 3, attention__head_count=[4, 0, 4], attention__head_count_kv=[2, 0, 2], feed_forward_length=[8, 8, 0]
    )
    assert "layer 1 has no attention heads and cannot be the first" in refused(model, "swap 0 1")
    assert allowed(model, "swap 1 2")[0] == 3


def test_a_shared_indexer_needs_one_before_it(made):
    model = made("hy_v4", 4, attention__indexer__types=[1, 0, 0, 1])
    assert "layer 1 (shared indexer) cannot be the first" in refused(model, "delete 0")
    assert allowed(model, "delete 0-2")[0] == 1


def test_a_table_inside_llama_cpp_is_no_array(made):
    assert "table of its layers' indexers by number" in refused(made("glm-dsa", 6, context_length=1 << 20), "swap 2 3")
    assert allowed(made("glm-dsa", 6, context_length=1 << 17), "swap 2 3")[0] == 6


def test_which_arrays_have_an_item_per_layer():
    for key in ("attention.head_count_kv", "feed_forward_length", "swiglu_clamp_exp", "attention.rope_pattern"):
        assert is_per_layer_array("step35", f"step35.{key}", 45, 45)
        assert not is_per_layer_array("step35", f"step35.{key}", 44, 45)
    assert not is_per_layer_array("qwen35", "qwen35.rope.dimension_sections", 4, 4)
    assert not is_per_layer_array("eagle3", "eagle3.target_layers", 3, 3)
    assert not is_per_layer_array("llama", "tokenizer.ggml.scores", 32, 32)
    assert is_per_layer_array("glm-dsa", "glm-dsa.attention.indexer.types", 78, 79)
    assert is_per_layer_array("deepseek4", "deepseek4.attention.compress_ratios", 64, 62)
    assert is_per_layer_array("apertus", "xielu.alpha_n", 32, 32)


def test_items_of_arrays_longer_and_shorter_than_the_blocks():
    made = apply_edits(5, parse_edits("swap 0 1; repeat 2"))
    assert array_items(made.source_blocks, made.original, 5) == (1, 0, 2, 2, 3, 4)
    assert array_items(made.source_blocks, made.original, 7) == (1, 0, 2, 2, 3, 4, 5, 6)
    assert array_items(made.source_blocks, made.original, 4) == (1, 0, 2, 2, 3)
    assert array_items((0, 1, 2, 3), 5, 4) == (0, 1, 2, 3)  # the last block stripped
    assert array_items(apply_edits(5, parse_edits("blend 1 3 0.9 into 1")).source_blocks, 5, 5) == (0, 3, 2, 3, 4)


# --- first and last blocks


def test_dense_blocks_lead_and_are_counted_anew(published):
    model = published("DEEPSEEK_V3")
    key = "deepseek2.leading_dense_block_count"
    assert runs(pattern(model)) == [("dense", 3), ("MoE", 58)]
    assert allowed(model, "delete 1") == (60, (), {key: 2})
    assert allowed(model, "repeat 0-2")[2] == {key: 6}
    assert allowed(model, "delete 0-2; swap 0 5")[2] == {key: 0}
    assert allowed(model, "swap 0 2")[2] == allowed(model, "repeat 10-19")[2] == {}


def test_a_dense_block_behind_experts_is_refused(published):
    said = refused(published("DEEPSEEK_V3"), "repeat 1-4", skip_check=True)
    assert "layer 5 would be the original's 1 (dense), after layer 3, the original's 3 (MoE)" in said
    assert "deepseek2.leading_dense_block_count = 3" in said
    assert "only layers of one kind can be blended" in refused(published("DEEPSEEK_V3"), "blend 2 3 0.5 into 3")


def test_the_block_that_predicts_further_tokens_stays_at_the_end(published):
    model = published("GLM_4_5_AIR")
    assert pattern(model)[-2:] == ("MoE", "predicts further tokens")
    assert allowed(model, "delete 0") == (46, (), {"glm4moe.leading_dense_block_count": 0})
    assert allowed(model, "repeat 40-45")[0] == 53
    for text in (
        "delete 46",
        "swap 45 46",
        "repeat 46",
        "bridge 3 after 46",
        "blend 45 46 0.5 into 45",
        "scale 46 0.5",
    ):
        said = refused(model, text, skip_check=True)
        assert "layer 46 must stay at the end" in said and "'strip mtp'" in said
    count, notes, changes = allowed(model, "strip mtp")
    assert count == 46 and changes == {"glm4moe.nextn_predict_layers": 0} and "speculative" in notes[0]
    assert allowed(model, "delete 0; strip mtp; repeat 40-44")[0] == 50
    layout = operate(model, apply_edits(model.blocks, parse_edits("strip mtp"), model.mtp_blocks)).layout
    keys = ("block_count", "nextn_predict_layers")
    assert [layout.by_key[f"glm4moe.{key}"].number for key in keys] == [46, 0]
    assert not any(tensor.name.startswith("blk.46.") for tensor in layout.tensors)
    assert "edit 2, 'strip mtp': no layer" in refused(model, "strip mtp; strip mtp")
    assert "no layer here only predicts" in refused(published("QWEN3_8B"), "strip mtp")


def test_the_first_block_of_rwkv7_is_another(made):
    model = made("rwkv7", 6)
    assert allowed(model, "swap 1 4")[0] == 6
    assert "layer 0 would be the original's 1 (a later one)" in refused(model, "delete 0")
    assert "layer 3 would be the original's 0 (the first)" in refused(model, "bridge 0 after 2")


def test_halved_weights_stay_in_their_group(made):
    model = made("rwkv6", 12, rescale_every_n_layers=6)
    assert allowed(model, "swap 0 5; swap 7 11; delete 11")[0] == 11
    assert "with weights halved 1 times" in refused(model, "swap 5 6")
    assert allowed(made("rwkv6", 12, rescale_every_n_layers=0), "swap 5 6")[0] == 12


def test_states_that_decay_by_their_place_stay_there(made):
    model = made("minimax-01", 16)
    assert pattern(model)[6:8] == ("recurrent, made for place 6", "attention, for any place")
    assert allowed(model, "swap 7 15")[0] == 16
    assert "layer 2 would be the original's 3 (made for place 3)" in refused(model, "swap 2 3")
    assert "from the number of layers: 24 would change all of them" in refused(model, "repeat 8-15")


def test_a_block_that_is_named_by_its_number(made):
    model = made("qwen4exp", 8, ple__layers=[2])
    assert allowed(model, "swap 0 1")[0] == 8
    assert "qwen4exp.ple.layers lists it by number" in refused(model, "swap 1 2")


# --- the number of blocks


def test_llama_cpp_knows_some_models_by_their_number_of_blocks(made):
    assert "from 64 layers on" in refused(made("command-r", 64), "delete 5")
    assert allowed(made("command-r", 40), "delete 5")[0] == 39
    assert "the 7B (32 layers)" in refused(made("baichuan", 32), "delete 5")
    assert allowed(made("baichuan", 32), "swap 5 6")[0] == 32
    assert "1.4 / sqrt(62)" in refused(made("minicpm3", 62), "repeat 5")
    assert "without residual_scale" in refused(made("minicpm", 40), "repeat 5")
    assert allowed(made("minicpm", 40, residual_scale=0.2), "repeat 5")[0] == 41


def test_exaone4_slides_at_64_blocks_only(made):
    assert set(pattern(made("exaone4", 30))) == {"alike"}
    assert runs(pattern(made("exaone4", 64)))[:2] == [("sliding", 3), ("full", 1)]
    assert "64 cannot become 60" in refused(made("exaone4", 64), "delete 0-3")
    assert "60 cannot become 64" in refused(made("exaone4", 60), "repeat 0-3")


def test_the_largest_gemma_scales_its_queries_otherwise(made):
    heads = {"attention__head_count": 32, "attention__key_length": 128}
    large = made("gemma2", 46, embedding_length=4608, **heads)
    assert "46 cannot become 44" in refused(large, "delete 0-1") and allowed(large, "swap 0 2")[0] == 46
    assert allowed(made("gemma2", 42, embedding_length=4096, **heads), "repeat 0-3")[0] == 46


def test_a_lite_model_says_what_its_number_of_blocks_said(made):
    lite = made("deepseek2", 27, leading_dense_block_count=1)
    assert allowed(lite, "delete 5")[2] == {}
    assert allowed(lite, "repeat 5")[2] == {"deepseek2.attention.q_lora_rank": 0}
    full = made("deepseek2", 30, attention__q_lora_rank=64, leading_dense_block_count=1)
    assert "takes it for a lite model" in refused(full, "delete 5-7")
    glm = made("deepseek2", 47, vocabulary=154880, attention__q_lora_rank=64)
    assert allowed(glm, "delete 5")[2] == {"deepseek2.expert_gating_func": 2}
    assert allowed(glm, "repeat 5")[2] == {}


def test_loops_count(made):
    assert "260 layers run 2 times" in refused(made("nanbeige", 250, num_loops=2), "repeat 0-9")
    assert allowed(made("nanbeige", 250, num_loops=2), "repeat 0-5")[0] == 256


# --- no map, or nothing known


def test_models_that_are_no_row_of_blocks_refuse_every_map(published, made):
    assert "its layers cannot be rearranged" in refused(published("GEMMA_3N_E2B"), "swap 1 2", skip_check=True)
    assert pattern(published("GEMMA_3N_E2B")) is None
    for architecture in ("t5", "hrm_text", "eagle3", "wavtokenizer-dec"):
        assert "cannot be rearranged" in refused(made(architecture), "swap 1 2", skip_check=True)


def test_a_gemma4_with_shared_keys_is_refused_and_one_without_is_not(made):
    sliding = {"attention__sliding_window_pattern": [True, False] * 3}
    assert allowed(made("gemma4", 6, embedding_length_per_layer_input=0, **sliding), "swap 0 1")[0] == 6
    shared = made("gemma4", 6, attention__shared_kv_layers=2, **sliding)
    assert "gemma4.attention.shared_kv_layers" in refused(shared, "swap 0 2")
    embedded = made("gemma4", 6, embedding_length_per_layer_input=256, **sliding)
    assert "gemma4.embedding_length_per_layer_input" in refused(embedded, "swap 0 2")


def test_an_unknown_architecture_is_refused_unless_the_check_is_skipped(made):
    model = made("newest", 6)
    assert pattern(model) is None
    assert refused(model, "swap 1 2").endswith(
        "does not know the rules for the layers of newest models; --skip-architecture-check does it anyway"
    )
    assert allowed(model, "swap 1 2", skip_check=True) == (
        6,
        ("quantplan does not know the rules for the layers of newest models",),
        {},
    )
    predicting = made("newer", 6, nextn_predict_layers=1)  # llama.cpp reads it of all architectures
    assert "layer 5 must stay at the end" in refused(predicting, "swap 4 5", skip_check=True)


def test_sizes_that_no_metadata_explain_stay_where_they_are(made):
    model = made("llama", 6, rows=lambda block: 64 if block % 2 else 32)
    assert "ffn_up of 32 x 64" in refused(model, "swap 2 3") and allowed(model, "swap 2 4")[0] == 6
    assert allowed(model, "swap 2 3", skip_check=True)[0] == 6
    explained = made("openelm", 6, rows=lambda block: 64 if block % 2 else 32, feed_forward_length=[32, 64] * 3)
    assert allowed(explained, "swap 2 3")[0] == 6


def test_images_go_into_the_first_blocks(made):
    model = made("qwen3vl", 6, n_deepstack_layers=3)
    assert allowed(model, "swap 4 5")[1] == ()
    assert allowed(model, "swap 0 5")[1] == ("features of images go into the first 3 layers, and these changed",)


def test_the_map_that_changes_nothing_is_always_allowed(published, made):
    for model in (published("GEMMA_3N_E2B"), made("newest"), made("t5")):
        same = LayerMap.identity(model.blocks)
        assert check(model, same) == () == violations(model, same) and metadata_changes(model, same) == {}


def test_every_rule_names_what_it_says(made):
    """Kinds are single words or phrases without the comma that joins them."""
    for rules in RULES.values():
        words = [word for cycle in rules.cycles for word in (cycle.others, cycle.nth)]
        words += [word for lead in rules.leads for word in (lead.leading, lead.rest)]
        words += [word for item in rules.items for word in (item.zero, item.other)]
        assert all(re.fullmatch(r"[A-Za-z -]+", word) for word in words)
