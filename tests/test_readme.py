"""README and the program say the same: every command is in its table, with the first sentence of its help."""

from pathlib import Path

from all_commands import all_commands

ROOT = Path(__file__).parents[1]


def table() -> str:
    """The command table as README must have it."""
    rows = [
        f"| `{name}` | {' '.join(command.help.split(chr(10) * 2)[0].split())} |"
        for name, command in all_commands().items()
    ]
    return "\n".join(rows)


def test_readme_lists_every_command():
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8"), f"put this table into README.md:\n{table()}"


def test_every_help_has_an_example():
    lacking = [name for name, command in all_commands().items() if "Example" not in command.help]
    assert not lacking


def test_documents_that_readme_links_to_exist():
    import re

    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_first_command_of_readme_is_a_make_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}: install" in makefile


def test_lines_of_documents_are_at_most_100_characters():
    """Tables, blocks of code and HTML may be longer."""
    long = []
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for number, part in enumerate(path.read_text(encoding="utf-8").split("```")):
            lines = part.splitlines() if number % 2 == 0 else []
            long += [f"{path.name}: {line}" for line in lines if len(line) > 100 and not line.startswith(("|", "<"))]
    assert not long
