"""Greedy answers of the real library, and the prompts that are put to it."""

import numpy as np
import pytest
from chat_models import ALWAYS, CHAT, SWITCHED, with_bos
from tiny_architectures import tiny_hybrid
from tiny_models import tiny_moe

from quantplan.errors import BadFile
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_bytes
from quantplan.llamacpp import chat
from quantplan.llamacpp.chat import ChatForm, Prompt
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.generation import (
    AT_ONCE,
    BROKEN,
    EMPTY,
    ENDED,
    LENGTH,
    STOPPED,
    TOO_LONG,
    GenerationRequest,
    generate,
)
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.text import SpecialText

TEXTS = [
    "The old man said that he had never",
    "In the year 1776 the American",
    "She opened the door and saw",
    "The capital of France is",
    "One of the most important things",
    "It was a dark night, and",
]
OPTIONS = EngineOptions(execution=Execution(1), swappable=True)


@pytest.fixture(scope="module")
def engine(reference_model):
    with Engine(reference_model, OPTIONS) as found:
        yield found


def requests(texts, max_tokens=32):
    return [GenerationRequest(Prompt(text), max_tokens) for text in texts]


def test_the_texts_are_those_of_llama_cpp_python(engine, reference_model):
    """Its own greedy completion, a prompt at a time in a context of its own."""
    import llama_cpp

    ours = generate(engine, requests(TEXTS, 48))
    theirs = llama_cpp.Llama(str(reference_model), n_ctx=256, n_threads=1, verbose=False)
    try:
        for text, found in zip(TEXTS, ours, strict=True):
            expected = theirs.create_completion(text, max_tokens=48, temperature=0)["choices"][0]["text"]
            assert found.text == expected
            assert (found.tokens, found.ending) == (48, LENGTH)
    finally:
        theirs.close()


def test_answers_come_in_the_order_of_the_requests(engine):
    """Prompts of different lengths and numbers of tokens are grouped, more of them than are decoded at once."""
    lengths = [4, 12, 7]
    asked = [GenerationRequest(Prompt(TEXTS[index % 6]), lengths[index % 3]) for index in range(AT_ONCE + 10)]
    finished = []
    found = generate(engine, asked, finished.append)
    assert [each.tokens for each in found] == [each.max_tokens for each in asked]
    alone = {text: generate(engine, requests([text], 12))[0].text for text in TEXTS}
    assert all(alone[each.prompt.text].startswith(answer.text) for each, answer in zip(asked, found, strict=True))
    assert sum(finished) == len(asked) and len(finished) > 1


@pytest.mark.parametrize("make", [tiny_moe, tiny_hybrid])
def test_other_architectures(make, tmp_path):
    """Experts, and blocks that keep a state instead of a cache; alone or together the same."""
    with Engine(make(tmp_path / "model.gguf"), OPTIONS) as engine:
        together = generate(engine, requests(TEXTS, 16))
        assert generate(engine, requests(TEXTS, 16)) == together
        assert {each.ending for each in together} <= {LENGTH, ENDED}
        assert len({each.text for each in together}) == len(TEXTS)


def test_the_same_every_time_with_any_number_of_threads(reference_model, engine):
    first = generate(engine, requests(TEXTS * 6, 8))
    assert generate(engine, requests(TEXTS * 6, 8)) == first
    with Engine(reference_model, EngineOptions(execution=Execution(2))) as other:
        assert generate(other, requests(TEXTS * 6, 8)) == first


def test_swapped_weights_speak(reference_model, engine, tmp_path):
    """What is put into memory answers as the file does that holds the same weights."""
    model = read_model(reference_model)
    one, two = (model.by_name[f"blk.{block}.ffn_down.weight"] for block in (2, 6))
    data, before = bytearray(reference_model.read_bytes()), generate(engine, requests(TEXTS))
    for here, there in ((one, two), (two, one)):
        data[here.offset : here.offset + here.bytes] = tensor_bytes(model, there).tobytes()
    (tmp_path / "swapped.gguf").write_bytes(data)
    with Engine(tmp_path / "swapped.gguf", OPTIONS) as file:
        expected = generate(file, requests(TEXTS))
    engine.find_weights({one.name, two.name})
    engine.put(one.name, tensor_bytes(model, two))
    engine.put(two.name, tensor_bytes(model, one))
    found = generate(engine, requests(TEXTS))
    engine.put(one.name, tensor_bytes(model, one))
    engine.put(two.name, tensor_bytes(model, two))
    assert found == expected != before
    assert generate(engine, requests(TEXTS)) == before


