"""A plan in the words of llama-quantize, of ik_llama.cpp, of Thireus' tools and of hybrid layer quants."""

import shlex
from collections.abc import Callable
from pathlib import Path

from quantplan import __version__
from quantplan.errors import BadFile, BadUsage
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import REALIGN, Rule
from quantplan.plan import Plan
from quantplan.recipes.ik_types import ik_name
from quantplan.recipes.layer_types import write_layer_types
from quantplan.recipes.quantize_command import build_command, plan_rules
from quantplan.recipes.rules import role_rules
from quantplan.tensor import GGUF_ALIGNMENT

_SECTIONS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Embeddings and output", lambda pattern: "blk" not in pattern),
    ("Attention", lambda pattern: "attn" in pattern),
    ("Experts", lambda pattern: "_exps" in pattern or "_shexp" in pattern),
    ("Feed-forward", lambda pattern: "ffn" in pattern),
    ("Other tensors", lambda pattern: True),
)


def plan_text(plan: Plan, form: str, model_path: Path | None = None) -> str:
    """``form``: "tensor-types" (a rules file), "args" (a command line), "layer-types", "custom-q" (ik_llama.cpp) or
    "recipe" (GGUF-Tool-Suite).

    ``model_path``: where the model lies now, if not where the plan says. BadUsage for layer types of a plan
    that was not made in layer mode, and for types that the tool does not have; BadFile or ModelMismatch where the command line is
    wanted and the model is not there.
    """
    if form == "args":
        return _command(plan, model_path or Path(plan.model_path))
    texts = {"layer-types": layer_types_text, "custom-q": custom_q_text, "recipe": recipe_text}
    return texts.get(form, _rules_text)(plan)


def alignment_note(plan: Plan, model_path: Path | None = None) -> str | None:
    """What must be told to llama-quantize next to the rules, of a model whose alignment is not 32; None where there is nothing,
    or the model is not there.
    """
    try:
        alignment = read_layout(model_path or Path(plan.model_path)).alignment
    except BadFile:
        return None
    if alignment == GGUF_ALIGNMENT:
        return None
    return (
        f"general.alignment of the model is {alignment}, and llama-quantize would make a file of it that cannot be read: add "
        f"{' '.join(REALIGN)} to its command line, as `quantplan quantize` and `quantplan emit --as args` do"
    )


def _rules_text(plan: Plan) -> str:
    return "".join(f"{rule}\n" for rule in plan_rules(plan))


def layer_types_text(plan: Plan) -> str:
    if not plan.layer_types:
        raise BadUsage(
            "this plan decides tensor by tensor, LAYER_TYPES can only say one FTYPE for each block; "
            "plan in layer mode, or emit it --as tensor-types"
        )
    names = plan.made_from.get("layer_names")
    return write_layer_types(plan.layer_types, plan.flags, names if isinstance(names, dict) else None)


def custom_q_text(plan: Plan) -> str:
    """The option of ik_llama.cpp's llama-quantize, to be pasted before the names of the files; it needs a quantized file
    type after them. Its patterns are searched as they stand, the first wins, and commas part the rules."""
    return f"--custom-q {shlex.quote(','.join(_ik_rule(rule) for rule in plan_rules(plan)))}\n"


def recipe_text(plan: Plan) -> str:
    """All tensors, copied ones too, one role and type a line as GGUF-Tool-Suite's recipes have them."""
    rules = role_rules(plan.types)
    lines = [
        f"## Recipe written by quantplan {__version__}",
        f"# Model name: {plan.model_name}",
        f"# {plan.file_bytes:,} bytes; built without an imatrix"
        if plan.imatrix is None
        else f"# {plan.file_bytes:,} bytes; built with the imatrix {plan.imatrix.file}",
    ]
    left = list(rules)
    for title, belongs in _SECTIONS:
        here = [rule for rule in left if belongs(rule.pattern)]
        left = [rule for rule in left if not belongs(rule.pattern)]
        lines += ["", f"## {title}", *(_ik_rule(rule) for rule in here)] if here else []
    return "\n".join([*lines, ""])


def _ik_rule(rule: Rule) -> str:
    return f"{rule.pattern}={ik_name(rule.type)}"


def _command(plan: Plan, model_path: Path) -> str:
    model = read_model(model_path)
    plan.check_belongs_to(model)
    out = Path(f"{model_path.name.removesuffix('.gguf')}-{plan.base_ftype}.gguf")
    return build_command(plan, model, out) + "\n"
