"""The llama-quantize command line of a plan."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from quantplan.llamacpp import quantize as tool
from quantplan.llamacpp.quantize import Recipe, Rule
from quantplan.llamacpp.tools import command_line
from quantplan.plan import Plan
from quantplan.recipes.rules import write_rules
from quantplan.tensor import Model


def plan_rules(plan: Plan) -> tuple[Rule, ...]:
    """The rules for llama-quantize, checked to give the plan under both of its orders of precedence."""
    return write_rules({tensor.name: tensor.type for tensor in plan.tensors if tensor.rule}, plan.types)


def requantizes(plan: Plan, source: Model) -> bool:
    """Whether building the plan encodes tensors of the source that are quantized already."""
    stored = ((source.by_name[tensor.name].type, tensor.type) for tensor in plan.tensors)
    return any(old != new and old.family != "float" for old, new in stored)


def build_command(plan: Plan, source: Model, out: Path, imatrix_path: Path | None = None, threads: int = 0) -> str:
    """The llama-quantize command line that builds the plan, all rules spelled out, to be pasted."""
    imatrix = (imatrix_path or Path(plan.imatrix.path)) if plan.imatrix else None
    recipe = Recipe(
        plan.base_ftype,
        plan_rules(plan),
        imatrix=imatrix,
        exclude=tuple(_excludable(plan)),
        allow_requantize=requantizes(plan, source),
        realign=tool.realigns(source),
    )
    return quantize_command(recipe, source, out, threads)


def _excludable(plan: Plan) -> Iterator[str]:
    """The tensors without importance that ``--exclude-weights`` can name: it would take attn_output.weight for output.weight."""
    for name in plan.imatrix.excluded if plan.imatrix else ():
        if sum(name in other for other in plan.types) == 1:
            yield name


def quantize_command(recipe: Recipe, source: Model, out: Path, threads: int = 0) -> str:
    """The llama-quantize command line of a recipe, to be pasted."""
    recipe, cwd = in_imatrix_folder(recipe)
    return command_line(tool.argv(source.path, recipe, out, threads), cwd)


def in_imatrix_folder(recipe: Recipe) -> tuple[Recipe, Path | None]:
    """The recipe with the imatrix by its bare file name, and its folder to run llama-quantize in.

    The path as given becomes metadata of the file: its size would depend on the folder, and a private path
    would be published with the model.
    """
    if recipe.imatrix is None:
        return recipe, None
    return replace(recipe, imatrix=Path(recipe.imatrix.name)), recipe.imatrix.absolute().parent