def put_output(engine, reference_model, value):
    """Every weight of the output matrix set to one value."""
    tensor = read_model(reference_model).by_name["output.weight"]
    engine.find_weights({tensor.name})
    engine.put(tensor.name, np.full(tensor.bytes // 2, value, np.float16).view(np.uint8))


@pytest.mark.parametrize(("value", "ending"), [(0.0, ENDED), (np.nan, BROKEN), (np.inf, BROKEN)])
def test_how_answers_end(reference_model, value, ending):
    """All logits 0: the first token is taken, which ends a text. Logits that are no numbers end nothing else but the item."""
    with Engine(reference_model, OPTIONS) as engine:
        put_output(engine, reference_model, value)
        assert [(each.text, each.tokens, each.ending) for each in generate(engine, requests(TEXTS))] == [
            ("", 0, ending)
        ] * 6


def test_a_stop_text_ends_an_answer(engine):
    whole = generate(engine, requests(TEXTS[:1], 32))[0].text
    stop = whole[20:26]
    found = generate(engine, [GenerationRequest(Prompt(TEXTS[0], stop=(stop,)), 32)])[0]
    assert found.ending == STOPPED
    assert found.text == whole[: whole.index(stop)]
    assert found.tokens < 32


def test_the_context_of_training_is_the_limit(engine):
    """1024 tokens; what does not fit is not asked, what nearly fits is cut short."""
    long = "the old man said " * 300
    near = next(text for text in (long[:end] for end in range(len(long))) if len(engine.tokenize(text)) == 1000)
    room = 24
    found = generate(engine, requests([long, near, TEXTS[0]], 64))
    assert [each.ending for each in found] == [TOO_LONG, LENGTH, LENGTH]
    assert [each.tokens for each in found] == [0, room, 64]


def test_nothing_to_say_it_to(engine):
    assert generate(engine, []) == []
    assert generate(engine, requests([""]))[0].ending == EMPTY


# -- prompts


def form(engine, template=None):
    return ChatForm({chat.TEMPLATE_KEY: template} if template else {}, engine)


def test_a_model_without_a_template(engine):
    plain = form(engine)
    assert (plain.template, plain.thinks) == (None, chat.NEVER)
    assert plain.prompt("Who?") == Prompt("Question: Who?\nAnswer:", stop=("\nQuestion:",))


def test_the_models_own_template(engine):
    own = form(engine, CHAT)
    assert own.thinks == chat.NEVER
    assert own.prompt("Who?") == Prompt("<|endoftext|>user: Who?\nassistant:", special=True)


def test_special_tokens_of_a_prompt_are_parsed(engine):
    assert engine.tokenize(SpecialText(("<|endoftext|>user",))).tolist() == [0, *engine.tokenize("user").tolist()]
    assert 0 not in engine.tokenize("<|endoftext|>user").tolist()


def test_a_bos_stands_there_once(reference_model, tmp_path):
    with Engine(with_bos(reference_model, tmp_path / "bos.gguf"), OPTIONS) as engine:
        text = form(engine, CHAT).prompt("Who?").text
        assert text == "user: Who?\nassistant:"
        assert engine.tokenize(SpecialText((text,))).tolist()[:2] == [0, engine.tokenize("user").tolist()[1]]


def test_thinking_can_be_switched(engine):
    switched = form(engine, SWITCHED)
    assert switched.thinks == chat.SWITCH
    off, on = switched.prompt("Who?"), switched.prompt("Who?", thinking=True)
    assert off.text == on.text + " <think>\n\n</think>\n"
    assert not off.thinking and not on.thinking


def test_thinking_that_the_prompt_begins(engine):
    always = form(engine, ALWAYS)
    assert always.thinks == chat.ALWAYS
    assert always.prompt("Who?").thinking and always.prompt("Who?", thinking=True).thinking


def test_today_is_the_same_every_day(engine):
    dated = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}"
    assert form(engine, dated).prompt("Who?").text == "01 Jan 2025 Who?"


PARTS = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        PARTS,
        "{{ messages[0].content[0].text | trim }}",
        "{% if messages[0].content is string %}{{ raise_exception('parts') }}{% endif %}" + PARTS,
        "{% for part in messages[0].content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}",
        "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}an image{% endif %}",
    ],
)
def test_a_template_gets_the_question_as_it_wants_it(engine, template):
    assert form(engine, template).prompt("What is < 'gold'?").text == "What is < 'gold'?"


@pytest.mark.parametrize("template", ["always the same", "{{ messages[0].content | length }}"])
def test_a_template_that_leaves_the_question_out(engine, template):
    with pytest.raises(BadFile, match="does not show the user's message, neither as a text nor as a list"):
        form(engine, template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", r"is not Jinja .*; fix tokenizer.chat_template in the file"),
        ("{{ raise_exception('system first') }}", r"cannot be rendered \(ValueError: system first\)"),
        ("{{ messages[3].content }}", r"cannot be rendered \(UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", r"cannot be rendered \(SecurityError"),
    ],
)
def test_templates_that_do_not_work(engine, template, message):
    with pytest.raises(BadFile, match=message):
        form(engine, template)


def test_a_template_without_an_end_is_stopped(engine, monkeypatch):
    monkeypatch.setattr("quantplan.llamacpp.chat.RENDER_SECONDS", 0.2)
    loops = "".join(f"{{% for i{depth} in range(99999) %}}" for depth in range(4)) + "{% endfor %}" * 4
    with pytest.raises(BadFile, match=rf"{engine.path.name} cannot be rendered \(TookTooLong: it takes too long\)"):
        form(engine, loops + "{{ messages[0].content }}")
