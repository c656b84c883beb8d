"""`quantplan requantize` as a person runs it: shards, threads, kills, a full disk, and input that cannot be meant."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import fine_tuned, tiny_moe

from quantplan.build import compensated_rounding
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.tools import run

pytestmark = pytest.mark.llamacpp
ROOT = Path(__file__).parents[2]
SHORT = ("-c", "64", "-t", "1")


@pytest.fixture(scope="module")
def text(tmp_path_factory, calibration_text):
    path = tmp_path_factory.mktemp("requantize") / "calibration.txt"
    path.write_text(calibration_text.read_text(encoding="utf-8")[:8000], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def quant(small_model, tmp_path_factory):
    """A Q4_K_M of the small model, whose attn_v of block 0 has a type that cannot be compensated."""
    path = tmp_path_factory.mktemp("quant") / "quant.gguf"
    run(["llama-quantize", "--tensor-type", r"blk\.0\.attn_v=tq2_0", str(small_model), str(path), "Q4_K_M"])
    return path


@pytest.fixture(scope="module")
def words(small_model, quant, text):
    return ("requantize", quant, "--base", small_model, "--calibration", text, *SHORT)


@pytest.fixture(scope="module")
def expected(words, tmp_path_factory):
    """The bytes that the command makes."""
    folder = tmp_path_factory.mktemp("expected")
    done = apart([*words, "--out", "out.gguf"], folder)
    assert done.returncode == 0, done.stderr
    return (folder / "out.gguf").read_bytes()


def apart(line, folder, code=""):
    """The command in a process of its own, with a cache in the folder; ``code`` runs before it."""
    program = f"import sys\n{code}\nfrom quantplan.cli.main import main\nsys.argv = {['quantplan', *map(str, line)]!r}\nmain()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "QUANTPLAN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def ended_by(name, after):
    """Code that ends the process with a signal when it is about to encode one matrix more."""
    return (
        "import os, signal\nfrom quantplan.build import compensated_rounding as module\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start with it ignored
        "encode, done = module.compensate, []\n"
        "def compensate(*arguments):\n"
        f"    if len(done) == {after}:\n        os.kill(os.getpid(), signal.{name})\n"
        "    done.append(1)\n    return encode(*arguments)\nmodule.compensate = compensate\n"
    )


def split(path, folder):
    """The three shards of a model."""
    run(["llama-gguf-split", "--split-max-tensors", "9", str(path), str(folder / path.stem)])
    return sorted(folder.glob(f"{path.stem}-0000?-of-00003.gguf"))


def test_types_stay_and_both_files_are_measured(command, words, expected, workplace, quant, calibration_text):
    (workplace / "other.txt").write_text(calibration_text.read_text(encoding="utf-8")[300_000:306_000])
    done = command(*words, "--out", "out.gguf", "--text", "other.txt", "--json")
    assert done.code == 0 and (workplace / "out.gguf").read_bytes() == expected
    found, built, given = json.loads(done.out), read_model("out.gguf"), read_model(quant)
    assert {t.name: t.type for t in built.tensors} == {t.name: t.type for t in given.tensors}
    assert found["left"] == [{"name": "blk.0.attn_v.weight", "reason": "TQ2_0 cannot be compensated"}]
    assert len(found["compensated"]) == 14 and found["ratio"][0] == pytest.approx(found["kld"] / found["kld_of_file"])
    assert "left to ggml's own encoding, TQ2_0 cannot be compensated: blk.0.attn_v.weight" in done.err
    assert "also in the calibration text" not in done.err
    assert "tokens for 288 columns, 4,608 would do; more calibration text" in done.err


def test_a_file_of_a_sibling_is_a_layout(command, quant, small_model, text, calibration_text, workplace):
    base = fine_tuned(small_model, workplace / "tuned.gguf")
    (workplace / "other.txt").write_text(calibration_text.read_text(encoding="utf-8")[300_000:303_000])
    words = ("requantize", quant, "--base", base, "--calibration", text, *SHORT, "--out", "out.gguf")
    done = command(*words, "--text", "other.txt", "--json")
    assert done.code == 0, done.err
    assert "quant.gguf was made of another model than tuned.gguf (" in done.err and "taken as a layout" in done.err
    found, built = json.loads(done.out), read_model("out.gguf")
    assert {t.name: t.type for t in built.tensors} == {t.name: t.type for t in read_model(quant).tensors}
    assert found["differs"] and 0 < found["kld"] < 2 and found["kld_of_file"] is None and found["ratio"] is None


def test_evaluation_on_the_calibration_text_is_warned_of(command, words, text):
    done = command(*words, "--out", "out.gguf", "--text", text, "--chunks", "2")
    assert done.code == 0 and "100% of the long lines" in done.err and "also in the calibration text" in done.err


def test_shards_and_threads_change_no_byte(command, small_model, quant, text, workplace, monkeypatch, expected):
    """Caches of their own: second moments, too, are the same for any number of threads."""
    (workplace / "shards").mkdir()
    base, file = split(small_model, workplace / "shards"), split(quant, workplace / "shards")
    monkeypatch.setenv("QUANTPLAN_CACHE", str(workplace / "other"))
    done = command("requantize", file[2], "--base", base[1], "--calibration", text, "-c", "64", "-t", "2")
    assert done.code == 0, done.err
    assert done.out == f"{workplace / 'shards' / 'quant-compensated.gguf'}\n"
    made = read_model(workplace / "shards" / "quant-compensated.gguf")
    whole = workplace / "whole.gguf"
    whole.write_bytes(expected)
    for tensor in read_model(whole).tensors:  # names of files differ in the header
        assert made.by_name[tensor.name].type == tensor.type
        place = made.by_name[tensor.name]
        with made.path.open("rb") as one, whole.open("rb") as other:
            one.seek(place.offset)
            other.seek(tensor.offset)
            assert one.read(place.bytes) == other.read(tensor.bytes), tensor.name


def test_a_file_of_another_kind_is_not_replaced(command, small_model, workplace):
    notes = workplace / "notes.txt"
    notes.write_text("of a year")
    for words in (("quantize", "Q8_0", "-m", small_model), ("surgery", "apply", small_model, "delete 0")):
        ended = command(*words, "--out", notes)
        assert ended.code == 2 and "notes.txt is there and is no GGUF file: it would be lost" in ended.error
    assert notes.read_text() == "of a year"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_after_kill_9_the_same_command_encodes_the_rest(command, words, expected, workplace, monkeypatch):
    (workplace / "out.gguf").write_text("older")
    assert apart([*words, "--out", "out.gguf"], workplace, ended_by("SIGKILL", 5)).returncode == -signal.SIGKILL
    assert (workplace / "out.gguf").read_text() == "older"
    (blocks,) = (workplace / "cache").glob("rounding-*[!l]")
    assert len(list(blocks.glob("*.blocks"))) == 5
    (blocks / ".half.blocks.999999999.part").write_bytes(b"half")
    encode, encoded = compensated_rounding.compensate, []
    counting = lambda *arguments: encoded.append(1) or encode(*arguments)  # noqa: E731
    monkeypatch.setattr(compensated_rounding, "compensate", counting)
    assert command(*words, "--out", "out.gguf").code == 0
    assert len(encoded) == 14 - 5 and (workplace / "out.gguf").read_bytes() == expected
    assert not list(workplace.rglob("*.part*"))


def test_ctrl_c_leaves_an_older_file_and_what_is_encoded(words, expected, tmp_path):
    (tmp_path / "out.gguf").write_text("older")
    done = apart([*words, "--out", "out.gguf"], tmp_path, ended_by("SIGINT", 2))
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert (tmp_path / "out.gguf").read_text() == "older" and not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.rglob("*.blocks"))) == 2


def test_a_full_disk(command, words, workplace, monkeypatch, request):
    (workplace / "out.gguf").write_text("older")
    assert command(*words, "--out", "first.gguf").code == 0
    (blocks,) = (workplace / "cache").glob("rounding-*[!l]")
    usage = shutil.disk_usage(workplace)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=3_000_000))
    early = command(*words, "--out", "out.gguf")
    assert early.code == 11 and "out.gguf needs 2.5" in early.error
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    shutil.rmtree(blocks)
    request.getfixturevalue("full_disk")
    late = command(*words, "--out", "out.gguf")
    assert late.code == 11 and "no space left on the disk for" in late.error
    assert (workplace / "out.gguf").read_text() == "older" and not list(workplace.glob(".*"))


def test_refused(command, words, small_model, quant, text, workplace, reference_model):
    moe = tiny_moe(workplace / "moe.gguf")
    other = command("requantize", moe, "--base", small_model, "--calibration", text, *SHORT)
    assert other.code == 4 and "is a qwen3moe model, tied.gguf is qwen3; the first tensor that only" in other.error
    other = command("requantize", quant, "--base", reference_model, "--calibration", text, *SHORT)
    assert other.code == 4 and "blk.0.ffn_gate.weight has shape (256, 288) in quant.gguf" in other.error
    same = command("requantize", quant, "--base", small_model, "--calibration", text, "--out", quant)
    assert same.code == 2 and "is read itself, and would be overwritten" in same.error
    nothing = command("requantize", small_model, "--base", small_model, "--calibration", text, *SHORT)
    assert nothing.code == 2 and "no tensor of it can be compensated" in nothing.error
    (workplace / "few.txt").write_text("a few words")
    few = command("requantize", quant, "--base", small_model, "--calibration", "few.txt", *SHORT)
    assert few.code == 10 and "the text has 3 tokens, at least 128 are needed" in few.error
    little = command(*words[:-3], "32", "--memory", "300kB")
    assert little.code == 1 and "(288 columns) need 414,720 bytes of memory, 300,000 may be used" in little.error
    assert command(*words, "--memory", "much").code == 2
    assert not list(workplace.glob("*-compensated.gguf"))


def test_a_dry_run_says_what_to_expect(command, words, text, quant):
    done = command(*words, "--text", text, "--dry-run")
    assert done.code == 0 and f"with the types of {quant.name}" in done.out and "\nexpected: about " in done.out
    kept = ["second moments", "llama-quantize", "compensated rounding", "measuring"]
    assert [line.split(": ")[0].strip() for line in done.out.splitlines()[2:]] == kept
    expected = json.loads(command(*words, "--dry-run", "--json").out)["expected"]
    assert [stage["name"] for stage in expected["stages"]] == kept[:3]
    assert all(
        stage["seconds"] > 0 and stage["memory_bytes"] > 0 and stage["disk_bytes"] for stage in expected["stages"]
    )


def test_a_dry_run_refuses_what_cannot_be_built(command, words, small_model, text, tmp_path):
    other = command("requantize", tiny_moe(tmp_path / "moe.gguf"), *words[2:], "--dry-run")
    assert other.code == 4 and "Traceback" not in other.err
