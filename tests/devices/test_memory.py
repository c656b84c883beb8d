import re

import pytest
from model_parts import model_of

from quantplan.cache_types import parse_kv
from quantplan.devices.memory import (
    ASKED,
    COMPUTED,
    Figure,
    MemoryNeeds,
    MemoryUse,
    Placement,
    overridden,
    placement,
)
from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.selector import Selector

ROLES = ("attn_k", "ffn_down_exps", "ffn_gate_exps", "ffn_up_exps", "ffn_up", "ffn_gate_inp", "attn_norm")


def model(blocks=12, tied=False, further=()):
    shapes = {"token_embd.weight": (256, 1000)} | ({} if tied else {"output.weight": (256, 1000)})
    shapes |= {f"blk.{block}.{role}.weight": (256, 256) for block in range(blocks) for role in ROLES}
    return model_of(shapes | {name: (256, 8) for name in further}, blocks=blocks)


def place(*selectors, of=None):
    return placement(of or model(), [Selector(text) for text in selectors])


def names(role, blocks):
    return {f"blk.{block}.{role}.weight" for block in blocks}


# --- what lives where


def test_the_input_layer_stays_in_ram():
    where = place()
    assert where.cpu == {"token_embd.weight"} and not where.moved
    assert where.gpu == set(model().by_name) - where.cpu
    assert where.override_tensor() == () and where.equivalent_option() is None


def test_tied_embeddings_are_on_both():
    where = place(of=model(tied=True))
    assert "token_embd.weight" in where.cpu & where.gpu
    sizes = {name: tensor.bytes for name, tensor in model(tied=True).by_name.items()}
    assert where.gpu_bytes(sizes) == sum(sizes.values())
    assert where.cpu_bytes(sizes) == sizes["token_embd.weight"]


def test_tied_embeddings_can_be_moved_and_others_are_there_already():
    tied = place("token_embd", of=model(tied=True))
    assert "token_embd.weight" not in tied.gpu and tied.override_tensor() == (r"^token_embd\.weight$=CPU",)
    untied = place("token_embd")
    assert untied.override_tensor() == () and untied == place()


def test_embeddings_for_each_block_stay_in_ram():
    assert place(of=model(further=["per_layer_token_embd.weight"])).cpu == {
        "token_embd.weight",
        "per_layer_token_embd.weight",
    }


def test_blocks_that_predict_further_tokens_are_not_loaded():
    whole = model(4)
    whole.metadata["qwen3.nextn_predict_layers"] = 1
    where = placement(whole)
    assert where.unused == {f"blk.3.{role}.weight" for role in ROLES}
    assert not where.unused & (where.gpu | where.cpu)
    assert placement(whole, [Selector("blk.3.attn_k")]).moved == set()


def test_a_selector_that_means_nothing():
    with pytest.raises(NothingSelected, match="ffn_down_exps"):
        place("ffn_dwon_exps")


# --- patterns


@pytest.mark.parametrize(
    ("selectors", "rules", "option"),
    [
        (["*_exps"], [r"^blk\.[0-9]+\.ffn_(down|gate|up)_exps\.weight$=CPU"], "--cpu-moe"),
        (["blk.[0-4].*_exps"], [r"^blk\.[0-4]\.ffn_(down|gate|up)_exps\.weight$=CPU"], "--n-cpu-moe 5"),
        (["blk.[1-4].*_exps"], [r"^blk\.[1-4]\.ffn_(down|gate|up)_exps\.weight$=CPU"], None),
        (["blk.0.ffn_up", "blk.1.ffn_up"], [r"^blk\.[01]\.ffn_up\.weight$=CPU"], "--n-cpu-ffn 2"),
        (["ffn_up_exps"], [r"^blk\.[0-9]+\.ffn_up_exps\.weight$=CPU"], None),
        (["output", "ffn_up"], [r"^output\.weight$=CPU", r"^blk\.[0-9]+\.ffn_up\.weight$=CPU"], None),
        (["blk.1?.*_exps"], [r"^blk\.1[01]\.ffn_(down|gate|up)_exps\.weight$=CPU"], None),
    ],
)
def test_patterns(selectors, rules, option):
    where = place(*selectors)
    assert list(where.override_tensor()) == rules
    assert where.equivalent_option() == option
    assert overridden(",".join(rules), model().by_name) == where.moved


