"""What a llama-quantize command says, read as the tool reads it: options, then input, output, file type and threads.

Source: ``main`` of tools/quantize/quantize.cpp; the output may be left out, the file type may be its number.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from quantplan.errors import BadFile
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type
from quantplan.recipes.rule_lists import RuleText, listed_rules, parse_rule

_RULE, _CUSTOM, _RULES_FILE, _PRUNED = "--tensor-type", "--custom-q", "--tensor-type-file", "--prune-layers"
_RULE_OPTIONS = (_RULE, _RULES_FILE, _CUSTOM, "--token-embedding-type", "--output-tensor-type")
_IGNORED = {  # with a value: what they do to the plan
    "--imatrix": "",
    "--max-buffer-size": "",
    "--override-kv": "it changes metadata, not types",
    "--include-weights": "the plan is made with the whole imatrix",
    "--exclude-weights": "the plan is made with the whole imatrix",
}
_FLAGS = (
    "--allow-requantize",
    "--dry-run",
    "--keep-split",
    "--hide-imatrix",
    "--leave-output-tensor",
    "--pure",
    "--help",
)
_ROLE_OPTION = re.compile(r"--(?:attn|ffn)-[a-z-]+-type")  # of ik_llama.cpp
_PROGRAM = re.compile(r".*quantize(?:\.exe)?", re.IGNORECASE)
_FILE_TYPE = re.compile(r"(?:i?q\d\w*|tq\d_\d|[mn][xv]fp4\w*|b?f16|f32|copy|\d{1,3})", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def has_rule_options(words: Sequence[str]) -> bool:
    """Whether a command says how to store tensors."""
    return any(word.partition("=")[0] in _RULE_OPTIONS for word in words)


def is_quantize(words: Sequence[str]) -> bool:
    """Whether a command starts llama-quantize, by whatever path, after whatever other words."""
    return any(_PROGRAM.fullmatch(word) for word in words)


def parse_command(words: Sequence[str], files: Mapping[str, str] = MappingProxyType({})) -> RuleText:
    """The rules of a command. ``files``: texts that its script has written before, by name.

    BadFile where an option has no value, or cannot be followed.
    """
    options, others, warnings = _split(_arguments(words))
    for name in [name for name in options.get(_RULES_FILE, ()) if name in files]:
        options.setdefault(_RULE, []).extend(files[name].split())
        options.pop(_RULES_FILE)
    if _RULES_FILE in options:
        raise BadFile(f"the command line reads its rules from {options[_RULES_FILE][0]}; import that file")
    if _PRUNED in options:
        layers = options[_PRUNED][-1].replace(",", " ")
        raise BadFile(
            f"--prune-layers takes layers {layers} out of the model, a plan cannot: first make that model with `quantplan "
            f"surgery apply MODEL 'delete {layers}'`, then import the text without --prune-layers for it"
        )
    warnings += [
        f"{option} {value} is ignored: {reason}"
        for option, reason in _IGNORED.items()
        for value in options.get(option, ())
        if reason
    ]
    return replace(_said(options, others), warnings=tuple(warnings))


def _arguments(words: Sequence[str]) -> list[str]:
    """What stands after the program's name; from the first option on where that is in a variable."""
    program = next((place for place, word in enumerate(words) if _PROGRAM.fullmatch(word)), None)
    if program is not None:
        return list(words[program + 1 :])
    return list(words[next(place for place, word in enumerate(words) if word.startswith("--")) :])


def _split(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Values by option (flags have none), the words that are no option's, and warnings."""
    options: dict[str, list[str]] = {}
    others: list[str] = []
    warnings: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            others.append(word)
        elif _ROLE_OPTION.fullmatch(name):
            raise BadFile(f"{name} of ik_llama.cpp is not supported; say it with --custom-q PATTERN=TYPE instead")
        elif word in _FLAGS:
            options[word] = []
        elif name in (*_RULE_OPTIONS, *_IGNORED, _PRUNED):
            options.setdefault(name, []).append(value if equals else _value(word, rest))
            if others:
                warnings.append(
                    f"{name} stands after the model, where llama-quantize reads no options; it is read here"
                )
        else:
            unknown = [word, rest.pop(0)] if rest and _may_be_value(rest[0], others) else [word]
            warnings.append(f"{' '.join(unknown)} is no option of llama-quantize that is known here; it is ignored")
    return options, others, list(dict.fromkeys(warnings))


def _value(option: str, rest: list[str]) -> str:
    if not rest:
        raise BadFile(f"the command line ends after {option}")
    return rest.pop(0)


def _may_be_value(word: str, others: Sequence[str]) -> bool:
    """Whether the word after an unknown option is its value and not the model."""
    return not (others or word.startswith("--") or word.lower().endswith(".gguf") or _FILE_TYPE.fullmatch(word))


def _said(options: dict[str, list[str]], others: Sequence[str]) -> RuleText:
    custom = [_set(value) for value in options.get(_CUSTOM, ())]
    rules = tuple(parse_rule(_set(word)) for word in options.get(_RULE, ()))
    if rules and custom:
        raise BadFile(
            "the command line has --tensor-type of llama.cpp and --custom-q of ik_llama.cpp; keep one of them"
        )
    return RuleText(
        rules or tuple(rule for text in custom for rule in listed_rules(text)),
        _file_type(others),
        pure="--pure" in options,
        token_embedding=_last_type(options.get("--token-embedding-type")),
        output=_last_type(options.get("--output-tensor-type")),
        leave_output="--leave-output-tensor" in options,
        keep_case=bool(custom),
    )


def _set(value: str) -> str:
    """The value, unless it is a shell variable that the text does not set."""
    if variable := _VARIABLE.fullmatch(value.strip()):
        raise BadFile(
            f"the rules are in the shell variable {variable[1]}, which the text does not set; import them instead"
        )
    return value


def _last_type(words: Sequence[str] | None) -> QuantType | None:
    return any_type(words[-1]) if words else None


def _file_type(words: Sequence[str]) -> str | None:
    """``model.gguf [out.gguf] Q4_K_M [8]``: the second word if it is a file type, else the third; None where there is none."""
    if len(words) > 1 and _FILE_TYPE.fullmatch(words[1]):
        return words[1]
    if len(words) > 2:
        return words[2]
    return None
