"""One name and one meaning: what can be checked over all commands."""

import json
from collections import defaultdict

import pytest
from all_commands import all_commands

PANELS = {"Target", "Model and texts", "Types and constraints", "Memory and speed", "Measuring", "Execution", "Output"}
OF_A_COMMAND = {
    "Card",
    "Candidates",
    "A plan",
    "A sensitivity table",
    "Conversion of safetensors",
    None,
}  # what no other command has


def options():
    for name, command in all_commands().items():
        yield from ((name, parameter) for parameter in command.params if parameter.param_type_name == "option")


def test_a_short_flag_stands_for_one_long_name():
    long_names = defaultdict(set)
    for _, option in options():
        for short in (name for name in option.opts if not name.startswith("--")):
            long_names[short].add(next(name for name in option.opts if name.startswith("--")))
    two = {short: names for short, names in long_names.items() if len(names) > 1}
    assert two == {"-f": {"--text", "--calibration"}}  # the text that a command reads, as in llama.cpp


def test_panels_are_those_of_the_design():
    for name, option in options():
        assert option.rich_help_panel in PANELS | OF_A_COMMAND, (name, option.name)


def test_what_is_measured_may_run_elsewhere():
    for name in ("probe", "solve", "frontier", "report", "run", "measure", "compare", "score", "surgery search"):
        names = {parameter.name for parameter in all_commands()[name].params}
        assert {"threads", "gpu_layers", "jobs", "scheduler", "rpc"} <= names, name


def test_the_planning_commands_take_the_same_constraints_and_limits():
    shared = {"types", "pin", "min_type", "max_type", "only", "tie", "max_types", "per", "vram", "ram", "serve_ctx"}
    shared |= {"kv", "on_cpu", "min_tps", "max_kld", "budget"}
    for name in ("solve", "run", "frontier", "report"):
        assert shared <= {parameter.name for parameter in all_commands()[name].params}, name


@pytest.mark.parametrize(
    "words, message",
    [
        (("solve", "--budget", "5bpw", "-b", "6bpw"), "--budget takes one value and is given 2 times"),
        (("measure", "a.gguf", "--ctx", "64", "-c", "128", "--ctx=256"), "--ctx takes one value and is given 3 times"),
        (("solve", "--window", "64", "--ctx", "128"), "--ctx takes one value and is given 2 times"),
    ],
)
def test_a_single_value_is_not_given_twice(command, words, message):
    done = command(*words)
    assert done.code == 2 and message in done.error


def test_repeatable_options_and_switches_may_be_given_twice(command, small_model):
    done = command("run", "-b", "5bpw", "-b", "6bpw", "--json", "--json", "--refine", "--no-refine", "--show-config")
    assert done.code == 0 and '"5bpw",' in done.out


def test_every_command_prints_json():
    assert {
        name for name, command in all_commands().items() if "as_json" not in {p.name for p in command.params}
    } == set()


@pytest.mark.llamacpp
def test_several_texts_are_all_read(command, workplace, small_model, calibration_text):
    text = calibration_text.read_text(encoding="utf-8")
    for name, part in (("one.txt", text[:2_000]), ("two.txt", text[2_000:5_000])):
        (workplace / name).write_text(part, encoding="utf-8")
    words = ("measure", small_model, "--model", small_model, "--ctx", "16", "--threads", "1", "--json")

    def chunks(*texts):
        done = command(*words, *texts)
        assert done.code == 0, done.err
        return json.loads(done.out)[0]["conditions"]["windows"]

    several = chunks("--text", "one.txt", "--text", "two.txt")
    assert several == chunks("--text", "one.txt,two.txt") > chunks("--text", "two.txt")
    missing = command(*words, "--text", "one.txt", "--text", "absent.txt")
    assert missing.code == 3 and "cannot read the text absent.txt" in missing.error


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("solve", "-m", "m.gguf", "--sensitivity", "prior", "-b", "5bpw", "-o", "m.gguf"), "what --model names"),
        (
            ("solve", "-m", "m.gguf", "--sensitivity", "t.json", "-b", "5bpw", "-o", "./t.json"),
            "what --sensitivity names",
        ),
        (("import", "rules.txt", "-m", "m.gguf", "-o", "rules.txt"), "read itself"),
        (("probe", "-m", "m.gguf", "--calibration", "rules.txt", "-o", "rules.txt"), "what --calibration names"),
        (("imatrix", "m.gguf", "-f", "rules.txt", "-o", "m.gguf"), "read itself"),
        (("emit", "t.json", "--out", "t.json"), "read itself"),
        (("frontier", "-m", "m.gguf", "--sensitivity", "prior", "--plot", "m.gguf"), "what --model names"),
        (("solve", "-m", "m.gguf", "--sensitivity", "prior", "-b", "5bpw", "-o", "other.gguf"), "a GGUF file is there"),
    ],
)
def test_nothing_is_written_over_what_is_read(command, workplace, small_model, words, kept):
    for name in ("m.gguf", "other.gguf"):
        (workplace / name).write_bytes(small_model.read_bytes())
    for name in ("rules.txt", "t.json"):
        (workplace / name).write_text("attn_v=q8_0\n")
    before = {path: path.read_bytes() for path in workplace.iterdir() if path.is_file()}
    done = command(*words)
    assert done.code in (2, 3) and kept in done.error
    assert {path: path.read_bytes() for path in workplace.iterdir() if path.is_file()} == before
