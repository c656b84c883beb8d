"""Rules as others write them: rules files, command lines of llama-quantize, ``--custom-q`` of ik_llama.cpp, Thireus'
recipes, and model cards that hold any of these among other text.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from quantplan.errors import BadFile, QuantplanError
from quantplan.recipes.code_parts import (
    argument_lists,
    code_blocks,
    code_spans,
    command_lines,
    has_prose,
    indented_blocks,
    plain_text,
)
from quantplan.recipes.command_lines import has_rule_options, is_quantize, parse_command
from quantplan.recipes.rule_lists import RuleText, is_rule_list, parse_rule_list, without_comments
from quantplan.recipes.shell_commands import Shell

_OPTION = re.compile(r"(?:^|[\s'\"(=])--[a-z]")
_RULE_OPTION = re.compile(r"(?:^|[\s'\"(=])--(?:tensor-type|custom-q|token-embedding-type|output-tensor-type)\b")


def parse_rules(text: str) -> RuleText:
    """The rules of any of these texts; of several the first, with a warning:

    - a rules file: ``PATTERN=TYPE`` between white space;
    - a recipe: ``PATTERN=TYPE`` a line, and comments;
    - ``PATTERN=TYPE,PATTERN=TYPE`` as --custom-q takes them;
    - a command line or shell script with --tensor-type or --custom-q;
    - Markdown with these in code blocks or between back-ticks: then nothing else in it is read.

    BadFile with the word that is not a rule; NothingSelected for an unknown type.
    """
    text = plain_text(text)
    shell = Shell()
    recipes = _recipes(_parts(text), shell)
    first = next(recipes)
    count = _different(first, recipes)
    more = [f"the text holds {count} recipes; the first was read, cut it away to read the next"] if count > 1 else []
    if shell.turns > 1:
        more.append(f"the text makes {shell.turns} files in a loop; the first was read")
    return replace(first, warnings=(*more, *first.warnings))


def _parts(text: str) -> Sequence[str]:
    """The parts of the text that hold recipes; the whole text where none stands out."""
    if is_rule_list(text):
        return [text]
    fenced = code_blocks(text)
    if any(map(_holds_recipe, fenced)):
        return fenced
    spans = [span for span in code_spans(text) if _holds_recipe(span)]
    whole = [span for span in spans if "quantize" in span]
    if spans:
        return [*whole, *filter(None, [" ".join(span for span in spans if span not in whole)])]
    if not has_prose(text):
        return [text]
    indented = [block for block in indented_blocks(text) if _holds_recipe(block)]
    return indented or [line for line in command_lines(text) if _holds_recipe(line)] or [text]


def _holds_recipe(code: str) -> bool:
    return bool(_RULE_OPTION.search(without_comments(code))) or is_rule_list(code)


def _recipes(parts: Sequence[str], shell: Shell) -> Iterator[RuleText]:
    for part in parts:
        if len(parts) > 1 and not _holds_recipe(part):
            with suppress(BadFile):
                shell.commands(part)  # it may set variables
        elif _OPTION.search(without_comments(part)) or is_quantize(part.split()):
            yield from _commands(part, shell)
        else:
            yield parse_rule_list(part)


def _commands(script: str, shell: Shell) -> Iterator[RuleText]:
    """The recipe of each llama-quantize command that has one."""
    script = "\n".join(argument_lists(script)) or script
    commands = [words for words in shell.commands(script) if has_rule_options(words) or is_quantize(words)]
    recipes = [words for words in commands if has_rule_options(words)]
    if not recipes:
        raise BadFile("the command line has no --tensor-type or --custom-q rule")
    for words in recipes:
        yield parse_command(words, shell.files)


def _different(first: RuleText, others: Iterator[RuleText]) -> int:
    """How many different recipes there are; one that cannot be read is one more."""
    distinct = {replace(first, warnings=())}
    try:
        distinct.update(replace(other, warnings=()) for other in others)
    except QuantplanError:
        return len(distinct) + 1
    return len(distinct)
