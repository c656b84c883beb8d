"""Names that options had before: they keep working, with a notice of the new one."""

import pytest

from quantplan.cli.old_names import OLD_NAMES, translated

SOLVE = {"--chunks", "--ctx", "-c", "--sensitivity", "--min-type", "--max-type", "--vram", "--ram", "--threads", "-t"}


@pytest.mark.parametrize(
    "command, names, before, after",
    [
        ("solve", SOLVE, "--windows 8 --window=128", "--chunks 8 --ctx 128"),
        ("solve", SOLVE, "--damage t.json --no-probe", "--sensitivity t.json --sensitivity weights"),
        (
            "solve",
            SOLVE,
            "--min a=Q6_K --max b=Q8_0 --gpu 24GiB --cpu 64GiB",
            "--min-type a=Q6_K --max-type b=Q8_0 --vram 24GiB --ram 64GiB",
        ),
        ("solve", SOLVE, "-w 8 -t 4", "--chunks 8 -t 4"),
        ("solve", SOLVE, "-- --windows 8", "-- --windows 8"),
        (
            "measure",
            {"-t", "--text", "--chunks", "--model"},
            "-t held.txt -n 3 --base m.gguf",
            "--text held.txt --chunks 3 --model m.gguf",
        ),
        ("run", {"--with", "-w", "--chunks"}, "-w Q4_K_M -w 8", "-w Q4_K_M --chunks 8"),
        (
            "compare",
            {"-f", "--text", "--format"},
            "-f markdown -f held.txt --format markdown",
            "--format markdown -f held.txt --format md",
        ),
        (
            "import",
            {"--as", "--fill", "--stock-quant"},
            "--as damage --fill most --base Q4_K_M",
            "--as sensitivity --fill max --stock-quant Q4_K_M",
        ),
        ("analyze", {"--format", "--sort"}, "--csv -s zd", "--format csv --sort zd"),
        ("memory", {"--serve-ctx"}, "-c 4096", "--serve-ctx 4096"),
        ("probe", {"--ctx", "-c"}, "-c 128", "-c 128"),
        ("surgery apply", {"--skip-architecture-check"}, "--force", "--skip-architecture-check"),
        ("imatrix", {"--force"}, "--force", "--force"),
    ],
)
def test_translated(capsys, command, names, before, after):
    assert translated(command, names, before.split()) == after.split()
    notices = capsys.readouterr().err.splitlines()
    assert all(line.startswith("notice: ") and " is now called --" in line for line in notices)
    assert bool(notices) == (before != after)


def test_an_old_name_is_no_name_of_today():
    """Unless its values tell the two apart."""
    from all_commands import all_commands

    for name, command in all_commands().items():
        names = {option for parameter in command.params for option in parameter.opts}
        for entry in OLD_NAMES:
            if entry.new in names and (not entry.commands or name in entry.commands):
                assert entry.value or entry.old not in names or name == "imatrix", (name, entry.old)


def test_a_command_takes_them(command, small_model):
    done = command(
        "solve",
        "-m",
        small_model,
        "-b",
        "45%",
        "--types",
        "k",
        "--damage",
        "prior",
        "--dry-run",
        "--min",
        "attn_output=Q6_K",
    )
    assert done.code == 0 and "notice: --damage is now called --sensitivity" in done.err


def test_score_has_moved(command):
    done = command("surgery", "score", "--help")
    assert done.code == 0 and "Score models by their greedy answers" in done.out
