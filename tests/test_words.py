"""Texts for people say it in the field's words: chunk, stock quant, evaluation text, sensitivity table, constraint ..."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRIVATE = re.compile(
    r"\b(windows?|mix|mixes|reckon\w*|dear|dearest|stands guard|handed over|held-?out|told apart|lacks?|lacking|mends?"
    r"|wish|wishes|damage tables?|anew|goes on|are no numbers|beside)\b",
    re.IGNORECASE,
)
ALLOWED = re.compile(
    r"sliding[- ]windows?|context window|Windows line ends|`(windows?|mix|mixes|heldout)`|\"mix\""
    r"|id=\"mixes\"|conditions\.windows"
)
KEYS = {
    "mix",
    "mend",
    "wish",
    "wishes",
    "windows",
    "mixes",
    "heldout",
}  # of JSON and quantplan.toml, as they were first called
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
MODULES = [path for path in sorted((ROOT / "quantplan").rglob("*.py")) if path.name != "old_names.py"]
TEMPLATES = sorted((ROOT / "quantplan" / "report" / "templates").glob("*.html"))


def private_words(text: str) -> list[str]:
    return PRIVATE.findall(ALLOWED.sub("", text))


def texts(path: Path) -> list[str]:
    """String literals of a module, docstrings of commands among them, which are their help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in literals if "cli" in path.parts or id(node) not in docstrings]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_literals(path):
    assert [(word, text) for text in texts(path) if text not in KEYS for word in private_words(text)] == []


@pytest.mark.parametrize("page", [*PAGES, *TEMPLATES], ids=str)
def test_pages(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [(number, words) for number, line in enumerate(lines, 1) if (words := private_words(line))] == []
