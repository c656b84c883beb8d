"""The shape of the package: imports point down only, and nobody but the command line prints."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "quantplan"
# from the lowest to the highest: a folder imports from itself and from those before it
ORDER = (
    "values",
    "records",
    "llamacpp",
    "gguf",
    "hub",
    "recipes",
    "parallel",
    "rounding",
    "analyze",
    "sensitivity",
    "solver",
    "devices",
    "build",
    "convert",
    "planning",
    "evaluate",
    "estimates",
    "run",
    "surgery",
    "report",
    "api",
    "cli",
)
MODULES = sorted(
    set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
)  # they name the public functions and the command line


def layer(parts):
    """The layer of a module by its path below the package; what lies at the root is a value."""
    return parts[0] if parts and parts[0] in ORDER else "values"


def imported(tree):
    """All modules of quantplan that are imported anywhere in the file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = layer(path.relative_to(PACKAGE).with_suffix("").parts)
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("quantplan."):
            other = layer(name.split(".")[1:])
            assert ORDER.index(other) <= ORDER.index(own), f"{own} imports {name} of {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    if layer(path.relative_to(PACKAGE).parts) == "cli":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        words = ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
        assert words not in ("print", "sys.stdout", "sys.stderr"), f"{path.name}:{node.lineno} speaks to the terminal"


def test_every_layer_is_there():
    assert {layer(path.relative_to(PACKAGE).with_suffix("").parts) for path in MODULES} == set(ORDER)


def test_no_test_imports_a_test():
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name.split(".")[-1].startswith("test_")], f"{path} imports a test"
