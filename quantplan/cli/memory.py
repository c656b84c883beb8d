"""`quantplan memory`: what a model takes in VRAM and RAM when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.devices.memory import MemoryUse, Placement
    from quantplan.tensor import Model

_WhatArgument = Annotated[
    Path | None,
    typer.Argument(help="A plan or a GGUF file, hf:// too (default: the project's model).", show_default=False),
]
ContextsOption = Annotated[str, typer.Option("--ctx", "-c", help="Tokens of context, several with commas.")]
KvOption = Annotated[str, typer.Option("--kv", help="Type of the KV cache, or those of K and V: q8_0,q5_1.")]
OnCpuOption = Annotated[
    list[str] | None, typer.Option("--on-cpu", help="Keep the tensors of SELECTOR in RAM, as ffn_*_exps. Repeatable.")
]
UbatchOption = Annotated[int, typer.Option("--ubatch", min=1, help="Tokens computed at once (llama.cpp's -ub).")]


class FlashAttention(str, Enum):
    """llama.cpp's --flash-attn."""

    auto = "auto"
    on = "on"
    off = "off"


FlashAttentionOption = Annotated[FlashAttention, typer.Option("--flash-attn", help="As llama.cpp's option.")]


def memory(
    what: _WhatArgument = None,
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    ctx: ContextsOption = "4096,16384,32768",
    kv: KvOption = "f16",
    on_cpu: OnCpuOption = None,
    ubatch: UbatchOption = 512,
    flash_attn: FlashAttentionOption = FlashAttention.auto,
    as_json: options.JsonOption = False,
) -> None:
    """Show what a model takes in VRAM and RAM: weights, KV cache and buffers at given contexts.

    All layers on the GPU, the input layer and what --on-cpu names in RAM; the matching --override-tensor
    argument is printed. Cache and buffers are asked of llama.cpp (llama-fit-params); what had to be computed
    has a star. The GPU's driver and other programs take memory besides.

    Example: quantplan memory prose-10m-f16.gguf --ctx 4096,32768 --kv q8_0
    """
    from quantplan.devices.fit_params import memory_needs
    from quantplan.devices.memory import parse_kv, placement
    from quantplan.selector import Selector

    subject, sizes = _subject(what and options.local(what), options.local_or_hub(model, hub))
    kinds = parse_kv(kv)
    attention = {"auto": None, "on": True, "off": False}[flash_attn.value]
    where = placement(subject, [Selector(text) for text in on_cpu or ()])
    needs = [memory_needs(subject, tokens, kinds, ubatch, attention) for tokens in parse_contexts(ctx)]
    _show([where.use(each, sizes) for each in needs], where, (what or subject.path).name, as_json)


def _subject(what: Path | None, option: Path | None) -> tuple[Model, Mapping[str, int]]:
    """The model, and the bytes of its tensors as they are or as the plan has them."""
    from quantplan.gguf.reader import read_model
    from quantplan.records.formats import PLANS

    if what is None or what.suffix != ".json":
        if what is not None and option is not None:
            raise BadUsage(f"two models, {what} and {option}; give one of them")
        found = read_model(what or options.model_path(option))
        return found, {tensor.name: tensor.bytes for tensor in found.tensors}
    plan = PLANS.read(what)
    named = Path(plan.model_path)
    found = read_model(options.model_path(option or (named if named.is_file() else None)))
    plan.check_belongs_to(found)
    return found, {tensor.name: tensor.bytes for tensor in plan.tensors}


def parse_contexts(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    wrong = next(
        (word for word in words if not word.isascii() or not word.isdigit() or not 8 <= int(word) < 2**31), None
    )
    if wrong is not None:
        raise BadUsage(f"cannot read the context {wrong!r} in --ctx {text}; write tokens, several as 4096,16384")
    return [int(word) for word in words]


def _show(uses: list[MemoryUse], where: Placement, name: str, as_json: bool) -> None:
    from quantplan.report.memory_table import memory_fields, memory_notes, memory_table

    rules = where.override_tensor()
    if as_json:
        console.put_json(
            {
                "file": name,
                "contexts": [memory_fields(use) for use in uses],
                "override_tensor": list(rules),
                "equivalent_option": where.equivalent_option(),
                "unused_tensors": sorted(where.unused),
            }
        )
        return
    kinds = ",".join(dict.fromkeys(kind.name.lower() for kind in uses[0].needs.kv))
    console.put_table(memory_table(uses, f"{name}, KV cache {kinds}"))
    if reason := uses[0].needs.not_asked:
        console.warn(f"llama.cpp could not be asked, the buffers are upper bounds: {reason}")
    for note in memory_notes(uses):
        console.say(note)
    if where.unused:
        console.say(f"{len(where.unused)} tensors are not loaded: they predict further tokens (MTP)")
    if rules:
        console.put(f"--override-tensor '{','.join(rules)}'")
        if option := where.equivalent_option():
            console.say(f"the same: {option}")
