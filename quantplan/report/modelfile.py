"""The Modelfile that Ollama makes a model of: what the GGUF's metadata says, and nothing that would be a guess.

Ollama's templates are in Go's language, GGUF's in Jinja. One is put into the other's place only where both are sure to say the
same: the GGUF's template is rendered for several conversations and must give, to the character, what a well-known format gives.
Otherwise the line is left out, and Ollama looks at the GGUF's own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from quantplan.llamacpp.time_limit import RENDER_SECONDS, TookTooLong, time_limit
from quantplan.report.modelfile_settings import ModelfileSettings

Message = Mapping[str, str]

# general.sampling.* (llama-arch.cpp) and Ollama's names for them
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
}
CHAT_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class ChatFormat:
    """A format of conversations: ``rendered`` up to where the assistant is to speak, and the same in Ollama's language."""

    name: str
    rendered: Callable[[Sequence[Message]], str]
    ollama: str


def _chatml(messages: Sequence[Message]) -> str:
    turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in messages)
    return "".join(turns) + "<|im_start|>assistant\n"


def _llama3(messages: Sequence[Message]) -> str:
    turns = (
        f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n{message['content']}<|eot_id|>"
        for message in messages
    )
    return "".join(turns) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


FORMATS = (
    ChatFormat(
        "ChatML",
        _chatml,
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
    ),
    ChatFormat(
        "Llama 3",
        _llama3,
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
)
_ASKED, _ANSWERED, _AGAIN = (
    {"role": role, "content": f"{role} says {number}"}
    for role, number in (("user", "one"), ("assistant", "two"), ("user", "three"))
)
_CONVERSATIONS = ([_ASKED], [_ASKED, _ANSWERED, _AGAIN], [{"role": "system", "content": "system says zero"}, _ASKED])


def chat_format(template: str) -> ChatFormat | None:
    """The format that a GGUF's chat template is; None for one that can do more, such as tools or thinking."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if any(word in template for word in ("tools", "enable_thinking", "reasoning_content")):
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        compiled = environment.from_string(template)
        with time_limit(RENDER_SECONDS):
            said = [
                compiled.render(messages=messages, add_generation_prompt=True, bos_token="", eos_token="")
                for messages in _CONVERSATIONS
            ]
    except (
        TemplateError,
        TookTooLong,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
    ):  # it needs more than a conversation
        return None
    return next((known for known in FORMATS if said == [known.rendered(messages) for messages in _CONVERSATIONS]), None)


def modelfile_text(
    file: str,
    metadata: Mapping[str, object],
    others: Sequence[str] = (),
    settings: ModelfileSettings = ModelfileSettings(),
) -> str:
    """The Modelfile of a GGUF in the same folder. ``others``: files that may take its place. Settings go before metadata."""
    lines = ["# ollama create NAME -f Modelfile", f"FROM ./{file}", *(f"# FROM ./{other}" for other in others)]
    return "\n".join([*lines, *_template(metadata), *_parameters(metadata, settings.names), *settings.lines, ""])


def _template(metadata: Mapping[str, object]) -> list[str]:
    template = metadata.get(CHAT_TEMPLATE)
    if not isinstance(template, str):
        return ["# The GGUF has no chat template: prompts are passed on as they are.", 'TEMPLATE """{{ .Prompt }}"""']
    known = chat_format(template)
    if known is None:
        return ["# No TEMPLATE: Ollama takes the chat template of the GGUF itself (tokenizer.chat_template)."]
    return [f"# The GGUF's chat template is {known.name}.", f'TEMPLATE """{known.ollama}"""']


def _parameters(metadata: Mapping[str, object], given: Collection[str]) -> list[str]:
    """The sampling that the GGUF recommends, without parameters that are given, and as a comment how much context it was
    trained for."""
    lines = [
        f"PARAMETER {name} {value:g}"
        for key, name in SAMPLING.items()
        if name not in given and isinstance(value := metadata.get(f"general.sampling.{key}"), (int, float))
    ]
    trained = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if isinstance(trained, int) and "num_ctx" not in given:
        lines.append(f"# Trained with {trained} tokens of context; PARAMETER num_ctx says how many Ollama keeps.")
    return lines
