"""From an item of a suite to the prompt for the model."""

from quantplan.evaluate.suites.suite import (
    COHERENCE,
    DIRECT,
    FEELINGS,
    NOT_MEASURED,
    PERPLEXITY,
    Suite,
    SuiteItem,
    SuitePart,
)
from quantplan.llamacpp.chat import ALWAYS, NEVER, SWITCH, ChatForm, Prompt
from quantplan.llamacpp.generation import GenerationRequest

_FEELINGS = (
    "How strongly does {who} feel each of these at the end: {feelings}? Rate each with a number from 0 (not at all) "
    "to 10 (as strongly as can be). Answer with one line for each, in this form:"
)


def why_not(part: SuitePart, form: ChatForm) -> str:
    """Why the part does not apply to a model that is asked in this form; empty where it does."""
    if part.kind == PERPLEXITY:
        return NOT_MEASURED
    missing = (
        "the file has no chat template" if form.template is None else "its chat template does not support thinking"
    )
    if part.thinks and form.thinks == NEVER:
        return missing
    if part.kind == DIRECT and form.thinks != SWITCH:
        return missing if form.thinks == NEVER else "its chat template cannot switch thinking off"
    return ""


def request(suite: Suite, part: SuitePart, item: SuiteItem, form: ChatForm) -> GenerationRequest:
    """The item's prompt and its most tokens: more of them where the model thinks although nobody asked it to."""
    if part.kind == COHERENCE:
        return GenerationRequest(Prompt(item.text), item.max_tokens)
    unasked = form.thinks == ALWAYS and not part.thinks
    return GenerationRequest(
        form.prompt(wording(part, item), part.thinks), item.max_tokens + (suite.thinking_tokens if unasked else 0)
    )


def wording(part: SuitePart, item: SuiteItem) -> str:
    """The text of the user message."""
    if part.kind != FEELINGS:
        return f"{item.text} {part.instruction}".strip()
    names = [name for name, _ in item.feelings]
    question = (part.instruction or _FEELINGS).replace("{who}", item.who).replace("{feelings}", ", ".join(names))
    return "\n".join([f"Read this dialogue.\n\n{item.text}\n\n{question}", *(f"{name}: number" for name in names)])
