"""A card says of the model what its header says, and how to use what its chat template can do."""

import json
import shlex
from dataclasses import replace

from card_parts import card, file_of, published, rows
from chat_models import ALWAYS, CHAT, SWITCHED

from quantplan.report.card_data import CardData
from quantplan.report.card_model import details
from quantplan.report.card_origin import Identity

QWEN3 = {
    "qwen3.block_count": 28,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 2048,
    "qwen3.feed_forward_length": 6144,
    "qwen3.attention.head_count": 16,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.rope.freq_base": 1_000_000.0,
    "tokenizer.ggml.tokens": ("t",) * 151_936,
}
TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"


def details_of(metadata, plan=True, **header):
    file = file_of("m.gguf", 1000)
    file = replace(file, header=replace(file.header, metadata=metadata, **header), plan=file.plan if plan else None)
    text = details(file, metadata)
    return {name: value for name, value in rows(text, "Detail")[2:]}


def test_details_of_a_header():
    assert details_of(QWEN3, blocks=28) == {
        "Architecture": "`qwen3`",
        "Parameters": "0.26 M",
        "Layers": "28",
        "Hidden size": "2,048",
        "Feed-forward size": "6,144",
        "Attention heads": "16 query / 8 key-value",
        "Head size": "128",
        "Vocabulary": "151,936 tokens",
        "Trained context": "40,960 tokens",
        "RoPE base": "1,000,000",
        "Tied embeddings": "no",
        "Weights before quantization": "F16",
    }


def test_values_for_each_layer_experts_and_mtp():
    metadata = {
        "qwen3.attention.head_count": 32,
        "qwen3.attention.head_count_kv": (0.0, 8.0, 0.0, 8.0),
        "qwen3.embedding_length": 4096,
        "qwen3.feed_forward_length": (512.0, 512.0, 1024.0, 1024.0),
        "qwen3.expert_count": 128,
        "qwen3.expert_used_count": 8,
        "qwen3.nextn_predict_layers": 1,
    }
    found = details_of(metadata, plan=False, blocks=5)
    assert found["Attention heads"] == "32 query / 8 (none in 2 of 4 layers) key-value"
    assert found["Feed-forward size"] == "512 to 1,024" and found["Head size"] == "128"
    assert found["Experts"] == "128, 8 used by a token" and "Weights before quantization" not in found
    assert found["Layers"] == "4 and 1 that predict further tokens (MTP)"


def test_what_the_header_does_not_say_is_left_out():
    assert set(details_of({})) == {
        "Architecture",
        "Parameters",
        "Layers",
        "Tied embeddings",
        "Weights before quantization",
    }


def test_a_model_that_thinks_by_a_switch_and_takes_tools():
    text = card(published([]), Identity("o/r"), {"tokenizer.chat_template": TOOLS + SWITCHED})
    for line in (
        "- Thinking mode (`<think>`): switched by `enable_thinking`.",
        "- Tool calling: tools are offered in the template's own form.",
        "- System messages.",
        "llama-cli -hf o/r:2 --reasoning off  # answers at once",
        "llama-server -hf o/r:2 --jinja",
    ):
        assert f"{line}\n" in text
    (request,) = (line for line in text.splitlines() if line.startswith("curl "))
    assert json.loads(shlex.split(request)[-1])["tools"][0]["function"]["name"] == "weather"


def test_a_model_that_always_thinks():
    text = card(published([]), metadata={"tokenizer.chat_template": ALWAYS})
    assert "- Thinking mode (`<think>`): answers begin with it.\n" in text
    assert "llama-cli -m m-2.gguf --reasoning-budget 1024" in text and "--reasoning off" not in text


def test_nothing_is_said_of_what_the_template_cannot_do():
    text = card(published([]), metadata={"tokenizer.chat_template": CHAT})
    assert "Thinking" not in text and "Tool calling" not in text and "- Chat template in the GGUF.\n" in text
    assert "- No chat template: the model continues texts.\n" in card(published([]))
    broken = card(CardData((file_of("m.gguf", 1),), {}), metadata={"tokenizer.chat_template": "{% for"})
    assert "- A chat template, which could not be rendered here.\n" in broken and "###  Tool" not in broken
