import pytest

from quantplan.project import read_project


def test_a_project(command, workplace, small_model):
    done = command("init", small_model, "--folder", "mine", "--ctx", "128")
    assert (done.code, done.out) == (0, "mine/quantplan.toml\n")
    assert "24 tensors" in done.err and "Next: quantplan imatrix" in done.err
    assert "put texts at calibration/calibration.txt" in done.err
    assert sorted(each.name for each in (workplace / "mine").iterdir()) == [
        "calibration",
        "imatrix",
        "plans",
        "quantplan.toml",
        "reports",
    ]
    project = read_project(workplace / "mine" / "quantplan.toml")
    assert project.model.resolve() == small_model.resolve()
    assert project.ctx == 128
    assert project.imatrix == workplace / "mine" / "imatrix" / "tied.gguf"
    assert project.calibration == workplace / "mine" / "calibration" / "calibration.txt"


def test_paths_are_relative_to_the_project(command, workplace, small_model, small_text, small_imatrix):
    done = command(
        "init",
        small_model,
        "--folder",
        "a/b",
        "--calibration",
        small_text,
        "--imatrix",
        small_imatrix,
        "--text",
        "held.txt",
    )
    assert done.code == 0 and "put texts" not in done.err
    text = (workplace / "a" / "b" / "quantplan.toml").read_text()
    assert f'"{small_model}"' not in text  # the folder may be moved together with its model
    project = read_project(workplace / "a" / "b" / "quantplan.toml")
    assert project.calibration.resolve() == small_text.resolve()
    assert project.imatrix.resolve() == small_imatrix.resolve()
    assert project.text.resolve() == workplace / "held.txt"


def test_the_chunk_is_no_longer_than_the_model_was_trained_for(command, workplace, small_model):
    command("init", small_model)
    assert read_project(workplace / "quantplan.toml").ctx == 512


def test_a_project_is_not_overwritten(command, workplace, small_model):
    command("init", small_model, "--ctx", "128")
    before = (workplace / "quantplan.toml").read_text()
    again = command("init", small_model, "--ctx", "64")
    assert again.code == 2 and "already exists; --force overwrites it" in again.error
    assert (workplace / "quantplan.toml").read_text() == before
    assert command("init", small_model, "--ctx", "64", "--force").code == 0
    assert read_project(workplace / "quantplan.toml").ctx == 64


def test_the_project_is_known_below_its_folder(command, workplace, small_model, monkeypatch):
    command("init", small_model)
    monkeypatch.chdir(workplace / "plans")
    done = command("solve", "-b", "50%", "--sensitivity", "prior", "--types", "k")
    assert done.code == 0
    assert (workplace / "plans" / "tied-50%.json").is_file()


def test_no_model(command, files):
    done = command("init", "nofile.gguf", "--folder", "mine")
    assert done.code == 3 and done.out == "" and "nofile.gguf: No such file" in done.error
    assert files() == []


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_file_in_the_way(command, workplace, files, small_model, where):
    (workplace / "file").write_text("mine")
    done = command("init", small_model, "--folder", where)
    assert done.code == 3 and "cannot make the folder" in done.error
    assert files() == ["file"]


def test_a_full_disk(command, files, small_model, full_disk):
    done = command("init", small_model)
    assert done.code == 11 and "no space left on the disk" in done.error
    assert files() == []
