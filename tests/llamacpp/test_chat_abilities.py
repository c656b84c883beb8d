"""A chat template is asked by rendering it: words that only stand in it somewhere prove nothing."""

import pytest
from chat_models import ALWAYS, CHAT, SWITCHED

from quantplan.llamacpp.chat_abilities import ChatAbilities, chat_abilities

TOOLS = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}" + CHAT
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "template, thinks, tools, system",
    [
        (CHAT, "never", False, True),
        (SWITCHED, "switch", False, True),
        (ALWAYS, "always", False, True),
        (TOOLS, "never", True, True),
        ("{# tools #}" + CHAT, "never", False, True),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT, "never", False, False),
        (PARTS + "{% if tools %}{{ tools[0].function.name }}{% endif %}", "never", True, True),  # sees images, too
    ],
)
def test_what_templates_can_do(template, thinks, tools, system):
    assert chat_abilities({"tokenizer.chat_template": template}) == ChatAbilities(thinks, tools, system)


def test_a_template_of_its_own_for_tools():
    found = chat_abilities({"tokenizer.chat_template": CHAT, "tokenizer.chat_template.tool_use": TOOLS})
    assert found.tools


@pytest.mark.parametrize("template", [None, "", "{% for", "{{ raise_exception('no') }}", "says nothing"])
def test_without_a_template_that_works_nothing_is_known(template):
    assert chat_abilities({"tokenizer.chat_template": template} if template is not None else {}) is None
