"""How a question or a conversation is put to a model: its own chat template, or a plain form where the file has none.

The template (``tokenizer.chat_template`` of the GGUF) is rendered by llama-cpp-python's Jinja2ChatFormatter, in a sandbox. A
question is one user message without a system message. ``enable_thinking`` is handed to it: templates of models that can think
with and without (Qwen3 and its like) read it, others ignore it. A message is a text; templates that walk over the parts of a
message, as those of models that see images do, get it as a list of one part.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantplan.errors import BadFile
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.time_limit import RENDER_SECONDS, time_limit

TEMPLATE_KEY = "tokenizer.chat_template"
OPENED, CLOSED = "<think>", "</think>"
ALWAYS, SWITCH, NEVER = "always", "switch", "never"  # what a template knows of thinking
PLAIN = "Question: {question}\nAnswer:"
_PLAIN_STOP = ("\nQuestion:",)  # a model without a template continues with questions of its own
_A_DAY = "01 Jan 2025"  # for templates that write today's date into the prompt: answers must not change overnight
_TAG = re.compile(r"</?think>")
_PROBE = "Xyzzyquux"  # a question that no template says by itself, and that none has to escape
_FORMS: tuple[Callable[[str], object], ...] = (str, lambda question: [{"type": "text", "text": question}])
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """``text`` as the model reads it. ``special``: its special tokens are parsed. ``stop``: texts that end the answer.

    ``thinking``: the prompt ends inside a block of thinking, so that the answer begins there.
    """

    text: str
    special: bool = False
    stop: tuple[str, ...] = ()
    thinking: bool = False


class ChatForm:
    """Prompts for one model. ``thinks``: ALWAYS, SWITCH (with and without) or NEVER. ``bos``: as ``added_bos`` gives it."""

    def __init__(self, metadata: Mapping[str, object], engine: Engine | None = None) -> None:
        """``metadata``: of the model's header. Without the engine special tokens are left out of prompts.

        BadFile where its template cannot be rendered, or leaves the question out.
        """
        template = metadata.get(TEMPLATE_KEY)
        self.template = str(template) if template else None
        self._whose = f"the chat template of {engine.path}" if engine else "the model's chat template"
        self.bos, self._formatter, self._content = "", None, _FORMS[0]
        if self.template:
            self.bos = added_bos(engine) if engine else ""
            self._formatter = _formatter(self.template, engine, self._whose)
            self._content = self._form()
        self.thinks = self._kind()

    def prompt(self, question: str, thinking: bool = False, tools: Sequence[object] | None = None) -> Prompt:
        """The question as the user's only message, up to where the answer begins. ``tools``: as in OpenAI's API."""
        if self._formatter is None:
            return Prompt(PLAIN.format(question=question), stop=_PLAIN_STOP)
        # a BOS that the tokenizer adds anyway would stand there twice
        text = self._render(question, thinking, tools).removeprefix(self.bos)
        tags = _TAG.findall(text)
        return Prompt(text, special=True, thinking=bool(tags) and tags[-1] == OPENED)

    def conversation(self, messages: Sequence[Message], tools: Sequence[object] | None = None) -> str:
        """A whole conversation, with the BOS token in front where the tokenizer or the template puts one; no prompt for a further
        answer. Contents of messages are texts. Raises whatever the template raises: it is a program of someone else's.

        Arguments of tool calls go to the template as an object, which most ask for; as their JSON text where it fails on that.
        """
        assert self._formatter is not None
        shown = [{**message, "content": self._content(message.get("content") or "")} for message in messages]
        as_objects = [_with_arguments(message, _as_object) for message in shown]
        try:
            text = self._write(as_objects, tools)
        except Exception:
            as_texts = [_with_arguments(message, _as_text) for message in shown]
            if as_texts == as_objects:
                raise
            text = self._write(as_texts, tools)
        return text if text.startswith(self.bos) else self.bos + text

    def _write(self, messages: list[dict[str, Any]], tools: Sequence[object] | None) -> str:
        self._formatter.add_generation_prompt = False  # type: ignore[union-attr]
        try:
            with time_limit(RENDER_SECONDS):
                return self._formatter(messages=messages, tools=tools or None).prompt  # type: ignore[misc]
        finally:
            self._formatter.add_generation_prompt = True  # type: ignore[union-attr]

    def _form(self) -> Callable[[str], object]:
        """What makes a question the content of a message: the first of _FORMS that the template shows."""
        failures = []
        for self._content in _FORMS:
            try:
                if _PROBE in self._render(_PROBE, False):
                    return self._content
            except BadFile as error:
                failures.append(error)
        if failures:
            raise failures[0]
        raise BadFile(
            f"{self._whose} does not show the user's message, neither as a text nor as a list of parts; "
            f"fix {TEMPLATE_KEY} in the file, or take a file without it"
        )

    def _kind(self) -> str:
        if self._formatter is None:
            return NEVER
        if self._render("?", True) != self._render("?", False):
            return SWITCH
        return ALWAYS if OPENED in self.template or CLOSED in self.template else NEVER  # type: ignore[operator]

    def _render(self, question: str, thinking: bool, tools: Sequence[object] | None = None) -> str:
        messages = [{"role": "user", "content": self._content(question)}]
        try:
            with time_limit(RENDER_SECONDS):
                return self._formatter(messages=messages, enable_thinking=thinking, tools=tools or None).prompt  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - a template is a program of someone else's and may fail in any way
            raise BadFile(
                f"{self._whose} cannot be rendered ({type(error).__name__}: {error}); "
                f"fix {TEMPLATE_KEY} in the file, or take a file without it"
            ) from None


def _formatter(template: str, engine: Engine | None, whose: str) -> Any:
    from jinja2 import TemplateError
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    try:
        formatter: Any = Jinja2ChatFormatter(
            template, eos_token=_special(engine, "eos"), bos_token=_special(engine, "bos")
        )
    except TemplateError as error:
        raise BadFile(f"{whose} is not Jinja ({error}); fix {TEMPLATE_KEY} in the file") from None
    formatter.strftime_now = lambda _format: _A_DAY
    return formatter


def _with_arguments(message: dict[str, Any], form: Callable[[object], object]) -> dict[str, Any]:
    """The message with the arguments of its tool calls in another form."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    formed = [
        {**call, "function": {**call["function"], "arguments": form(call["function"].get("arguments", {}))}}
        if isinstance(call.get("function"), Mapping)
        else call
        for call in calls
    ]
    return {**message, "tool_calls": formed}


def _as_object(arguments: object) -> object:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _as_text(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def added_bos(engine: Engine) -> str:
    """The text of the BOS token where the tokenizer puts one in front, else nothing."""
    import llama_cpp

    return _special(engine, "bos") if llama_cpp.llama_vocab_get_add_bos(engine.vocab) else ""


def _special(engine: Engine | None, name: str) -> str:
    if engine is None:
        return ""
    import llama_cpp

    token = getattr(llama_cpp, f"llama_vocab_{name}")(engine.vocab)
    return llama_cpp.llama_vocab_get_text(engine.vocab, token).decode("utf-8", "replace") if token >= 0 else ""
