"""`quantplan memory`: what a model takes in VRAM and RAM when it runs."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from quantplan.budget import parse_size
from quantplan.cache_types import F16_CACHE, USUAL_PAIRS, kv_name
from quantplan.cli import console, options
from quantplan.cli.cache_options import CacheOptions
from quantplan.cli.framework import command, json_option, option
from quantplan.cli.option_groups import MEMORY, ModelOptions
from quantplan.cli.plan_options import LONGEST_CONTEXT, on_cpu_option
from quantplan.devices.fit_params import memory_needs
from quantplan.devices.largest_context import LargestContext, Machine, largest_contexts
from quantplan.devices.memory import MemoryUse, Placement, placement
from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS
from quantplan.report.memory_table import largest_fields, largest_table, memory_fields, memory_notes, memory_table
from quantplan.selector import Selector
from quantplan.tensor import Model
from quantplan.whole_number import whole_number

DEFAULT_CONTEXTS = ("4096", "16384", "32768")


def contexts_option() -> Any:
    return option(
        "Contexts to serve with; repeatable.",
        default=(),
        panel=MEMORY,
        split=lambda text: text.split(","),
        metavar="TOKENS",
        show_default="4096,16384,32768",
    )


class FlashAttention(str, Enum):
    """llama.cpp's --flash-attn."""

    auto = "auto"
    on = "on"
    off = "off"


@command
def memory(
    model: ModelOptions,
    cache: CacheOptions,
    what: Annotated[
        Path | None,
        typer.Argument(help="A plan or a GGUF file, hf:// too (default: the project's model).", show_default=False),
    ] = None,
    serve_ctx: tuple[str, ...] = contexts_option(),
    on_cpu: tuple[str, ...] = on_cpu_option(),
    ubatch: int = option("Tokens computed at once, as in llama.cpp.", "-ub", default=512, panel=MEMORY, min=1),
    flash_attn: FlashAttention = option("As in llama.cpp.", "-fa", default=FlashAttention.auto, panel=MEMORY),
    vram: str | None = option("Also the largest context that fits, for each pair of cache types: 24GiB.", panel=MEMORY),
    as_json: bool = json_option(),
) -> None:
    """Show what a model takes in VRAM and RAM: weights, KV cache and buffers at given contexts.

    All layers are on the GPU, the input layer and the tensors of --on-cpu in RAM; the matching --override-tensor
    argument is printed. Sizes of cache and buffers come from llama.cpp (llama-fit-params); what had to be computed
    has a star. The GPU's driver and other programs take memory too.

    --vram 24GiB shows the largest context up to what the model was trained for, with each type of K and of V (or with
    those of --kv), as llama-fit-params would say.

    Example: quantplan memory prose-10m-f16.gguf --serve-ctx 4096,32768 --kv q8_0
    """
    subject, sizes = _subject(what and options.local(what), model.file)
    cache_types = F16_CACHE if cache.automatic else cache.cache_types
    if cache.automatic:
        console.say("notice: --kv auto is for `quantplan solve` and `quantplan run`; shown with f16")
    attention = {"auto": None, "on": True, "off": False}[flash_attn.value]
    where = placement(subject, [Selector(text) for text in on_cpu])
    needs = [memory_needs(subject, tokens, cache_types, ubatch, attention) for tokens in parse_contexts(serve_ctx)]
    largest = None
    if vram is not None and "," in vram:
        console.say(f"notice: largest contexts are shown for one GPU, not for --vram {vram}")
    elif vram is not None:
        machine = Machine(parse_size(vram, "--vram"), ubatch, attention)
        pairs = [cache_types] if cache.any else USUAL_PAIRS
        largest = machine, largest_contexts(subject, where, sizes, machine, pairs)
    _show([where.use(need, sizes) for need in needs], where, (what or subject.path).name, largest, as_json)


def _subject(what: Path | None, option: Path | None) -> tuple[Model, Mapping[str, int]]:
    """The model, and the bytes of its tensors as they are or as the plan has them."""
    if what is None or what.suffix != ".json":
        if what is not None and option is not None:
            raise BadUsage(f"two models, {what} and {option}; give one of them")
        model = read_model(what or options.model_path(option))
        return model, {tensor.name: tensor.bytes for tensor in model.tensors}
    plan = PLANS.read(what)
    model = read_model(options.model_path(option, plan))
    plan.check_belongs_to(model)
    return model, {tensor.name: tensor.bytes for tensor in plan.tensors}


def parse_contexts(words: Sequence[str]) -> list[int]:
    """Tokens of the contexts of --serve-ctx; BadUsage for what is no number from 8 to 2^24."""
    words = words or DEFAULT_CONTEXTS
    for word in map(str.strip, words):
        if not 8 <= (whole_number(word) or 0) <= LONGEST_CONTEXT:
            raise BadUsage(
                f"cannot read the context {word!r} in --serve-ctx; write 8 to {LONGEST_CONTEXT:,} tokens, several as "
                "4096,16384"
            )
    return [int(word) for word in words]


def _show(
    uses: list[MemoryUse],
    where: Placement,
    name: str,
    largest: tuple[Machine, tuple[LargestContext, ...]] | None,
    as_json: bool,
) -> None:
    rules = where.override_tensor()
    if as_json:
        fields = {
            "file": name,
            "contexts": [memory_fields(use) for use in uses],
            "override_tensor": list(rules),
            "equivalent_option": where.equivalent_option(),
            "unused_tensors": sorted(where.unused),
        }
        console.put_json(fields | ({"largest_contexts": largest_fields(*largest)} if largest else {}))
        return
    console.put_table(memory_table(uses, f"{name}, KV cache {kv_name(uses[0].needs.kv)}"))
    if largest:
        console.put("")
        console.put_table(largest_table(name, *largest))
    for note in memory_notes(uses):
        console.say(note)
    if where.unused:
        console.say(f"{len(where.unused)} tensors are not loaded: they predict further tokens (MTP)")
    if rules:
        console.put(f"--override-tensor '{','.join(rules)}'")
        if option := where.equivalent_option():
            console.say(f"the same: {option}")
