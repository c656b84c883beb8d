import pytest

from quantplan.errors import BadFile
from quantplan.project import FILE, find_project, project_text, read_project, read_text, text_files


def written(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(text, encoding="utf-8")
    return folder / FILE


def test_what_init_writes_is_read_back(tmp_path):
    awkward = 'a "quoted" \\ name.gguf'
    path = written(tmp_path, project_text(awkward, "imatrix/i.gguf", "calibration", "held.txt", 256))
    project = read_project(path)
    assert project.model == tmp_path / awkward
    assert (project.imatrix, project.ctx) == (tmp_path / "imatrix/i.gguf", 256)
    assert (project.calibration, project.text) == (tmp_path / "calibration", tmp_path / "held.txt")
    assert project.plans == tmp_path / "plans" and project.reports == tmp_path / "reports"
    assert project.cache.is_relative_to(tmp_path)


def test_only_the_model_is_needed_and_paths_may_be_absolute(tmp_path):
    project = read_project(written(tmp_path, 'model = "/models/a.gguf"\n'))
    assert str(project.model) == "/models/a.gguf"
    assert project.imatrix is project.ctx is project.calibration is None


def test_found_from_below_the_nearest_one(tmp_path):
    written(tmp_path, 'model = "outer.gguf"')
    written(tmp_path / "a", 'model = "inner.gguf"')
    (tmp_path / "a" / "b").mkdir()
    assert find_project(tmp_path / "a" / "b").model.name == "inner.gguf"
    assert find_project(tmp_path).model.name == "outer.gguf"


@pytest.mark.parametrize(
    "text, message",
    [
        ("model = 3", "model must be a text in quotes, not 3"),
        ("model = 'a'\nctx = 'x'", "ctx must be a whole number"),
        ("model = 'a'\nctx = true", "ctx must be a whole number, not True"),
        ("model = 'a'\nmodle = 'b'", "unknown key 'modle'; did you mean model. known keys: model, imatrix"),
        ("model = 'a", "cannot be read"),
        ("", 'no model; add the line model = "path'),
    ],
)
def test_errors_name_the_file(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(BadFile, match=message) as caught:
        read_project(path)
    assert str(path) in str(caught.value)


def test_text_of_a_folder_in_order(tmp_path):
    for name in ("b.txt", "a.md", "chat.jsonl", "table.json", "README.md"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    assert [file.name for file in text_files(tmp_path)] == ["a.md", "b.txt", "chat.jsonl"]
    assert text_files(tmp_path / "table.json") == [tmp_path / "table.json"], "whatever is named"


def test_texts_that_are_none(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").write_text(" \n ")
    (tmp_path / "folder").mkdir()
    cases = {
        "binary": "not UTF-8 text",
        "empty": "the text is empty",
        "folder": "no .txt or .md or .raw or .jsonl file in this folder",
        "none": "cannot read",
    }
    for name, message in cases.items():
        with pytest.raises(BadFile, match=message):
            read_text(text_files(tmp_path / name)[0])
