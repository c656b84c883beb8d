"""How tools are offered to a model: by its own chat template, or by the one that it has for tools."""

from collections.abc import Mapping, Sequence
from typing import Any

from quantplan.errors import BadFile
from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm, Prompt
from quantplan.llamacpp.engine import Engine

TOOL_TEMPLATE_KEY = f"{TEMPLATE_KEY}.tool_use"  # of models with a second template, as llama.cpp names it
_PROBE = "xyzzyquux"  # a tool that no template names by itself
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "Nothing.",
        "parameters": {"type": "object", "properties": {"it": {"type": "string"}}, "required": ["it"]},
    },
}


class ToolForm:
    """Prompts with tools for one model. ``why_not``: why none can be offered to it; empty where they can.

    ``call_marks``: texts that the template writes around a call in front of the tool's name.
    """

    def __init__(self, metadata: Mapping[str, object], engine: Engine, form: ChatForm) -> None:
        """``form``: without tools."""
        template = metadata.get(TOOL_TEMPLATE_KEY)
        self.call_marks: tuple[str, ...] = ()
        self._form = form
        try:
            self._form = ChatForm({TEMPLATE_KEY: template}, engine) if template else form
            self.why_not = self._why_not()
        except BadFile as error:
            self.why_not = f"its chat template cannot offer tools ({error.__context__ or error})"

    def prompt(self, question: str, tools: Sequence[Mapping[str, Any]]) -> Prompt:
        """The question as the user's only message, after the tools."""
        return self._form.prompt(question, tools=tools)

    def _why_not(self) -> str:
        if self._form.template is None:
            return "the file has no chat template to offer tools in"
        shown = self._form.prompt("?", tools=[_PROBE_TOOL]).text
        return "" if _PROBE in shown else "its chat template does not show tools"
