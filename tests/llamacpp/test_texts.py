"""Texts as a model sees them: chats rendered by its own template, special tokens parsed."""

import json
from dataclasses import replace

import pytest
from chat_models import CHAT, TOOLS, with_bos
from reporters import Recorder

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.chat import TEMPLATE_KEY
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.texts import read_texts
from quantplan.text import SpecialText, content, written

pytestmark = pytest.mark.llamacpp

ASKED = {"role": "user", "content": "What is the weather in Bern?"}
ANSWERED = {"role": "assistant", "content": "Sunny."}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def called(arguments):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": arguments}}],
    }


def chats(folder, *lines, name="chats.jsonl"):
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def with_template(path, template):
    model = read_model(path)
    return replace(model, metadata={**model.metadata, TEMPLATE_KEY: template})


@pytest.fixture(scope="module")
def model(reference_model):
    return with_template(reference_model, TOOLS)


def test_conversations_as_the_template_writes_them(model, tmp_path):
    path = chats(
        tmp_path,
        {"messages": [ASKED, ANSWERED]},
        {"messages": [ASKED, called('{"city": "Bern"}'), {"role": "tool", "content": "Sun"}], "tools": [WEATHER]},
    )
    text = read_texts([path], model)
    first = "<|endoftext|>user: What is the weather in Bern?\n<|endoftext|>assistant: Sunny.\n"
    second = (
        '<|endoftext|>tools: [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]\n'
        "<|endoftext|>user: What is the weather in Bern?\n"
        '<|endoftext|>assistant: <call>weather {"city": "Bern"}\n<|endoftext|>tool: Sun\n'
    )
    assert isinstance(text, SpecialText) and text.pieces == (first, second)
    assert written(text) == "What is the weather in Bern?\nSunny.\nWhat is the weather in Bern?\nSun"
    with Engine(model, EngineOptions(vocabulary_only=True)) as engine:
        parsed, plain = engine.tokenize(text).tolist(), engine.tokenize(text.content).tolist()
    assert parsed.count(0) == 6 and 0 not in plain


def test_arguments_of_calls_are_objects_or_texts_as_the_template_wants_them(model, reference_model, tmp_path):
    """OpenAI's files have them as JSON in a text; most templates ask for an object, some for the text."""
    in_either_form = chats(tmp_path, *({"messages": [ASKED, called(form)]} for form in ('{"a": 1}', {"a": 1})))
    one, two = read_texts([in_either_form], model).pieces
    assert one == two and one.endswith('weather {"a": 1}\n')
    glued = "{%- for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ '<|endoftext|>' + c.function.arguments }}"
    glued += "{% endfor %}{% endfor %}"
    other = with_template(reference_model, glued)
    assert [piece.partition("<|endoftext|>")[2] for piece in read_texts([in_either_form], other).pieces] == [
        '{"a": 1}'
    ] * 2


def test_parts_of_a_content_are_joined(model, tmp_path):
    parts = [{"type": "text", "text": "Who"}, {"type": "text", "text": "?"}]
    text = read_texts([chats(tmp_path, {"messages": [{"role": "user", "content": parts}]})], model)
    assert text.content == "<|endoftext|>user: Who?\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"chats.jsonl, line 3: not JSON"),
        ("[" * 100_000, r"line 3: not JSON"),
        ('{"text": "plain"}', r'line 3: no "messages"; .* Call it .txt to read it as plain text'),
        ('{"messages": []}', r'line 3: no "messages"'),
        ('{"messages": ["hello"]}', r'line 3: a message without a "role"'),
        ('{"messages": [{"role": "user", "content": 3}]}', r"line 3: the content of a message must be a text"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', r"line 3: the content .* images"),
        ('{"messages": [{"role": "user", "tool_calls": "f()"}]}', r'line 3: "tool_calls" must be a list of objects'),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": {"a": 1}}', r'line 3: "tools" must be a list'),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', r"line 3: half of a surrogate pair"),
        (json.dumps({"messages": [ASKED, ASKED]}), r"line 3: .* refuses this conversation \(roles must alternate\); change"),
        (json.dumps({"messages": [called("{")]}), None),
    ],
)  # fmt: skip
def test_lines_that_are_no_conversation(model, tmp_path, line, message):
    path = chats(tmp_path, {"messages": [ASKED]}, "", line)
    if message is None:
        assert '"{"' in read_texts([path], model).content  # what is no JSON is left as it is
        return
    with pytest.raises(BadFile, match=message):
        read_texts([path], model)


def test_a_model_without_a_template(reference_model, tmp_path):
    with pytest.raises(
        BadFile, match=r"chats.jsonl holds chats, and prose-10m-f16.gguf has no chat template .*; take the"
    ):
        read_texts([chats(tmp_path, {"messages": [ASKED]})], read_model(reference_model))


def test_a_template_that_makes_nothing_of_it(reference_model, tmp_path):
    users = "{%- for m in messages if m.role == 'user' %}<|endoftext|>{{ m.content }}{% endfor %}"
    model = with_template(reference_model, users)
    with pytest.raises(BadFile, match=r"line 1: the model's chat template makes nothing of this conversation"):
        read_texts([chats(tmp_path, {"messages": [ANSWERED]})], model)


def test_each_conversation_has_its_bos_once(reference_model, tmp_path):
    """The tokenizer adds the first one; the others are written out, whether the template writes them or not."""
    path = chats(tmp_path, {"messages": [ASKED]}, {"messages": [ASKED]})
    one = chats(tmp_path, {"messages": [ASKED]}, name="one.jsonl")
    file = with_bos(reference_model, tmp_path / "bos.gguf")
    for template in (CHAT, "{{ messages[0].content }}\n"):
        model = with_template(file, template)
        with Engine(model, EngineOptions(vocabulary_only=True)) as engine:
            tokens, alone = (engine.tokenize(read_texts([text], model)).tolist() for text in (path, one))
        assert tokens == 2 * alone and tokens.count(0) == 2 and tokens[0] == 0, template


def test_plain_texts(model, tmp_path):
    (tmp_path / "plain.txt").write_text("one<|endoftext|>two\n")
    heard = Recorder()
    assert read_texts([tmp_path / "plain.txt"], model) == "one<|endoftext|>two\n"
    parsed = read_texts([tmp_path / "plain.txt"], model, parse_special=True, report=heard)
    assert parsed == SpecialText(("one<|endoftext|>two\n",)) and not heard.said
    (tmp_path / "other.txt").write_text("<|im_start|>user\nThe markers of another model.<|im_end|>\n")
    read_texts([tmp_path / "other.txt"], model, parse_special=True, report=heard)
    assert heard.said == [
        f"{tmp_path / 'other.txt'}: no special token of the model is in the text, though they are parsed; is it written for "
        "another model?"
    ]


def test_a_folder_of_both(model, tmp_path):
    chats(tmp_path, {"messages": [ASKED]}, name="b.jsonl")
    (tmp_path / "a.txt").write_text("plain<|endoftext|>")
    text = read_texts([tmp_path], model)
    assert [part.name for part in text.parts] == ["a", "b"] and text.parts[0].text == "plain<|endoftext|>"
    assert content(text) == "plain<|endoftext|>\n<|endoftext|>user: What is the weather in Bern?\n"
