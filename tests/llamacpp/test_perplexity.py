"""What llama-perplexity says, and what is made of it when it stops in the middle."""

import re
from pathlib import Path

import pytest
from scripted_tool import ScriptedTool, finished

from quantplan.errors import BadFile, ModelMismatch, ToolFailed
from quantplan.execution import Execution
from quantplan.llamacpp import perplexity
from quantplan.llamacpp.perplexity import (
    ToolOptions,
    base_argv,
    base_file_bytes,
    divergence,
    divergence_argv,
    parse,
)
from quantplan.measurement import Estimate

GOLDEN = Path(__file__).parents[1] / "golden"
LOG = (GOLDEN / "llama-perplexity-kl-divergence.log").read_text(encoding="utf-8")  # Q4_K_M, 8 windows of 256


def test_the_summary():
    found = parse(finished(LOG))
    figures = found.figures
    assert (found.chunks, found.complete) == (8, True)
    assert figures.ppl == Estimate(38.303137, 3.479044)
    assert figures.base_ppl == Estimate(37.950542, 3.413062)
    assert figures.ln_ppl_ratio == Estimate(0.009248, 0.006010)
    assert figures.ppl_correlation == pytest.approx(0.9978)
    assert figures.kld == Estimate(0.008491, 0.000246)
    assert (figures.kld_maximum, figures.kld_median) == (0.085634, 0.006627)
    assert figures.kld_percentiles == {
        99.9: 0.063366,
        99.0: 0.043444,
        95.0: 0.022669,
        90.0: 0.016126,
        10.0: 0.002030,
        5.0: 0.001336,
        1.0: 0.000358,
        0.1: 0.000086,
    }
    assert figures.delta_p == Estimate(-0.134, 0.066)
    assert figures.rms_dp == Estimate(2.109, 0.129)
    assert figures.same_top == Estimate(94.094, 0.740)
    assert figures.kld_chunk_err is None and figures.per_chunk_kld == ()


def test_wherever_the_log_ends_nothing_is_made_up():
    """Each prefix gives the whole summary, a line that is there, or nothing."""
    whole = parse(finished(LOG)).figures
    chunk_klds = [0.00704, 0.00896, 0.00910, 0.00848, 0.00823, 0.00794, 0.00802, 0.00849]
    seen = set()
    for end in range(len(LOG)):
        found = parse(finished(LOG[:end]))
        if found is None:
            seen.add(0)
        elif found.complete:
            assert found.figures == whole and end >= LOG.index("Same top p:") + len("Same top p: 94.094 ± 0.740 %")
            seen.add("complete")
        else:
            assert found.figures.kld.value == chunk_klds[found.chunks - 1]
            assert found.figures.kld_median is None and found.figures.delta_p is None
            assert set(found.figures.kld_percentiles.values()) == {None}
            seen.add(found.chunks)
    assert seen == {0, 1, 2, 3, 4, 5, 6, 7, 8, "complete"}


@pytest.mark.parametrize("line", ["Mean    KLD", "Median  KLD", "99.0%   KLD", "RMS Δp", "Mean PPL(base)", "Cor(ln"])
def test_a_summary_without_one_of_its_lines_is_none(line):
    log = "".join(each for each in LOG.splitlines(keepends=True) if not each.startswith(line))
    assert len(log) < len(LOG)
    assert not parse(finished(log)).complete


def test_an_error_that_is_no_number_is_unknown():
    """The tool prints -nan where rounding makes a variance negative: a file against itself."""
    log = LOG.replace("0.009248 ±   0.006010", "0.000000 ±       -nan")
    assert parse(finished(log)).figures.ln_ppl_ratio == Estimate(0.0, None)


def test_figures_that_are_no_numbers_are_an_error():
    log = LOG.replace("Mean    KLD:   0.008491 ±   0.000246", "Mean    KLD:        nan ±   0.000000")
    with pytest.raises(ToolFailed, match="NaN or infinite logits"):
        parse(finished(log))


def test_command_lines():
    options = ToolOptions(256, Execution(3, 7))
    base = base_argv(Path("a.gguf"), Path("t.txt"), Path("b.kld"), 8, options)
    words = "-m a.gguf -f t.txt --chunks 8 --kl-divergence-base b.kld -c 256 -ngl 7 -t 3"
    assert base == ["llama-perplexity", *words.split()]
    assert divergence_argv(Path("q.gguf"), Path("b.kld"), ToolOptions(256)) == [
        "llama-perplexity",
        "-m",
        "q.gguf",
        "--kl-divergence",
        "--kl-divergence-base",
        "b.kld",
        "-c",
        "256",
        "-ngl",
        "0",
    ]


def test_size_of_a_base_file():
    assert base_file_bytes(8192, 256, 8) == 16_662_484  # as llama-perplexity wrote it
    assert base_file_bytes(8191, 256, 8) == 16_662_484  # rows are padded to whole words


def cut(line):
    return LOG[: LOG.index(line)]


def call(**options):
    return divergence(Path("a.gguf"), Path("b.kld"), 8192, ToolOptions(256), **options)


@pytest.mark.parametrize(("line", "who"), [("Mean PPL(Q)", "the model"), ("Mean PPL(base)", "the base model")])
def test_a_perplexity_of_the_vocabularys_size_is_no_figure(monkeypatch, line, who):
    """What comes of logits that are all equal: PPL 8192 +- 0 and a KLD of 0, with exit code 0."""
    even = re.sub(rf"^({re.escape(line)} *: *)[\d.]+", r"\g<1>8192.0004", LOG, flags=re.MULTILINE)
    assert even != LOG
    ScriptedTool(monkeypatch, perplexity, even)
    with pytest.raises(BadFile, match=f"a.gguf: {who} gives every token the same logit"):
        call()


def test_runs_that_lose_their_summary_are_repeated(monkeypatch):
    tool = ScriptedTool(monkeypatch, perplexity, cut("Mean    KLD"), cut("   5 "), LOG)
    steps = []
    assert call(step=steps.append).complete
    assert tool.runs == 3 and sum(steps) == 8


def test_after_five_runs_the_last_whole_line_of_the_best_is_taken(monkeypatch):
    tool = ScriptedTool(monkeypatch, perplexity, cut("   5 "), cut("   8 "), cut("   3 "), "", cut("   2 "))
    found = call()
    assert (tool.runs, found.chunks, found.complete) == (5, 7, False)
    assert found.figures.kld == Estimate(0.00802, 0.00024)


def test_runs_that_say_nothing_are_a_failure(monkeypatch):
    tool = ScriptedTool(monkeypatch, perplexity, cut("   1 "))
    with pytest.raises(ToolFailed, match="ended 5 times without a single result"):
        call()
    assert tool.runs == 5


def test_a_vocabulary_of_another_size(monkeypatch):
    ScriptedTool(monkeypatch, perplexity, LOG + "kl_divergence: inconsistent vocabulary (8192 vs 151936)\n")
    with pytest.raises(ModelMismatch, match="its vocabulary is not that of the base"):
        call()


def test_a_base_file_that_is_not_whole(monkeypatch, tmp_path):
    ScriptedTool(monkeypatch, perplexity, "perplexity: failed to decode\n")
    (tmp_path / "b.kld").write_bytes(b"_logits_")
    with pytest.raises(ToolFailed, match="base file of 8 bytes where 16,662,484 are needed"):
        perplexity.write_base(Path("a"), Path("t"), tmp_path / "b.kld", 8, 8192, ToolOptions(256))
