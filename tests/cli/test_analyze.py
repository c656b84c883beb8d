import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from quantplan.analyze.statistics import FIELDS
from quantplan.cli.analyze import analyze
from quantplan.errors import BadFile, BadUsage
from quantplan.gguf.imatrix_files import write_imatrix
from quantplan.imatrix import Imatrix, ImatrixEntry

APP = typer.Typer()
APP.command()(analyze)


def call(*arguments):
    """(stdout, stderr) of the command; its errors come through."""
    result = CliRunner().invoke(APP, [str(word) for word in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture
def moe(tmp_path):
    """Two blocks; expert 2 of 4 never hit in block 1; an entry without data; in_sum for the output."""
    random = np.random.default_rng(0)
    shapes = {f"blk.{block}.{role}.weight": 1 for block in (0, 1) for role in ("attn_q", "attn_v")}
    shapes |= {"blk.0.ffn_up_exps.weight": 4, "blk.1.ffn_up_exps.weight": 4, "output.weight": 1}
    entries = {name: one(random, name, experts) for name, experts in shapes.items()}
    hits = np.array([10, 20, 0, 30])
    sums = entries["blk.1.ffn_up_exps.weight"].sum2
    entries["blk.1.ffn_up_exps.weight"] = ImatrixEntry("blk.1.ffn_up_exps.weight", sums, hits)
    entries["blk.1.attn_q.weight"] = ImatrixEntry("blk.1.attn_q.weight", sums[:1] * 0, np.array([0]))
    path = tmp_path / "moe.gguf"
    write_imatrix(Imatrix(Path("x"), entries, ("text",), 2, 512, False, ""), path)
    return path


def one(random, name, experts):
    sums = random.lognormal(0, 1, (experts, 64)).astype(np.float32)
    return ImatrixEntry(name, sums, np.full(experts, 50), sums / 3 if name == "output.weight" else None)


def test_tables(moe):
    out, err = call(moe)
    assert "Σ(Act²)" in out and "ffn_up_exps" in out and "Weighted averages of 2 layers" in out
    assert "Experts never hit" not in out
    assert "compare only tensors of the same role" in err
    assert "blk.1.attn_q.weight has no data" in err
    assert "1 of 2 expert tensors have experts that no token reached, most blk.1.ffn_up_exps.weight (1 of 4)" in err
    assert "1 of 2 expert tensors have experts with fewer than 32 hits, most blk.1.ffn_up_exps.weight (3 of 4)" in err
    assert "--experts lists them" in err


def test_experts_are_listed_on_demand(moe):
    out, _ = call(moe, "--experts")
    line = next(line for line in out.splitlines() if "blk.1.ffn_up_exps.weight" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "blk.1.ffn_up_exps.weight",
        "4",
        "1",
        "2",
        "3",
        "0-1 3",
    ]


def test_json_is_all_of_stdout(moe):
    out, err = call(moe, "--json", "--sort", "sum")
    content = json.loads(out)
    assert content["without_data"] == ["blk.1.attn_q.weight"]
    sums = [each["sum"] for each in content["tensors"]]
    assert len(sums) == 6 and sums == sorted(sums, reverse=True)
    fields = ["name", "layer", *FIELDS]
    assert set(fields) <= set(content["tensors"][0])
    assert set(content["layers"][0]) == {"layer", "sum", "zd", "cossim"}
    by_name = {each["name"]: each for each in content["tensors"]}
    assert by_name["blk.1.ffn_up_exps.weight"]["unseen_experts"] == [2]
    assert by_name["blk.1.ffn_up_exps.weight"]["rare_experts"] == [0, 1, 3]
    assert by_name["output.weight"]["mean_input"] > 0 and by_name["blk.0.attn_q.weight"]["mean_input"] is None
    assert "no data" in err


def test_csv_reads_back(moe):
    out, _ = call(moe, "--format", "csv", "--sort", "name")
    rows = list(csv.DictReader(io.StringIO(out)))
    names = [row["name"] for row in rows]
    assert names == sorted(names) and len(names) == 6
    row = rows[names.index("blk.1.ffn_up_exps.weight")]
    assert (row["n"], row["experts"], row["unseen_experts"], row["rare_experts"]) == ("192", "4", "2", "0-1 3")


@pytest.mark.parametrize("kind, start", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot(moe, tmp_path, kind, start):
    picture = tmp_path / f"map.{kind}"
    call(moe, "--plot", picture, "--statistic", "zd")
    assert picture.read_bytes().startswith(start)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["sum", "min", "n", "cossim", "active", "entropy_norm"])
def test_every_kind_of_statistic_can_be_drawn(moe, tmp_path, statistic):
    call(moe, "--plot", tmp_path / "map.svg", "--statistic", statistic)
    drawn = (tmp_path / "map.svg").read_bytes()
    call(moe, "--plot", tmp_path / "again.svg", "--statistic", statistic)
    assert drawn == (tmp_path / "again.svg").read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sort", "zdd"], "no statistic 'zdd'; choose one of"),
        (["--statistic", "name"], "no statistic 'name'"),
        (["--json", "--format", "csv"], "choose one"),
        (["--plot", "map.jpg"], "must end in .png, .svg, .pdf"),
    ],
)
def test_wrong_words(moe, arguments, message):
    with pytest.raises(BadUsage, match=message):
        call(moe, *arguments)


def test_not_an_imatrix(tmp_path):
    with pytest.raises(BadFile, match="absent"):
        call(tmp_path / "absent.gguf")


def test_help_has_an_example_and_every_statistic():
    out, _ = call("--help")
    assert "Example: quantplan analyze" in out and "entropy_norm" in out