@pytest.mark.parametrize("seed", range(8))
def test_patterns_name_any_choice_exactly(seed):
    import random

    chance = random.Random(seed)
    everything = sorted(set(model().by_name) - {"token_embd.weight"})
    moved = frozenset(chance.sample(everything, chance.randrange(1, len(everything))))
    where = Placement(frozenset(everything) - moved, moved | {"token_embd.weight"}, moved)
    rules = where.override_tensor()
    assert overridden(",".join(rules), where.gpu | where.cpu) == moved
    assert all(rule.count("=") == 1 and "," not in rule for rule in rules)
    assert len(rules) <= len(ROLES) + 1


def test_a_comma_in_a_name_does_not_split_the_argument():
    where = place("odd*", of=model(further=["odd,name=x.weight"]))
    assert where.override_tensor() == (r"^odd.name.x\.weight$=CPU",)


def test_names_that_no_pattern_tells_apart():
    with pytest.raises(BadUsage, match="matches odd"):
        place("odd,name*", of=model(further=["odd,name.weight", "odd=name.weight"])).override_tensor()


def test_matching_is_llama_cpps():
    """Searched, not matched; lists split at commas, rules at the first equals sign."""
    known = ["blk.1.ffn_up.weight", "blk.11.ffn_up.weight", "output.weight"]
    assert overridden("1.ffn=CPU", known) == set(known[:2])
    assert overridden(r"blk\.1\.=CPU,output=CPU", known) == {known[0], known[2]}
    assert overridden(r"^1\.ffn=CPU", known) == set()
    with pytest.raises(BadUsage, match="CPU"):
        overridden("ffn=CUDA0", known)
    with pytest.raises(BadUsage, match="CPU"):
        overridden("blk.{1,2}.ffn=CPU", known)


# --- sums


def needs(**changed):
    figures = {"kv_cache": 1000, "compute_buffer": 300, "host_buffer": 40, "crossing": 7}
    found = {name: Figure(size, ASKED, "") for name, size in figures.items()}
    return MemoryNeeds(4096, (BY_NAME["F16"],) * 2, 512, None, **(found | changed))


def test_totals():
    assert needs().total(50_000) == 51_300
    assert needs().host_total(600) == 640
    assert needs().total(50_000, largest_moved=90) == 51_300 + 7 + 90
    assert needs().host_total(600, largest_moved=90) == 600 + 300 + 7


def test_use_of_a_placement():
    sizes = dict.fromkeys(model().by_name, 10) | {"blk.3.ffn_up_exps.weight": 80}
    where = place("*_exps")
    use = where.use(needs(), sizes)
    assert use == MemoryUse(needs(), 10 * (12 * 4 + 1), 10 * (12 * 3 + 1) + 70, 80)
    assert use.vram == needs().total(use.gpu_weights, 80) == use.gpu_weights + 1000 + use.gpu_buffers
    assert use.ram == needs().host_total(use.cpu_weights, 80) == use.cpu_weights + use.cpu_buffers


def test_a_figure_says_where_it_comes_from():
    assert Figure(1, ASKED, "").asked and not Figure(1, COMPUTED, "").asked


# --- KV types


@pytest.mark.parametrize(
    ("text", "kinds"), [("q8_0", "Q8_0 Q8_0"), ("Q8_0, f16", "Q8_0 F16"), ("iq4_nl", "IQ4_NL IQ4_NL")]
)
def test_kv_types(text, kinds):
    assert [kind.name for kind in parse_kv(text)] == kinds.split()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", BadUsage, "write one type"),
        ("q8_0,", BadUsage, "write one type"),
        ("q8_0,q8_0,q8_0", BadUsage, "write one type"),
        ("q4_k", BadUsage, "no KV cache as Q4_K; choose one of f32, f16"),
        ("q8", NothingSelected, "Q8_0"),
    ],
)
def test_bad_kv_types(text, error, words):
    with pytest.raises(error, match=re.escape(words)):
        parse_kv(text)
