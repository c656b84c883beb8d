"""Tools in prompts: offered where the model's template can, and a reason where it cannot."""

import pytest

from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm
from quantplan.llamacpp.chat_tools import TOOL_TEMPLATE_KEY, ToolForm
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions

TOOLS = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
OFFERED = [{"type": "function", "function": {"name": "ping", "description": "It's", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def engine(reference_model):
    with Engine(reference_model, EngineOptions(vocabulary_only=True)) as loaded:
        yield loaded


def form(engine, template=None, for_tools=None):
    metadata = {TEMPLATE_KEY: template, TOOL_TEMPLATE_KEY: for_tools}
    return ToolForm(metadata, engine, ChatForm(metadata, engine))


def test_tools_are_offered(engine):
    tools = form(engine, TOOLS)
    assert tools.why_not == ""
    shown = (
        '{"type": "function", "function": {"name": "ping", "description": "It\'s", "parameters": {"type": "object"}}}'
    )
    assert tools.prompt("Who?", OFFERED).text == f"{shown}\nuser: Who?\nassistant:"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "the file has no chat template to offer tools in"),
        (PLAIN, "its chat template does not show tools"),
        ("{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + PLAIN, "cannot offer tools (no tools)"),
        ("{% for tool in tools or [] %}{{ tool.name | upper }}{% endfor %}" + PLAIN, "does not show tools"),
    ],
)
def test_why_not(engine, template, reason):
    assert form(engine, template).why_not.endswith(reason)


def test_a_template_for_tools(engine):
    assert form(engine, PLAIN, TOOLS).prompt("Who?", OFFERED).text.startswith('{"type"')
    assert form(engine, PLAIN, "{% if %}").why_not.startswith("its chat template cannot offer tools (")


START = "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}<|{{ m.role }}|>"
END = "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize(
    ("call", "marks"),
    [
        (
            '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>',
            ("<tool_call>",),
        ),
        ("[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}", ("[TOOL_CALLS]",)),
        (
            "<｜calls▁begin｜><｜call▁begin｜>function<｜sep｜>{{ f.name }}",
            ("<｜calls▁begin｜>", "<｜call▁begin｜>", "<｜sep｜>"),
        ),
        ("<think>\n</think><tool_call>{{ f.name }}", ("<tool_call>",)),
        ('{"name": "{{ f.name }}", "parameters": {{ f.arguments + "" }}}', ()),  # JSON text of arguments is asked for
        ("{{ raise_exception('no calls in a history') }}", ()),
        ("", ()),  # calls are not written at all
    ],
)
def test_tags_of_calls(engine, call, marks):
    calls = "{% for c in m.tool_calls %}{% set f = c.function %}" + call + "{% endfor %}"
    template = START + "{{ m.content }}{% if m.tool_calls %}" + calls + "{% endif %}" + END
    assert form(engine, template).call_marks == marks


def test_no_tags_where_the_history_reads_otherwise(engine):
    template = START.replace("<|", "{% if not loop.last or m.role == 'user' and add_generation_prompt %}{% endif %}<|")
    template += "{% if messages | length > 1 %}<history>{% endif %}{{ m.content }}{% if m.tool_calls %}<call>"
    template += "{{ m.tool_calls[0].function.name }}{% endif %}" + END
    assert form(engine, template).call_marks == ()
