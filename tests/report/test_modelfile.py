"""The Modelfile says what the metadata says; a chat template is translated only where it is sure to be one that is known."""

import re

import pytest

from quantplan.errors import BadUsage
from quantplan.report.modelfile import FORMATS, chat_format, modelfile_text
from quantplan.report.modelfile_settings import modelfile_settings

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}"
    "{% set c = '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.mark.parametrize("template, name", [(CHATML, "ChatML"), (LLAMA3, "Llama 3")])
def test_known_formats_are_known_by_what_they_say(template, name):
    assert chat_format(template).name == name


@pytest.mark.parametrize(
    "template",
    [
        CHATML.replace("<|im_end|>", "<|im_end|> "),
        "{% if not messages[0].role == 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
        + CHATML,  # Qwen 2.5's way
        CHATML + "{% if tools %}{{ tools }}{% endif %}",  # knows more than a conversation
        CHATML + "{% if enable_thinking %}<think>{% endif %}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m.content",
        "{{ messages[5].content }}",
        "plain",
    ],
)
def test_anything_else_is_left_to_ollama(template):
    assert chat_format(template) is None
    text = modelfile_text("m.gguf", {"tokenizer.chat_template": template})
    assert 'TEMPLATE """' not in text and "# No TEMPLATE: Ollama takes the chat template of the GGUF itself" in text


@pytest.mark.parametrize("template, format", list(zip((CHATML, LLAMA3), FORMATS, strict=True)))
def test_a_known_template_is_written_in_ollamas_language(template, format):
    text = modelfile_text("m.gguf", {"tokenizer.chat_template": template})
    assert f'TEMPLATE """{format.ollama}"""' in text and "range .Messages" in text


def test_a_template_cannot_reach_out_of_its_box():
    assert chat_format("{{ ''.__class__.__mro__[1].__subclasses__() }}") is None


def test_a_model_without_template_and_its_parameters():
    metadata = {
        "general.architecture": "qwen3",
        "qwen3.context_length": 40960,
        "general.sampling.temp": 0.6000000238418579,
        "general.sampling.top_k": 20,
        "general.sampling.sequence": "top_k;temp",
    }
    assert modelfile_text("b.gguf", metadata, ["a.gguf"]) == (
        "# ollama create NAME -f Modelfile\nFROM ./b.gguf\n# FROM ./a.gguf\n"
        "# The GGUF has no chat template: prompts are passed on as they are.\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        "PARAMETER temperature 0.6\nPARAMETER top_k 20\n"
        "# Trained with 40960 tokens of context; PARAMETER num_ctx says how many Ollama keeps.\n"
    )


def test_what_is_set_goes_before_the_metadata():
    metadata = {
        "general.architecture": "qwen3",
        "qwen3.context_length": 40960,
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
    }
    given = ["temperature=1", "stop=<|im_end|>", "stop=a,b", "num_ctx=8192", "mirostat_tau=5.0", "seed=-1"]
    text = modelfile_text("b.gguf", metadata, [], modelfile_settings(" You are\nkind. ", given))
    assert text.endswith(
        "PARAMETER top_k 20\nPARAMETER temperature 1\n"
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "a,b"\nPARAMETER num_ctx 8192\nPARAMETER mirostat_tau 5\n'
        'PARAMETER seed -1\nSYSTEM """You are\nkind."""\n'
    )
    assert text.count("temperature") == 1 and "Trained with" not in text
    assert 'SYSTEM """He said "yes"\n"""' in modelfile_text("b", {}, [], modelfile_settings('He said "yes"', []))


@pytest.mark.parametrize(
    "system, parameters, sentence",
    [
        ('a """ b', [], "cannot hold three"),
        ("", ["temperature"], "--parameter temperature: write NAME=VALUE"),
        ("", ["temprature=1"], "no such parameter; did you mean temperature?"),
        ("", ["x=1"], "no such parameter; known: num_ctx"),
        ("", ["top_k=1.5"], "top_k is a whole number"),
        ("", ["temperature=nan"], "temperature is a number"),
        ("", ["temperature=1", "temperature=2"], "--parameter temperature is given twice"),
        ("", ['stop="'], "a stop cannot hold"),
    ],
)
def test_what_a_modelfile_cannot_say(system, parameters, sentence):
    with pytest.raises(BadUsage, match=re.escape(sentence)):
        modelfile_settings(system, parameters)


def test_nothing_is_said_of_what_the_metadata_does_not_say():
    assert "PARAMETER" not in modelfile_text("m.gguf", {})
