"""The model that a card is of, by its header: hyperparameters, and what its chat template can do."""

from collections.abc import Callable, Mapping, Sequence

from quantplan.evaluate.published_files import PublishedFile
from quantplan.llamacpp.chat import ALWAYS, NEVER, TEMPLATE_KEY
from quantplan.llamacpp.chat_abilities import ChatAbilities
from quantplan.report.cells import weights
from quantplan.report.markdown import code, escaped, table
from quantplan.tensor import Model

Metadata = Mapping[str, object]  # of a header, arrays included


def details(file: PublishedFile, metadata: Metadata) -> str:
    """A table of what the header says; what it does not say is left out."""
    model = file.header
    rows = [[name, value] for name, cell in _ROWS if (value := cell(model, metadata))]
    if file.plan:  # else the header is of the quantized file
        rows.append(["Weights before quantization", escaped(model.file_type)])
    return table(["Detail", "Value"], rows, texts=(0, 1))


def features(metadata: Metadata, abilities: ChatAbilities | None) -> list[str]:
    """Lines of a list: what the chat template says, which is not how well the model does it."""
    if not metadata.get(TEMPLATE_KEY):
        return ["No chat template: the model continues texts."]
    if abilities is None:
        return ["A chat template, which could not be rendered here."]
    lines = ["Chat template in the GGUF."]
    if abilities.thinks != NEVER:
        switch = "answers begin with it" if abilities.thinks == ALWAYS else "switched by `enable_thinking`"
        lines.append(f"Thinking mode ({code('<think>')}): {switch}.")
    if abilities.tools:
        lines.append("Tool calling: tools are offered in the template's own form.")
    lines.append("System messages." if abilities.system else "No system messages.")
    return lines


# --- rows


def _number(key: str) -> Callable[[Model, Metadata], str]:
    """A hyperparameter; of one with a value for each block the range, zeros counted apart."""

    def cell(model: Model, metadata: Metadata) -> str:
        return _range(_values(model, metadata, key))

    return cell


def _values(model: Model, metadata: Metadata, key: str) -> Sequence[float]:
    value = metadata.get(f"{model.architecture}.{key}")
    items = value if isinstance(value, tuple) else (value,)
    return [item for item in items if isinstance(item, int | float)]


def _range(values: Sequence[float]) -> str:
    present = sorted({value for value in values if value})
    if not present:
        return ""
    text = " to ".join(f"{value:,g}" if value < 1e6 else f"{value:,.0f}" for value in {present[0]: 0, present[-1]: 0})
    without = sum(not value for value in values)
    return f"{text} (none in {without} of {len(values)} layers)" if without else text


def _layers(model: Model, _metadata: Metadata) -> str:
    more = f" and {model.mtp_blocks} that predict further tokens (MTP)" if model.mtp_blocks else ""
    return f"{model.main_blocks}{more}" if model.blocks else ""


def _heads(model: Model, metadata: Metadata) -> str:
    query, cached = (_number(f"attention.head_count{end}")(model, metadata) for end in ("", "_kv"))
    return " / ".join(filter(None, (query and f"{query} query", cached and f"{cached} key-value")))


def _head_size(model: Model, metadata: Metadata) -> str:
    if stated := _number("attention.key_length")(model, metadata):
        return stated
    width, heads = (_values(model, metadata, key) for key in ("embedding_length", "attention.head_count"))
    return f"{width[0] / max(heads):,g}" if width and heads and max(heads) else ""


def _vocabulary(model: Model, metadata: Metadata) -> str:
    tokens = metadata.get("tokenizer.ggml.tokens")
    return f"{len(tokens):,} tokens" if isinstance(tokens, tuple) else ""


def _tokens(key: str) -> Callable[[Model, Metadata], str]:
    def cell(model: Model, metadata: Metadata) -> str:
        count = _number(key)(model, metadata)
        return f"{count} tokens" if count else ""

    return cell


def _experts(model: Model, metadata: Metadata) -> str:
    count, used = (_number(f"expert_{name}")(model, metadata) for name in ("count", "used_count"))
    return f"{count}, {used} used by a token" if count and used else count


_ROWS: tuple[tuple[str, Callable[[Model, Metadata], str]], ...] = (
    ("Architecture", lambda model, _: code(model.architecture)),
    ("Parameters", lambda model, _: weights(model.elements)),
    ("Layers", _layers),
    ("Hidden size", _number("embedding_length")),
    ("Feed-forward size", _number("feed_forward_length")),
    ("Experts", _experts),
    ("Attention heads", _heads),
    ("Head size", _head_size),
    ("Vocabulary", _vocabulary),
    ("Trained context", _tokens("context_length")),
    ("Local attention", _tokens("attention.sliding_window")),
    ("RoPE base", _number("rope.freq_base")),
    ("Tied embeddings", lambda model, _: "yes" if model.tied else "no"),
)
