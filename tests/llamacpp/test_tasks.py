"""The modes of llama-perplexity that run tasks: command lines, and what is made of output that ends somewhere."""

from pathlib import Path

import pytest
from scripted_tool import ScriptedTool, finished

from quantplan.errors import BadUsage, ToolFailed
from quantplan.execution import Execution
from quantplan.llamacpp import tasks
from quantplan.llamacpp.perplexity import ToolOptions
from quantplan.llamacpp.tasks import TaskRun, argv, outcomes, parse

# as the tool printed them, between other lines
HELLASWAG = (
    "0.00.155.416 I hellaswag_score : calculating hellaswag score over selected tasks.\n\n"
    "task\tacc_norm\t95% confidence interval\n"
    "1\t100.00000000%\t[20.6549%, 100.0000%]\n2\t50.00000000%\t[9.4531%, 90.5469%]\n"
    "3\t66.66666667%\t[20.7660%, 93.8510%]\n\n\n"
)
WINOGRANDE = (
    "1\t100.0000\t -4.145967   -4.595596  1  1\n2\t100.0000\t -4.1   -nan  2  2\n3\t66.6667\t -4.2   -4.0  2  1\n\n"
)
CHOICE = "task\tacc_norm\n1\t0.00000000\n2\t50.00000000\n3\t33.33333333\n\n0.00.1 I Final result: 33.3333 +/- 33.3333\n"
LOGS = {
    "hellaswag": (HELLASWAG, (True, False, True)),
    "winogrande": (WINOGRANDE, (True, True, False)),
    "multiple-choice": (CHOICE, (False, True, False)),
}


@pytest.mark.parametrize("mode", LOGS)
def test_every_outcome_is_read(mode):
    log, expected = LOGS[mode]
    assert parse(finished(log), mode) == expected


@pytest.mark.parametrize("mode", LOGS)
def test_wherever_the_log_ends_nothing_is_made_up(mode):
    log, expected = LOGS[mode]
    lengths = set()
    for end in range(len(log) + 1):
        found = parse(finished(log[:end]), mode)
        assert found == expected[: len(found)]
        lengths.add(len(found))
    assert lengths == {0, 1, 2, 3}


def test_a_thousand_tasks_are_told_apart():
    """Shares are printed to 4 decimals at worst: enough for more tasks than any data set has."""
    truth = [(index * 7919) % 13 < 5 for index in range(10_042)]
    lines = [
        f"{number}\t{100 * sum(truth[:number]) / number:.4f}\t -1.0  -2.0  1  1\n"
        for number in range(1, len(truth) + 1)
    ]
    assert list(parse(finished("".join(lines)), "winogrande")) == truth


@pytest.mark.parametrize("log", ["1\t50.00000000\n", "2\t50.00000000\n", "1\t0.00000000\n2\t100.00000000\n"])
def test_lines_that_do_not_follow_are_an_error(log):
    with pytest.raises(ToolFailed, match="does not follow from the lines before"):
        parse(finished(log), "multiple-choice")


def test_command_lines():
    options = ToolOptions(256, Execution(3, 7))
    asked = TaskRun("multiple-choice", Path("arc.bin"), 750, most_answers=5)
    words = "-m a.gguf -bf arc.bin --multiple-choice --multiple-choice-tasks 750 -c 256 -np 5 -ngl 7 -t 3"
    assert argv(Path("a.gguf"), asked, options) == ["llama-perplexity", *words.split()]
    asked = TaskRun("hellaswag", Path("h.txt"), 12, most_answers=4)
    words = "-m a.gguf -f h.txt --hellaswag --hellaswag-tasks 12 -c 256 -np 4 -ngl 0"
    assert argv(Path("a.gguf"), asked, ToolOptions(256)) == ["llama-perplexity", *words.split()]


def call(**options):
    return outcomes(Path("a.gguf"), TaskRun("multiple-choice", Path("arc.bin"), 3, 4), ToolOptions(256), **options)


def test_runs_that_are_cut_off_are_repeated(monkeypatch):
    tool = ScriptedTool(monkeypatch, tasks, CHOICE[: CHOICE.index("3\t")], "", CHOICE)
    steps = []
    assert call(step=steps.append) == LOGS["multiple-choice"][1]
    assert tool.runs == 3 and sum(steps) == 2  # what a repeated run does is no progress


def test_five_runs_without_all_tasks_are_a_failure(monkeypatch):
    tool = ScriptedTool(monkeypatch, tasks, CHOICE[: CHOICE.index("3\t")])
    with pytest.raises(ToolFailed, match="ended 5 times without the results of all 3 tasks, at last with 2"):
        call()
    assert tool.runs == 5


def test_a_task_that_does_not_fit(monkeypatch):
    log = "0.0 E multiple_choice_score : task 17 does not fit in the context window (requires 1312 tokens)\n"
    tool = ScriptedTool(monkeypatch, tasks, log)
    with pytest.raises(BadUsage, match="task 17 .* needs 1312 tokens, more than --ctx 256"):
        call()
    assert tool.runs == 1
