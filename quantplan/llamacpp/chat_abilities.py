"""What a model's chat template can do, found out by rendering it: think, offer tools, take a system message."""

from collections.abc import Mapping
from dataclasses import dataclass

from quantplan.errors import BadFile
from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm

_TOOL_TEMPLATE = f"{TEMPLATE_KEY}.tool_use"  # a second template for tools, as Command R has one
_WORD = "Xyzzyquux"  # no template says it by itself
_USER = {"role": "user", "content": "Hello!"}
_SYSTEM = {"role": "system", "content": _WORD}
_TOOL = {
    "type": "function",
    "function": {
        "name": _WORD,
        "description": "Gives the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True)
class ChatAbilities:
    """``thinks``: ``chat.ALWAYS``, ``SWITCH`` (by ``enable_thinking``) or ``NEVER``."""

    thinks: str
    tools: bool
    system: bool


def chat_abilities(metadata: Mapping[str, object]) -> ChatAbilities | None:
    """Of ``tokenizer.chat_template``; None where there is none, or none that can be rendered."""
    try:
        form = ChatForm(metadata)
    except BadFile:
        return None
    if form.template is None:
        return None
    return ChatAbilities(form.thinks, _TOOL_TEMPLATE in metadata or _shows_tools(form), _shows_system(form))


def _shows_tools(form: ChatForm) -> bool:
    try:
        return _WORD in form.conversation([_USER], [_TOOL])
    except Exception:  # noqa: BLE001 - a template is a program of someone else's and may fail in any way
        return False


def _shows_system(form: ChatForm) -> bool:
    try:
        return _WORD in form.conversation([_SYSTEM, _USER])
    except Exception:  # noqa: BLE001 - as above: some refuse a system message
        return False
