"""Names that options had before: they keep working, with a line on stderr that says the new one."""

import re
from dataclasses import dataclass

from quantplan.cli.console import say

_NUMBER = r"-?\d+"
_NOT_A_NUMBER = rf"(?!{_NUMBER}$).+"
_FAMILY = r"(delete|swap|repeat|triple|reverse|cycle|merge|move|bridge|blend|scale)\b.*"


@dataclass(frozen=True)
class OldName:
    """``new``: what is typed now. ``commands``: where, everywhere if empty; ``value``: only before values of this form, and
    then also where ``old`` is a name of today; ``flag``: no value follows; ``new_value``: what stands for the old value.
    """

    old: str
    new: str
    commands: tuple[str, ...] = ()
    value: str = ""
    flag: bool = False
    new_value: str = ""

    def applies(self, command: str, names: set[str], value: str | None) -> bool:
        if self.commands and command not in self.commands:
            return False
        if self.new not in names:
            return False
        if self.value:
            return value is not None and re.fullmatch(self.value, value) is not None
        return self.old not in names


_SURGERY = ("surgery apply", "surgery search", "surgery publish")
OLD_NAMES = (
    OldName("--windows", "--chunks"),
    OldName("-w", "--chunks", value=_NUMBER),
    OldName("-n", "--chunks"),
    OldName("--window", "--ctx"),
    OldName("--damage", "--sensitivity"),
    OldName("--no-probe", "--sensitivity", flag=True, new_value="weights"),
    OldName("--min", "--min-type"),
    OldName("--max", "--max-type"),
    OldName("--gpu", "--vram"),
    OldName("--cpu", "--ram"),
    OldName("--ctx", "--serve-ctx", ("memory", "card")),
    OldName("-c", "--serve-ctx", ("memory", "card")),
    OldName("-t", "--text", value=_NOT_A_NUMBER),
    OldName("--refine-text", "--validation"),
    OldName("--refine-windows", "--validation-chunks"),
    OldName("--judge-windows", "--eval-chunks"),
    OldName("--mixes", "--with"),
    OldName("--at", "--budget", ("frontier",)),
    OldName("--csv", "--format", ("analyze",), flag=True, new_value="csv"),
    OldName("--csv", "--out", ("frontier",)),
    OldName("--base", "--stock-quant", ("import",)),
    OldName("--base", "--model", ("measure",)),
    OldName("--as", "--as", ("import",), value="damage", new_value="sensitivity"),
    OldName("--fill", "--fill", ("import",), value="most", new_value="max"),
    OldName("-f", "--format", ("compare",), value="table|markdown|csv|json|html"),
    OldName("--format", "--format", ("compare",), value="markdown", new_value="md"),
    OldName("-f", "--family", ("surgery search",), value=_FAMILY),
    OldName("-s", "--sort", ("analyze",)),
    OldName("-s", "--suite"),
    OldName("--force", "--skip-architecture-check", _SURGERY, flag=True),
)
_BY_OLD = {name: [entry for entry in OLD_NAMES if entry.old == name] for name in {entry.old for entry in OLD_NAMES}}


def translated(command: str, names: set[str], args: list[str]) -> list[str]:
    """The words of a command line in today's names; ``names``: the options that the command has."""
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        name, equals, attached = word.partition("=")
        value = attached if equals else (rest[0] if rest else None)
        entry = next((entry for entry in _BY_OLD.get(name, ()) if entry.applies(command, names, value)), None)
        if entry is None:
            words.append(word)
            continue
        if not equals and not entry.flag and rest:
            rest.pop(0)
        words += _new_words(entry, value, attached if equals else None)
    return words


def _new_words(entry: OldName, value: str | None, attached: str | None) -> list[str]:
    said = f" {entry.new_value}" if entry.new_value else ""
    before = f" {value}" if entry.value and entry.new_value else ""
    say(f"notice: {entry.old}{before} is now called {entry.new}{said}")
    new = [entry.new] if entry.flag and not entry.new_value else [entry.new, entry.new_value or (value or "")]
    return new if entry.flag or value is not None else [entry.new]
