"""How tools are offered to a model: by its own chat template, or by the one that it has for tools."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from quantplan.errors import BadFile
from quantplan.llamacpp.chat import TEMPLATE_KEY, ChatForm, Prompt
from quantplan.llamacpp.engine import Engine

TOOL_TEMPLATE_KEY = f"{TEMPLATE_KEY}.tool_use"  # of models with a second template, as llama.cpp names it
_PROBE = "xyzzyquux"  # a tool that no template names by itself
_CALLED = "quuxyzzyx"  # another one, which is called
_QUESTION = "Yzzyxquux?"
_TAG = re.compile(r"<(?!/?think)[^<>\s]+>|\[[A-Z_]+\]")
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

    ``call_marks``: tags that the template itself writes between the beginning of an answer and the name of the tool that it
    calls, such as ``<tool_call>``; none where it cannot be found out.
    """

    def __init__(self, metadata: Mapping[str, object], engine: Engine | None, form: ChatForm) -> None:
        """``form``: without tools."""
        template = metadata.get(TOOL_TEMPLATE_KEY)
        self.call_marks: tuple[str, ...] = ()
        self._form = form
        try:
            self._form = ChatForm({TEMPLATE_KEY: template}, engine) if template else form
            self.why_not = self._why_not()
            self.call_marks = () if self.why_not else self._call_marks()
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

    def _call_marks(self) -> tuple[str, ...]:
        """What an answer with a call has, in this model's own history of it, that the prompt for an answer does not have yet."""
        question = {"role": "user", "content": _QUESTION}
        call = {"id": "xyzzy0000", "type": "function", "function": {"name": _CALLED, "arguments": {"it": "that"}}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        try:
            written = self._form.conversation([question, answer], [_PROBE_TOOL])
        except Exception:  # noqa: BLE001 - a template is a program of someone else's and may fail in any way
            return ()
        prompt = self._form.bos + self._form.prompt(_QUESTION, tools=[_PROBE_TOOL]).text
        common = os.path.commonprefix([written, prompt])
        before, called, _ = written[len(common) :].partition(_CALLED)
        return tuple(dict.fromkeys(_TAG.findall(before))) if called and _QUESTION in common else ()
