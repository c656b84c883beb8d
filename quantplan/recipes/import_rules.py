"""Plans from rules, as llama-quantize itself reads them; what does nothing or reads otherwise is warned of."""

from collections.abc import Mapping, Sequence

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.imatrix_need import has_imatrix_data, needs_imatrix
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import Rule, dry_run, known_ftype, quantizable
from quantplan.plan import Plan
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import is_foreign, replace_foreign
from quantplan.recipes.layer_types import EMBEDDINGS, OUTPUT
from quantplan.recipes.rule_lists import RuleText
from quantplan.recipes.rules import all_simple, matches, near_roles, resolve, write_rules
from quantplan.tensor import Model, Tensor

_FLOATS = ("F32", "F16", "BF16")
_ANY_QUANTIZED = "Q8_0"  # a base for rules that leave nothing to the base


def plan_of_rules(
    text: RuleText, model: Model, imatrix: Imatrix | None, said: str | None, nearest: bool
) -> tuple[Plan, tuple[str, ...]]:
    """The plan and warnings. ``said``: the stock quant that decides what the text leaves open; ``nearest``: take the nearest
    types for those that llama.cpp does not have. Raises BadUsage, NothingSelected.
    """
    warnings = [*text.warnings, *_unmatched(text, model)]
    tensors = quantizable(model)
    asked = resolve(text.rules, (tensor.name for tensor in tensors), keep_case=text.keep_case) | _options(text, tensors)
    base = _base(text, said, [tensor.name for tensor in tensors if tensor.name not in asked])
    types, replaced = _of_llama_cpp(asked, model, imatrix, nearest)
    if text.keep_case or replaced or not all_simple(text.rules):
        # said otherwise than llama-quantize reads it, or so that it may take for ever: in rules of one's own
        text = RuleText(write_rules(types, model.by_name), pure=text.pure)
    stored = dry_run(
        model.path,
        base,
        rules=text.rules,
        imatrix=imatrix and imatrix.path.absolute(),
        pure=text.pure,
        token_embedding_type=text.token_embedding,
        output_tensor_type=text.output,
        leave_output=text.leave_output,
        allow_requantize=True,
    )
    made_from = {"replaced_types": replaced} if replaced else {}
    plan = make_plan(model, {tensor.name: stored[tensor.name] for tensor in tensors}, imatrix, made_from=made_from)
    return plan, (*warnings, *replaced, *_changed(types, stored, tensors))


def _unmatched(text: RuleText, model: Model) -> list[str]:
    """Warnings for rules that do nothing: llama-quantize passes over them. NothingSelected where no rule matches any tensor."""
    by_rule = matches(text.rules, model.by_name, text.keep_case)
    missed = [rule for rule in text.rules if not by_rule[rule]]
    if not missed:
        return _idle(by_rule, model)
    hint = near_roles(missed[0], model.by_name)
    if len(missed) == len(text.rules):
        raise NothingSelected(f"the rule {missed[0]} matches no tensor of the model; {hint}")
    shown = f"{len(missed)} of {len(text.rules)} rules match no tensor of the model, the first is {missed[0]}"
    return [f"{shown}; {hint}" if hint.startswith("did") else shown, *_idle(by_rule, model)]


def _idle(by_rule: Mapping[Rule, Sequence[str]], model: Model) -> list[str]:
    """Warnings for rules that match tensors and decide none: only copied ones, or all taken by rules before them."""
    names = {tensor.name for tensor in quantizable(model)}
    taken: dict[str, Rule] = {}
    warnings = []
    for rule, matched in by_rule.items():
        first = {taken.setdefault(name, rule) for name in matched}
        changed = [name for name in matched if model.by_name[name].type != rule.type]
        if changed and not names.intersection(matched):
            warnings.append(
                f"the rule {rule} names only tensors that llama-quantize never quantizes ({changed[0]}); it does nothing"
            )
        elif rule not in first and any(each.type != rule.type for each in first):
            warnings.append(
                f"the rule {rule} decides nothing: {taken[matched[0]]} is found in {matched[0]} before it; should that one "
                "begin with ^?"
            )
    return warnings


def _options(text: RuleText, tensors: tuple[Tensor, ...]) -> dict[str, QuantType]:
    """What --token-embedding-type, --output-tensor-type and --leave-output-tensor ask for: they come before all rules."""
    names = {tensor.name: tensor.type for tensor in tensors}
    output = names.get(OUTPUT) if text.leave_output else text.output
    pairs = ((EMBEDDINGS, text.token_embedding), (OUTPUT, output))
    return {name: quant for name, quant in pairs if quant and name in names}


def _base(text: RuleText, said: str | None, open_names: Sequence[str]) -> str:
    """The FTYPE that decides what the rules leave open; any quantized one where they leave nothing."""
    if said is None and text.ftype is None:
        if open_names:
            more = f" and {len(open_names) - 1} more tensors" if len(open_names) > 1 else ""
            raise BadUsage(
                f"the rules say nothing about {open_names[0]}{more}; give --stock-quant NAME, which decides the rest"
            )
        return _ANY_QUANTIZED
    try:
        chosen = known_ftype(said or text.ftype or "")
    except NothingSelected as error:
        if said is None and not open_names:
            return _ANY_QUANTIZED
        raise NothingSelected(f"{error}; give --stock-quant NAME, which decides what the rules leave open") from None
    if chosen in _FLOATS:
        raise BadUsage(
            f"llama-quantize ignores all rules with {chosen} as its file type; give --stock-quant with a quantized one"
        )
    return chosen


def _of_llama_cpp(
    asked: Mapping[str, QuantType], model: Model, imatrix: Imatrix | None, nearest: bool
) -> tuple[dict[str, QuantType], list[str]]:
    """The assignment without types that llama.cpp does not have, and a sentence on each replacement.

    NothingSelected where replacements are not allowed."""

    def allowed(name: str, quant: QuantType) -> bool:
        tensor = model.by_name[name]
        return quant.fits(tensor.columns) and (has_imatrix_data(tensor, imatrix) or not needs_imatrix(name, quant))

    if not any(is_foreign(quant) for quant in asked.values()):
        return dict(asked), []
    types, replaced = replace_foreign(asked, allowed)
    if not nearest:
        raise NothingSelected(
            "the text has types of ik_llama.cpp that llama.cpp does not have: "
            + "; ".join(str(replacement) for replacement in replaced)
            + ". Give --nearest to take these instead, or change the text"
        )
    return types, [f"llama.cpp does not have {each}: taken" for each in replaced]


def _changed(asked: Mapping[str, QuantType], stored: Mapping[str, QuantType], tensors: tuple[Tensor, ...]) -> list[str]:
    return [
        f"{tensor.name} becomes {stored[tensor.name]}, not {asked[tensor.name]} as the rules say (rows of "
        f"{tensor.columns})"
        for tensor in tensors
        if asked.get(tensor.name, stored[tensor.name]) != stored[tensor.name]
    ]
