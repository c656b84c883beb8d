"""A plan in the words of llama-quantize and of hybrid layer quants."""

from __future__ import annotations

from pathlib import Path

from quantplan.errors import BadUsage
from quantplan.experiments.build import build_command, plan_rules
from quantplan.formats.gguf import read_model
from quantplan.formats.layer_types import write_layer_types
from quantplan.plan import Plan


def plan_text(plan: Plan, form: str, model_path: Path | None = None) -> str:
    """``form``: "tensor-types" (a rules file), "args" (a command line) or "layer-types".

    ``model_path``: where the model lies now, if not where the plan says. BadUsage for layer types of a plan
    that was not made in layer mode; BadFile or ModelMismatch where the command line is wanted and the model
    is not there.
    """
    if form == "layer-types":
        return layer_types_text(plan)
    if form == "args":
        return _command(plan, model_path or Path(plan.model_path))
    return "".join(f"{rule}\n" for rule in plan_rules(plan))


def layer_types_text(plan: Plan) -> str:
    if not plan.layer_types:
        raise BadUsage(
            "this plan decides tensor by tensor, LAYER_TYPES can only say one FTYPE for each block; "
            "plan in layer mode, or emit it --as tensor-types"
        )
    return write_layer_types(plan.layer_types, plan.flags)


def _command(plan: Plan, model_path: Path) -> str:
    model = read_model(model_path)
    plan.check_belongs_to(model)
    out = Path(f"{model_path.name.removesuffix('.gguf')}-{plan.base_ftype}.gguf")
    return build_command(plan, model, out) + "\n"
