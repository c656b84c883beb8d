"""The texts that come with quantplan: small, of every kind, apart from one another, and used only where they are named."""

import json
from dataclasses import replace

import pytest
from chat_models import CHAT, TOOLS
from reporters import Recorder

from quantplan.evaluate.leakage import overlap
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.chat import TEMPLATE_KEY
from quantplan.llamacpp.chat_lines import conversations
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.texts import read_texts
from quantplan.project import DEFAULT_TEXTS, default_text, read_text, text_files
from quantplan.text import Domains

KINDS = ("calibration", "evaluation")
NAMES = ["chat", "code", "languages", "prose", "tools"]


def files(kind):
    return text_files(DEFAULT_TEXTS / kind)


def test_what_is_there():
    assert [[file.stem for file in files(kind)] for kind in KINDS] == [NAMES, NAMES]
    sizes = [file.stat().st_size for kind in KINDS for file in files(kind)]
    assert 20_000 < sum(sizes) < 60_000 and min(sizes) > 4_000
    said = " ".join((DEFAULT_TEXTS / "README.md").read_text(encoding="utf-8").split())
    assert f"{round(sum(sizes) / 1000)} kB" in said and "was written for quantplan" in said


def test_nothing_of_one_is_in_the_other():
    lines = [{line for file in files(kind) for line in said(file).splitlines() if len(line) > 20} for kind in KINDS]
    assert not lines[0] & lines[1]
    tools = [{tool["function"]["name"] for chat in chats(kind) for tool in chat.tools} for kind in KINDS]
    assert all(tools) and not tools[0] & tools[1]


def chats(kind):
    return list(conversations(read_text(DEFAULT_TEXTS / kind / "tools.jsonl"), DEFAULT_TEXTS))


def said(file):
    text = read_text(file)
    return "\n".join(chat.written for chat in conversations(text, file)) if file.suffix == ".jsonl" else text


def test_calls_are_of_tools_that_were_offered():
    for chat in (chat for kind in KINDS for chat in chats(kind)):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}
        for call in (call for message in chat.messages for call in message.get("tool_calls", ())):
            schema, arguments = offered[call["function"]["name"]], json.loads(call["function"]["arguments"])
            assert set(schema["required"]) <= set(arguments) <= set(schema["properties"])
        answers = [message["tool_call_id"] for message in chat.messages if message["role"] == "tool"]
        asked = [call["id"] for message in chat.messages for call in message.get("tool_calls", ())]
        assert answers == asked


def test_the_word_stands_for_them_unless_something_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_text(tmp_path / "default", tmp_path, "evaluation") == DEFAULT_TEXTS / "evaluation"
    assert default_text(tmp_path / "sub" / "default", tmp_path, "evaluation") == tmp_path / "sub" / "default"
    (tmp_path / "default").write_text("mine")
    assert default_text(tmp_path / "default", tmp_path, "evaluation") == tmp_path / "default"


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    ("template", "names", "reason"),
    [
        (TOOLS, NAMES, None),
        (
            CHAT,
            NAMES[:-1],
            "the default text tools.jsonl is left out: the model's chat template leaves tool calls out, in 4 of 4",
        ),
        (None, NAMES[1:-1], "the default text chat.jsonl is left out: "),
    ],
)
def test_what_a_model_cannot_read_is_left_out(reference_model, template, names, reason):
    model, heard = read_model(reference_model), Recorder()
    model = replace(model, metadata={**model.metadata, TEMPLATE_KEY: template})
    for kind in KINDS:
        texts = read_texts([DEFAULT_TEXTS / kind], model, report=heard)
        assert isinstance(texts, Domains) and [part.name for part in texts.parts] == names
        with Engine(model, EngineOptions(512, vocabulary_only=True)) as engine:
            assert min(len(chunks) for chunks in engine.domain_chunks(texts).values()) >= 2
    assert [line for line in heard.said if reason and line.startswith(reason)][:1] or not (reason or heard.said)
    both = [read_texts([DEFAULT_TEXTS / kind], model) for kind in KINDS]
    assert overlap(*both) == 0


@pytest.mark.llamacpp
def test_only_where_they_are_named(reference_model, tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_text((DEFAULT_TEXTS / "evaluation" / "tools.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    model, heard = read_model(reference_model), Recorder()
    read_texts([path], replace(model, metadata={**model.metadata, TEMPLATE_KEY: CHAT}), report=heard)
    assert heard.said == [f"{path}: the model's chat template leaves tool calls out, in 4 of 4 conversations"]
