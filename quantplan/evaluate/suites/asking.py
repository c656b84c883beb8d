"""How the items of a suite are put to a model, and which parts do not apply to it."""

from collections.abc import Mapping
from functools import cached_property

from quantplan.evaluate.suites.programs.run_program import can_run
from quantplan.evaluate.suites.suite import (
    CODE,
    COHERENCE,
    DIRECT,
    FEELINGS,
    NOT_MEASURED,
    PERPLEXITY,
    TOOLS,
    Suite,
    SuiteItem,
    SuitePart,
)
from quantplan.llamacpp.chat import ALWAYS, NEVER, SWITCH, ChatForm, Prompt
from quantplan.llamacpp.chat_tools import ToolForm
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.generation import GenerationRequest

_FEELINGS = (
    "How strongly does {who} feel each of these at the end: {feelings}? Rate each with a number from 0 (not at all) "
    "to 10 (as strongly as can be). Answer with one line for each, in this form:"
)


class ModelForms:
    """How one model is asked: ``chat`` without tools, ``tools`` with them."""

    def __init__(self, metadata: Mapping[str, object], engine: Engine) -> None:
        """BadFile for a chat template that cannot be rendered."""
        self.chat = ChatForm(metadata, engine)
        self._made_from = metadata, engine

    @cached_property
    def tools(self) -> ToolForm:
        return ToolForm(*self._made_from, self.chat)


def why_not(part: SuitePart, forms: ModelForms) -> str:
    """Why the part does not apply to a model that is asked in these forms; empty where it does."""
    if part.kind == PERPLEXITY:
        return NOT_MEASURED
    if part.kind == TOOLS:
        return forms.tools.why_not
    if part.kind == CODE and not can_run():
        return "this system cannot limit what a program takes"
    missing = (
        "the file has no chat template"
        if forms.chat.template is None
        else "its chat template does not support thinking"
    )
    if part.thinks and forms.chat.thinks == NEVER:
        return missing
    if part.kind == DIRECT and forms.chat.thinks != SWITCH:
        return missing if forms.chat.thinks == NEVER else "its chat template cannot switch thinking off"
    return ""


def request(suite: Suite, part: SuitePart, item: SuiteItem, forms: ModelForms) -> GenerationRequest:
    """The item's prompt and its most tokens: more of them where the model thinks although nobody asked it to."""
    if part.kind == COHERENCE:
        return GenerationRequest(Prompt(item.text), item.max_tokens)
    unasked = forms.chat.thinks == ALWAYS and not part.thinks
    tokens = item.max_tokens + (suite.thinking_tokens if unasked else 0)
    if item.tools:
        return GenerationRequest(forms.tools.prompt(wording(part, item), [tool.offered for tool in item.tools]), tokens)
    return GenerationRequest(forms.chat.prompt(wording(part, item), part.thinks), tokens)


def wording(part: SuitePart, item: SuiteItem) -> str:
    """The text of the user message."""
    if part.kind != FEELINGS:
        return f"{item.text} {part.instruction}".strip()
    names = [name for name, _ in item.feelings]
    question = (part.instruction or _FEELINGS).replace("{who}", item.who).replace("{feelings}", ", ".join(names))
    return "\n".join([f"Read this dialogue.\n\n{item.text}\n\n{question}", *(f"{name}: number" for name in names)])
