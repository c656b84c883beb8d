"""Every number that `llama-imatrix --show-statistics` prints, to one unit of its last digit or 1e-5 of it.

The tool adds float32 numbers one after the other, which the last digit of a long sum shows.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_models import UNREACHABLE, tiny_moe, tiny_tied

from quantplan.analyze.statistics import statistics
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.llamacpp import tools

pytestmark = pytest.mark.llamacpp

_TENSOR = "%5s\t%-20s\t%10.2f\t%8.4f\t%11.4f\t%6.2f\t%6.2f\t%8.2f%%\t%6d\t%10.4f\t%6.2f%%\t%10.2f%%\t%8.4f"
_LAYER = "%5d\t%14.2f\t%10.4f%%\t%6.4f"
_TRIES = 1000  # of 10 ms each; the tool exits before its log is written in most runs


def printed_by_the_tool(path: Path) -> tuple[list[str], list[str]]:
    """(tensor lines, layer lines), from the first run whose log is complete by its own counts."""
    argv = [str(tools.find("llama-imatrix")), "-m", "not-needed", "--show-statistics", "--in-file", str(path)]
    for _ in range(_TRIES):
        log = subprocess.run(argv, env=tools.environment(), capture_output=True, text=True).stderr
        lines = [re.sub(r"^[\d.]+ \w ", "", line) for line in log.splitlines()]
        tensors = [line for line in lines if line.count("\t") == 12][1:]
        layers = [line for line in lines if line.count("\t") == 3][1:]
        announced = [int(number) for number in re.findall(r"\((\d+) (?:tensors|layers)\)", log)]
        if announced == [len(tensors), len(layers)]:
            return tensors, layers
    raise AssertionError(f"no complete table in {_TRIES} runs; the last said: {log}")


def printed_by_us(path: Path) -> tuple[list[str], list[str]]:
    found = statistics(read_imatrix(path))
    tensors = [
        _TENSOR
        % (
            "-" if each.layer is None else each.layer,
            each.role,
            each.sum,
            each.min,
            each.max,
            each.mean,
            each.std,
            each.active,
            each.n,
            each.entropy,
            each.entropy_norm,
            each.zd,
            each.cossim,
        )
        for each in found.tensors
    ]
    return tensors, [_LAYER % (each.layer, each.sum, each.zd, each.cossim) for each in found.layers]


def assert_same(path: Path, tensors: int) -> None:
    theirs, ours = printed_by_the_tool(path), printed_by_us(path)
    assert len(theirs[0]) == tensors
    roles = [line.split("\t")[1] for line in theirs[0]]
    assert [line.split("\t")[1] for line in ours[0]] == roles
    for lines, expected in zip(ours, theirs, strict=True):
        for line, other in zip(sorted(lines), sorted(expected), strict=True):
            assert_same_numbers(line, other)


def assert_same_numbers(line: str, other: str) -> None:
    for word, printed in zip(line.split(), other.split(), strict=True):
        if word != printed:
            shown, decimals = printed.rstrip("%"), len(printed.rstrip("%").partition(".")[2])
            unit = max(10**-decimals, 1e-5 * abs(float(shown)))  # 1e-5: what float32 loses in a sum of 64,512 terms
            assert abs(float(word.rstrip("%")) - float(shown)) <= 1.001 * unit, f"{line}\n{other}"


@pytest.fixture(scope="module")
def short_text(calibration_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "short.txt"
    path.write_text(calibration_text.read_text(encoding="utf-8")[:30_000], encoding="utf-8")
    return path


def collect(model: Path, text: Path, out: Path, form: str, *more: str) -> Path:
    tools.run(
        ["llama-imatrix", "-m", str(model), "-f", str(text), "-o", str(out), "--output-format", form]
        + ["-c", "128", "-b", "128", "--chunks", "6", "--no-ppl", "-t", "1", *more]
    )
    return out


@pytest.fixture(scope="module")
def moe_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_moe(tmp_path_factory.mktemp("moe") / "tiny-moe.gguf")


@pytest.fixture(scope="module")
def tied(short_text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model, imatrix)"""
    folder = tmp_path_factory.mktemp("tied")
    model = tiny_tied(folder / "tiny-tied.gguf")
    return model, collect(model, short_text, folder / "imatrix.gguf", "gguf")


