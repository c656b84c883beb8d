"""Recipes by tensor category, the form that llama.cpp's pull request 21070 proposes (``--recipe``, not merged in 2026).

    name    mine
    default Q4_K

    [attn_v]
      more_bits        : Q6_K
      n_expert>=8      : Q8_0

Within a category the last rule whose conditions all hold wins; tensors of no category take the default. Source: recipes/README.md
and src/llama-quant-recipe.cpp of that branch; a test holds the reading against the stock mix that such a recipe describes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.errors import BadFile
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type
from quantplan.tensor import Model, Tensor

_HEADER = re.compile(r"^\s*(name|default)[ \t]+(\S.*)$")
_CATEGORY = re.compile(r"^\s*\[\s*(\w+)\s*\]")
_CONDITION = re.compile(r"^(\w+)\s*(>=|<=|!=|=|<|>)\s*(\S+)$")
_MORE_BITS = "more_bits"
_CATEGORIES = (
    "output",
    "token_embd",
    "attn_qkv",
    "attn_kv_b",
    "attn_v",
    "attn_k",
    "attn_q",
    "attn_output",
    "ffn_up",
    "ffn_gate",
    "ffn_down",
)
_COMPARE: Mapping[str, Callable[[object, object], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KEYS = ("layer", "category", "index", "arch", "model_type", "n_expert", "n_gqa")


@dataclass(frozen=True)
class Condition:
    """``key operator value``; the keys ``more_bits`` and ``has_imatrix`` stand alone."""

    key: str
    operator: str = "="
    value: str = ""


@dataclass(frozen=True)
class CategoryRecipe:
    """``rules``: by category (conditions, type) in their order."""

    default: QuantType
    rules: Mapping[str, Sequence[tuple[tuple[Condition, ...], QuantType]]]

    @property
    def asks_for_model_type(self) -> bool:
        """Whether a rule depends on the size that llama.cpp finds by the number of layers."""
        return any(
            each.key == "model_type" for rules in self.rules.values() for conditions, _ in rules for each in conditions
        )


def looks_like_category_recipe(text: str) -> bool:
    lines = text.splitlines()
    return any(_CATEGORY.match(line) for line in lines) and any(_HEADER.match(line) for line in lines)


def parse_category_recipe(text: str) -> CategoryRecipe:
    """BadFile with the line for what is no such recipe, NothingSelected for unknown types."""
    default: QuantType | None = None
    rules: dict[str, list[tuple[tuple[Condition, ...], QuantType]]] = {}
    current: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if header := _HEADER.match(line):
            default = any_type(header[2]) if header[1] == "default" else default
        elif category := _CATEGORY.match(line):
            current = _category(category[1].lower(), number)
        elif current is None:
            raise BadFile(f"line {number} of the recipe stands before any [category]: {line.strip()!r}")
        else:
            rules.setdefault(current, []).append(_rule(line, number))
    if default is None:
        raise BadFile("the recipe has no line `default TYPE`, which tensors of no category need")
    return CategoryRecipe(default, rules)


def _category(name: str, number: int) -> str:
    if name not in _CATEGORIES:
        raise BadFile(f"line {number} of the recipe: there is no category {name}; known: {', '.join(_CATEGORIES)}")
    return name


def _rule(line: str, number: int) -> tuple[tuple[Condition, ...], QuantType]:
    left, colon, right = line.partition(":")
    if not colon:
        raise BadFile(f"line {number} of the recipe is no `CONDITIONS : TYPE`: {line.strip()!r}")
    words = [word.strip() for word in left.split(",") if word.strip() not in ("", "*")]
    return tuple(_condition(word, number) for word in words), any_type(right)


def _condition(word: str, number: int) -> Condition:
    if word == _MORE_BITS:
        return Condition("category", "=", _MORE_BITS)
    if word in ("has_imatrix", "!has_imatrix"):
        return Condition("has_imatrix", "!=" if word.startswith("!") else "=")
    match = _CONDITION.match(word)
    if not match or match[1].lower() not in _KEYS:
        raise BadFile(
            f"line {number} of the recipe: {word!r} is no condition; keys: {', '.join(_KEYS)}, more_bits, has_imatrix"
        )
    key, value = match[1].lower(), match[3]
    wanted = {
        "layer": r"more_bits|\d+/[1-9]\d*",
        "category": r"more_bits|\d+/[1-9]\d*",
        "arch": r".+",
        "model_type": r".+",
    }
    if not re.fullmatch(wanted.get(key, r"\d+"), value, re.IGNORECASE):
        form = "a fraction such as 1/8, or more_bits" if key in ("layer", "category") else "a number"
        raise BadFile(f"line {number} of the recipe: {word!r} needs {form}")
    return Condition(key, match[2], value.lower() if key != "model_type" else value)


# --- what it means for a model


def category_of(name: str, tied: bool) -> str | None:
    """The category of a tensor by its name, as llama.cpp finds it; tied embeddings are the output."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "output" if tied else "token_embd"
    for category in _CATEGORIES[2:]:
        if (f"{category}.weight" if category.startswith("attn") else category) in name:
            return category
    return None


def resolve_recipe(
    recipe: CategoryRecipe, model: Model, tensors: Sequence[Tensor], has_imatrix: bool
) -> dict[str, QuantType]:
    """The type that the recipe asks for, by tensor."""
    categories = {tensor.name: category_of(tensor.name, model.tied) for tensor in tensors}
    ordered = sorted(tensors, key=lambda tensor: -1 if tensor.block is None else tensor.block)
    counts: dict[str | None, int] = {}
    types: dict[str, QuantType] = {}
    totals = {category: sum(each == category for each in categories.values()) for category in set(categories.values())}
    for tensor in ordered:
        category = categories[tensor.name]
        index = counts.get(category, 0)
        counts[category] = index + 1
        facts = _facts(model, has_imatrix) | {
            "index": index,
            "category": (index, totals[category]),
            "layer": (tensor.block or 0, model.blocks),
        }
        holding = [
            kind
            for conditions, kind in recipe.rules.get(category or "", ())
            if all(_holds(each, facts[each.key]) for each in conditions)
        ]
        types[tensor.name] = holding[-1] if holding else recipe.default
    return types


def _facts(model: Model, has_imatrix: bool) -> dict[str, object]:
    numbers, prefix = model.metadata, model.architecture
    heads, kv_heads = (numbers.get(f"{prefix}.attention.{key}") for key in ("head_count", "head_count_kv"))
    whole = isinstance(heads, int) and isinstance(kv_heads, int) and kv_heads
    experts = numbers.get(f"{prefix}.expert_count")
    return {
        "arch": model.architecture.lower(),
        "model_type": str(numbers.get("general.size_label", "")),
        "n_expert": max(1, experts) if isinstance(experts, int) else 1,
        "n_gqa": heads // kv_heads if whole else 1,  # type: ignore[operator]
        "has_imatrix": has_imatrix,
    }


def _holds(condition: Condition, fact: object) -> bool:
    compare = _COMPARE[condition.operator]
    if condition.key == "has_imatrix":
        return compare(fact, True)
    if isinstance(fact, tuple):
        place, count = fact
        if condition.value == _MORE_BITS:
            return compare(_more_bits(place, count), True)
        above, _, below = condition.value.partition("/")
        return compare(place, int(above) * count // int(below))
    return compare(fact, int(condition.value) if isinstance(fact, int) else condition.value)


def _more_bits(place: int, count: int) -> bool:
    """The first and the last eighth, and each third between: ``use_more_bits`` in llama-quant.cpp."""
    return place < count // 8 or place >= 7 * count // 8 or (place - count // 8) % 3 == 2
