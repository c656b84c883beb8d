"""Plans from what others publish: LAYER_TYPES, rules of llama.cpp and ik_llama.cpp, recipes, or a quantized GGUF of the
same model.

llama-quantize itself says what a text means: stock quants, rules, types that do not fit.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import known_ftype
from quantplan.plan import Plan
from quantplan.recipes.import_gguf import plan_of_gguf
from quantplan.recipes.import_layer_types import plan_of_layer_types
from quantplan.recipes.import_rules import plan_of_rules
from quantplan.recipes.layer_types import looks_like_layer_types, parse_layer_types
from quantplan.recipes.rule_texts import parse_rules
from quantplan.records.json_text import parse_json
from quantplan.tensor import Model
from quantplan.text_files import is_gguf, read_text_file

_CATEGORY = re.compile(r"^\s*\[ *(?:output|token_embd|attn_\w+|ffn_\w+) *\]\s*$", re.MULTILINE)
_DEFAULT = re.compile(r"^\s*default[ \t]+\w+", re.MULTILINE)
_SOURCES = "a GGUF, LAYER_TYPES, rules or a recipe"


@dataclass(frozen=True)
class Imported:
    """A plan, and what a person should know about how the source was understood."""

    plan: Plan
    warnings: tuple[str, ...]


def import_file(
    path: Path, model: Model, imatrix: Imatrix | None = None, base: str | None = None, nearest: bool = False
) -> Imported:
    """The plan that a file stands for: a GGUF, a LAYER_TYPES text, rules in any form that ``parse_rules`` reads.

    ``base``: the stock quant that decides what a text leaves open; ``nearest``: replace types that llama.cpp does not have by
    the nearest. Raises BadFile for anything else, BadUsage where something is left open, NothingSelected for names
    and types that do not exist, ModelMismatch for another model's.
    """
    if is_gguf(path):
        return Imported(*plan_of_gguf(read_model(path), model, imatrix, base))
    text = read_text_file(path, _SOURCES)
    if text.lstrip().startswith("{"):
        raise BadFile(f"{path} is {_record(text)}; a plan is made from {_SOURCES}")
    if looks_like_layer_types(text):
        layers = parse_layer_types(text, model.blocks, known_ftype, model.mtp_blocks)
        return Imported(*plan_of_layer_types(layers, model, imatrix, base))
    if _CATEGORY.search(text) and _DEFAULT.search(text):
        raise BadFile(
            f"{path} is a recipe by tensor category (llama.cpp pull request 21070, not merged), which is not supported; "
            "import rules of llama-quantize instead"
        )
    return Imported(*plan_of_rules(parse_rules(text), model, imatrix, base, nearest))


def _record(text: str) -> str:
    try:
        return f"a {parse_json(text)['format']} file"
    except (ValueError, KeyError, TypeError):
        return "some other JSON"
