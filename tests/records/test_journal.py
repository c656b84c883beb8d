import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantplan.errors import BadFile, NoSpace
from quantplan.records.journal import Journal, digest_of, text_digest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(tmp_path):
    journal = Journal(tmp_path, "stage", "model", 1)
    for index in range(5):
        journal.put(f"tensor {index}", {"klds": [index, 0.1 + index]})
    return journal


def again(tmp_path):
    return Journal(tmp_path, "stage", "model", 1)


def test_results_are_found_again(tmp_path, filled):
    assert again(tmp_path).results == filled.results == {f"tensor {i}": {"klds": [i, 0.1 + i]} for i in range(5)}


def test_the_last_result_of_a_key_counts(tmp_path, filled):
    filled.put("tensor 2", None)
    assert again(tmp_path).results["tensor 2"] is None
    assert len(again(tmp_path).results) == 5


def test_whatever_it_was_made_from_is_its_name(tmp_path, filled):
    assert Journal(tmp_path, "stage", "model", 2).results == {}
    assert Journal(tmp_path, "other", "model", 1).results == {}
    assert digest_of("a", None, 1.5) != digest_of("a", None, 1.25)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert text_digest("a") != text_digest("b")


@pytest.mark.parametrize("cut", [1, 2, 20, 40])
def test_a_torn_line_is_made_again(tmp_path, filled, cut):
    """What kill -9 or a full disk leaves: the line under way is lost, those before and after it are not."""
    filled.path.write_bytes(filled.path.read_bytes()[:-cut])
    torn = again(tmp_path)
    assert set(torn.results) == {f"tensor {index}" for index in range(4 if cut > 1 else 5)}
    torn.put("tensor 9", 9)
    assert again(tmp_path).results == torn.results


def test_an_altered_line_is_not_believed(tmp_path, filled):
    data = filled.path.read_text()
    filled.path.write_text(data.replace("[2, 2.1]", "[2, 2.2]"))
    found = again(tmp_path)
    assert "tensor 2" not in found.results and len(found.results) == 4
    assert found.discarded == 1


def test_rubbish_in_the_file(tmp_path, filled):
    with filled.path.open("ab") as file:
        file.write(b"\xff\xfe\n{}\nno space\n" + b"0" * 16 + b" [1]\n")
    found = again(tmp_path)
    assert found.results == filled.results and found.discarded == 4


def test_nan_is_refused_before_it_is_written(tmp_path, filled):
    before = filled.path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        filled.put("tensor 9", float("nan"))
    assert filled.path.read_bytes() == before and "tensor 9" not in filled.results


def test_a_full_disk(tmp_path, filled, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="no space left on the disk for the cache"):
        filled.put("tensor 9", 9)
    assert "tensor 9" not in filled.results


def test_no_place_to_write_or_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFile, match="cannot read the cache"):
        Journal(tmp_path / "file", "stage")
    late = Journal(tmp_path / "later", "stage")
    (tmp_path / "later").write_text("")
    with pytest.raises(BadFile, match="cannot write the cache"):
        late.put("a", 1)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_kill_in_the_middle_of_writing(tmp_path):
    """A process that writes without end is killed; every line that it had finished is there."""
    code = (
        "import sys; from pathlib import Path; from quantplan.records.journal import Journal\n"
        f"journal = Journal(Path({str(tmp_path)!r}), 'stage', 'model', 1)\n"
        "for index in range(10**9):\n"
        "    journal.put(str(index), ['x' * 5000, index]); print(index, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stdout:
            if int(line) >= 30:
                process.send_signal(signal.SIGKILL)
                break
        finished = [int(line) for line in process.stdout]
    assert process.returncode == -signal.SIGKILL
    found = again(tmp_path)
    assert set(map(str, range(max([30, *finished]) + 1))) <= set(found.results)
    assert found.discarded <= 1
    assert all(value[1] == int(key) for key, value in found.results.items())
    assert json.loads(found.path.read_bytes().split(b"\n")[0].split(b" ", 1)[1])[0] == "0"


def test_two_processes_write_to_one_journal(tmp_path):
    """Two commands in one project at the same time: every line of both is there, none is torn."""
    code = (
        "import sys; from pathlib import Path; from quantplan.records.journal import Journal\n"
        f"journal = Journal(Path({str(tmp_path)!r}), 'stage', 'model', 1)\n"
        "for index in range(100): journal.put(f'{sys.argv[1]} {index}', [index] * 4000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, name], cwd=ROOT) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = again(tmp_path)
    assert found.discarded == 0
    assert found.results == {f"{name} {index}": [index] * 4000 for name in "ab" for index in range(100)}
