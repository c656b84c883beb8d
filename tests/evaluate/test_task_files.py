"""Data files of tasks: what the tool reads of them, and what is refused with its place."""

import json
import struct
from pathlib import Path

import pytest

from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.task_files import Question, encode, read_task_file

DATA = Path(__file__).parents[1] / "data"
QUESTIONS = [
    Question("Question: is ice cold? Answer:", ("yes", "no"), 0),
    Question("Frage: wie heißt „ice“? Antwort:", ("Käse", "Eis", "Öl"), 1),
]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_hellaswag():
    found = read_task_file(DATA / "hellaswag.txt")
    assert (found.mode, len(found.questions), found.most_answers) == ("hellaswag", 12, 4)
    first = found.questions[0]
    assert first.answers[first.correct] == "waits until the water boils."
    assert first.texts[1].endswith("puts it on the stove. He waits until the water boils.")


def test_winogrande_loses_its_last_line_as_in_the_tool(tmp_path):
    path = DATA / "winogrande.csv"
    found = read_task_file(path)
    assert (found.mode, len(found.questions)) == ("winogrande", 12) and path.read_text().count("\n") == 13
    assert len(read_task_file(written(tmp_path, "a.csv", path.read_text() + "\n")).questions) == 13
    assert len(read_task_file(written(tmp_path, "b.csv", path.read_text().removesuffix("\n"))).questions) == 12


def test_winogrande_sentences_with_commas_are_quoted():
    server = read_task_file(DATA / "winogrande.csv").questions[4]
    assert server.answers == ("server", "client") and server.correct == 0
    assert server.texts[0] == "The server answered the client slowly, because the server had to read the file first."


def test_the_readable_form_is_the_binary_one(tmp_path):
    readable = read_task_file(DATA / "arc.jsonl")
    binary = read_task_file(written(tmp_path, "arc.bin", encode(readable.questions)))
    assert binary.questions == readable.questions and binary.digest == readable.digest
    assert (readable.mode, len(readable.questions), readable.most_answers) == ("multiple-choice", 12, 5)


def test_the_binary_layout_byte_by_byte():
    """As ``multiple_choice_score`` takes it apart."""
    data = encode([Question("Q", ("a", "bc"), 1)])
    task = struct.pack("<I", 1) + b"Q" + struct.pack("<II", 2, 1) + b"a" + struct.pack("<I", 2) + b"bc"
    task += struct.pack("<ii", 0, 1) + struct.pack("<I", 0)
    assert data == struct.pack("<II", 1, 8) + task


def test_binary_with_several_right_answers_besides(tmp_path):
    """Published files carry a second list for TruthfulQA; the tool reads over it, and so is done here."""
    data = bytearray(encode(QUESTIONS[:1]))
    data[-4:] = struct.pack("<II", 2, 3) + b"yes" + struct.pack("<I", 2) + b"no" + struct.pack("<ii", 1, 1)
    assert read_task_file(written(tmp_path, "a.bin", bytes(data))).questions == tuple(QUESTIONS[:1])


def test_wherever_a_binary_file_ends_it_is_refused(tmp_path):
    data = encode(QUESTIONS)
    assert read_task_file(written(tmp_path, "a.bin", data)).questions == tuple(QUESTIONS)
    for end in range(1, len(data)):
        with pytest.raises(BadFile, match=r"not multiple-choice data|no tasks in it"):
            read_task_file(written(tmp_path, "a.bin", data[:end]))


def test_binary_positions_that_lie(tmp_path):
    data = bytearray(encode(QUESTIONS))
    data[8:12] = struct.pack("<I", 13)
    with pytest.raises(BadFile, match="table of positions"):
        read_task_file(written(tmp_path, "a.bin", bytes(data)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "context\n1\na\nb\nc\n", r"5 lines, no multiple of 6"),
        ("a.txt", "context\n4\na\nb\nc\nd\n", r"a.txt, line 2: .*0 to 3"),
        ("a.txt", "context\r\n1\r\na\r\nb\r\nc\r\nd\r\n", "Windows line ends"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", "", "no tasks in it"),
        ("a.csv", "0,The _ is,a,1\n0,x,y\n", "line 1: five fields"),
        ("a.csv", "index,sentence,option1,option2,answer\n", r"line 1: no gap \(_\).*names of the fields"),
        ("a.csv", "0,The _ is.,a,b,3\n", "line 1: the right choice is 1 or 2, not '3'"),
        ("a.jsonl", "{\n", "a.jsonl, line 1: .*is needed"),
        ("a.jsonl", '{"question": "q", "answers": ["a", ""], "correct": 0}', "no text empty"),
        ("a.jsonl", '{"question": "q", "answers": ["a", "b"], "correct": true}', "is needed"),
        ("a.jsonl", '\n{"question": "q", "answers": ["a", "b"], "correct": 2}', "line 2: 2 to 100 answers"),
        ("a.jsonl", '{"question": "q", "answers": ["a"], "correct": 0}', "2 to 100 answers"),
        ("a.bin", struct.pack("<II", 10**9, 8), "announces 1000000000 entries"),
        ("a.bin", encode([Question("q", ("a", "b"), 5)]), "task 0: a question, answers and one that is right"),
    ],
)
def test_faults_are_named(tmp_path, name, content, said):
    with pytest.raises(BadFile, match=said):
        read_task_file(written(tmp_path, name, content))


def test_other_endings_and_missing_files(tmp_path):
    with pytest.raises(BadUsage, match="the ending says which format"):
        read_task_file("arc.parquet")
    with pytest.raises(BadFile, match="cannot read the tasks"):
        read_task_file(tmp_path / "gone.bin")


def test_the_committed_data_is_plain():
    for line in (DATA / "arc.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"question", "answers", "correct"}
