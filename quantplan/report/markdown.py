"""Text that stands in Markdown as it is meant: names escaped, code fenced, tables and YAML that nothing in them can break."""

import html
import json
import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&])")
_PLAIN_YAML = re.compile(r"[A-Za-z][A-Za-z0-9 ._/-]*[A-Za-z0-9]|[A-Za-z]")
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # what YAML would read as something else


def escaped(text: str) -> str:
    """The text on one line, all that Markdown or HTML would read as markup taken literally."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Inline code, whatever backticks are in it."""
    text = " ".join(text.split())
    fence = "`" * (_longest(text, "`") + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """A fenced block of code."""
    fence = "`" * max(3, _longest(text, "`") + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def folded(summary: str, body: str) -> str:
    """A part that is shown when its summary is clicked."""
    return f"<details>\n<summary>{html.escape(summary)}</summary>\n\n{body}\n\n</details>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = (0,)) -> str:
    """A table; the columns of ``texts`` stand to the left, figures to the right. Cells are Markdown already."""
    texts = [index % len(headings) for index in texts]
    marks = [":--" if index in texts else "--:" for index in range(len(headings))]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (headings, marks, *rows))


def yaml_scalar(text: str) -> str:
    """A string as YAML: plain where it can only be read as that string, else in JSON's quotes, which YAML reads."""
    plain = _PLAIN_YAML.fullmatch(text) and text.lower() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _cell(text: str) -> str:
    """Bars in code would end the cell; those that are escaped already stay."""
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _longest(text: str, mark: str) -> int:
    return max((len(run) for run in re.findall(f"{re.escape(mark)}+", text)), default=0)