def test_dense_gguf(reference_imatrix):
    assert_same(reference_imatrix, 71)


def test_dense_legacy(reference_model, short_text, tmp_path):
    assert_same(collect(reference_model, short_text, tmp_path / "dense.dat", "dat"), 70)


def test_moe_gguf(moe_model, short_text, tmp_path):
    path = collect(moe_model, short_text, tmp_path / "moe.gguf", "gguf", "--process-output")
    assert_same(path, 3 * 8 + 1)
    tensors = statistics(read_imatrix(path)).tensors
    unseen = {each.name: each.unseen_experts for each in tensors if each.unseen_experts}
    assert unseen == {f"blk.2.ffn_{role}_exps.weight": (UNREACHABLE,) for role in ("gate", "up", "down")}


def test_moe_legacy(moe_model, short_text, tmp_path):
    assert_same(collect(moe_model, short_text, tmp_path / "moe.dat", "dat"), 3 * 8)


def test_tied_gguf(tied):
    assert_same(tied[1], 2 * 7)


def made_up() -> Imatrix:
    """Many experts, heavy tails, experts never hit, tensors without data, constant ones, zeros, in_sum."""
    random = np.random.default_rng(5)
    entries = {}

    def add(name, columns, counts, sums=None, first=False):
        hit = np.array(counts, np.int64)
        if sums is None:
            sums = random.lognormal(0, 2, (len(hit), columns)) * hit[:, None]
        sum1 = sums.astype(np.float32) / 2 if first else None
        entries[name] = ImatrixEntry(name, sums.astype(np.float32), hit, sum1)

    for block in range(3):
        experts = [int(count) for count in random.integers(1, 9000, 64)]
        experts[block] = 0
        add(f"blk.{block}.ffn_up_exps.weight", 1024, experts)
        add(f"blk.{block}.attn_q.weight", 2048, [12345], first=True)
        add(f"blk.{block}.attn_v.weight", 64, [77], np.full((1, 64), 123.4))
        add(f"blk.{block}.ssm_out.weight", 512, [0])
        add(f"blk.{block}.attn_k.weight", 300, [5], np.where(random.random((1, 300)) < 0.5, 0, 1e-3))
    add("output.weight", 4096, [3])
    return Imatrix(Path("made-up"), entries, ("nothing",), 3, 512, False, "")


def test_corner_cases(tmp_path):
    write_imatrix(made_up(), tmp_path / "corners.gguf")
    assert_same(tmp_path / "corners.gguf", 3 * 4 + 1)
    found = statistics(read_imatrix(tmp_path / "corners.gguf"))
    assert found.without_data == tuple(f"blk.{block}.ssm_out.weight" for block in range(3))
    constant = next(each for each in found.tensors if each.role == "attn_v")
    assert constant.n == 64 and constant.zd == 0


def test_a_rewritten_imatrix_is_the_same_to_llama_cpp(tied, tmp_path):
    model, original = tied
    rewritten = tmp_path / "rewritten.gguf"
    write_imatrix(read_imatrix(original), rewritten)
    assert printed_by_the_tool(rewritten) == printed_by_the_tool(original)
    assert quantized(model, rewritten, tmp_path / "a") == quantized(model, original, tmp_path / "b")


def quantized(model: Path, imatrix: Path, folder: Path) -> bytes:
    """The file that llama-quantize makes; it keeps the imatrix's name, so that is always the same."""
    folder.mkdir()
    (folder / "imatrix.gguf").write_bytes(imatrix.read_bytes())
    argv = ["llama-quantize", "--imatrix", "imatrix.gguf", str(model), "out.gguf", "IQ4_XS", "1"]
    tools.run(argv, cwd=folder)
    return (folder / "out.gguf").read_bytes()
