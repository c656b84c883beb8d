"""`quantplan measure` and `quantplan compare` as typed, in a folder of their own."""

import json
import shutil

import pytest

from quantplan.build.build import build, stock_plan
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.records.formats import MEASUREMENTS, PLANS

pytestmark = pytest.mark.llamacpp
FEW = ["--ctx", "128", "--chunks", "6", "--threads", "1"]


@pytest.fixture(scope="module")
def shell(shell_in, tmp_path_factory, reference_model, calibration_text, reference_imatrix):
    """A folder with model.gguf, judge.txt, and the plan that is the mix Q3_K_L with the imatrix."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "tmp").mkdir()
    (folder / "model.gguf").symlink_to(reference_model)
    (folder / "judge.txt").write_text(calibration_text.read_text(encoding="utf-8")[:40_000], encoding="utf-8")
    plan = stock_plan(read_model(folder / "model.gguf"), "Q3_K_L", read_imatrix(reference_imatrix))
    PLANS.write(plan, folder / "plan.json")
    return shell_in(folder)


def test_measure_prints_json_and_keeps_records(shell):
    out, err = shell(
        "measure",
        "model.gguf",
        "--model",
        "model.gguf",
        "--text",
        "judge.txt",
        *FEW,
        "--json",
        "--out",
        "records",
    )
    (found,) = json.loads(out)
    assert found["file"] == "model.gguf" and found["kld"] == 0 and found["same_top"] == 100
    assert found["ppl"] > 1 and found["ppl_err"] > 0 and len(found["per_window_kld"]) == 6
    (record,) = (shell.folder / "records").iterdir()
    assert MEASUREMENTS.read(record).kld.value == 0 and f"written: records/{record.name}" in err


def test_measure_shows_a_table(shell):
    out, _ = shell("measure", "model.gguf", "--base", "model.gguf", "--text", "judge.txt", *FEW)
    assert "6 chunks of 128 tokens, in-process, cpu" in out and "0 ± 0" in out


def test_measure_with_a_quantized_cache(shell):
    words = ["measure", "model.gguf", "--model", "model.gguf", "--text", "judge.txt", *FEW]
    out, _ = shell(*words, "-ctk", "q8_0", "-ctv", "q5_1", "--json")
    (found,) = json.loads(out)
    assert found["conditions"]["cache_types"] == "q8_0,q5_1" and found["kld"] > 0
    assert found["bytes_per_token"] == read_model(shell.folder / "model.gguf").bytes_per_token()
    out, _ = shell(*words, "--kv", "q8_0,q5_1")
    assert "KV cache q8_0,q5_1" in out and "Read/token" in out
    _, err = shell(*words, "--kv", "q4_k", code=2)
    assert "llama.cpp keeps no KV cache as Q4_K" in err


def test_measure_with_the_tool(shell):
    words = ["measure", "model.gguf", "--base", "model.gguf", "--text", "judge.txt", *FEW]
    out, err = shell(*words, "--engine", "llama-perplexity", "--json")
    (found,) = json.loads(out)
    assert found["conditions"]["engine"] == "llama-perplexity"
    assert "+ llama-perplexity -m model.gguf --kl-divergence" in err
    assert list((shell.folder / "tmp").iterdir()) == []


def test_measure_without_a_base_or_text(shell):
    assert "which model?" in shell("measure", "model.gguf", code=2)[1]
    assert "no evaluation text: give --text FILE" in shell("measure", "model.gguf", "--base", "model.gguf", code=2)[1]


def test_compare_builds_the_plan_and_the_mixes_and_leaves_nothing(shell):
    words = ["compare", "plan.json", "--with", "Q2_K,q3_k_l", "--text", "judge.txt"]
    out, err = shell(*words, *FEW, "--json")
    found = json.loads(out)
    assert [row["name"] for row in found["rows"]] == ["plan", "Q2_K", "Q3_K_L"]
    plan, smaller, same = found["rows"]
    assert plan["kld_ratio"] == 1 and smaller["kld_ratio"] < 0.8 and smaller["told_apart"]
    assert same["file_bytes"] == plan["file_bytes"]
    assert same["kld"] == plan["kld"] and same["kld_ratio"] == 1  # built with the plan's imatrix: the same file
    assert "the plan and Q3_K_L have exactly the same KLD" in found["verdict"]
    assert err.count("+ llama-quantize") + err.count("llama-quantize --imatrix") >= 3
    assert list((shell.folder / "tmp").iterdir()) == []


def test_compare_takes_several_plans(shell, reference_imatrix):
    plan = stock_plan(read_model(shell.folder / "model.gguf"), "Q4_K_S", read_imatrix(reference_imatrix))
    PLANS.write(plan, shell.folder / "second.json")
    words = ["compare", "plan.json", "second.json", "--model", "model.gguf", "--text", "judge.txt"]
    out, _ = shell(*words, *FEW, "--json")
    found = json.loads(out)
    assert [row["name"] for row in found["rows"]] == ["plan", "second"]
    assert found["rows"][1]["file_bytes"] == plan.file_bytes and "WORSE than second" in found["verdict"]


def test_compare_takes_the_nearest_mix_and_builds_once(shell):
    words = ["compare", "plan.json", "--model", "model.gguf", "--text", "judge.txt", *FEW, "--out", "builds"]
    out, err = shell(*words)
    assert "comparing with Q3_K_L, the stock quant nearest in size" in err
    assert "KLD ratio" in out and "have exactly the same KLD" in out
    first = {path: path.stat().st_mtime_ns for path in (shell.folder / "builds").glob("*.gguf")}
    assert len(first) == 2 and (shell.folder / "builds" / "plan.comparison.json").is_file()
    _, err = shell(*words)
    assert "llama-quantize" not in err
    assert {path: path.stat().st_mtime_ns for path in first} == first


def test_a_damaged_build_is_built_again(shell):
    words = [
        "compare",
        "plan.json",
        "--with",
        "plan-copy.gguf",
        "--text",
        "judge.txt",
        *FEW,
        "--out",
        "damaged",
    ]
    model = read_model(shell.folder / "model.gguf")
    build(PLANS.read(shell.folder / "plan.json"), model, shell.folder / "plan-copy.gguf", threads=1)
    shell(*words)
    (built,) = (shell.folder / "damaged").glob("*.gguf")
    whole = built.read_bytes()
    built.write_bytes(whole[: len(whole) // 2])
    _, err = shell(*words)
    assert "llama-quantize" in err and built.read_bytes() == whole


def test_compare_warns_of_a_text_that_calibration_saw(shell):
    words = ["compare", "plan.json", "--with", "model.gguf", "--text", "judge.txt", *FEW, "--out", "builds"]
    _, err = shell(*words, "--calibration", "judge.txt")
    assert "warning: 100% of the long lines of judge.txt are also in the calibration text judge.txt" in err
    (shell.folder / "other.txt").write_text("another text altogether\n" * 100)
    assert "warning" not in shell(*words, "--calibration", "other.txt")[1]


def test_inside_a_project_everything_has_its_place(shell, shell_in):
    """Model, text, window and folders come from quantplan.toml."""
    folder = shell.folder / "project"
    folder.mkdir()
    (folder / "quantplan.toml").write_text('model = "../model.gguf"\nheldout = "../judge.txt"\nctx = 128\n')
    here = shell_in(folder)
    (folder / "tmp").mkdir()
    here("measure", "../model.gguf", "--chunks", "6", "--threads", "1")
    (record,) = (folder / "reports").glob("model-*.measurement.json")
    assert MEASUREMENTS.read(record).conditions.n_ctx == 128
    out, _ = here("compare", "../plan.json", "--with", "Q2_K", "--chunks", "6", "--threads", "1")
    assert "the plan loses" in out
    assert len(list((folder / "reports" / "builds").glob("*.gguf"))) == 2
    assert (folder / "reports" / "plan.comparison.json").is_file()
    assert (folder / ".quantplan" / "cache").is_dir()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--with", "Q4_K_X"], 5, "no stock quant 'Q4_K_X'; nearest: Q4_K_M"),
        (["--with", "gone.gguf"], 3, "gone.gguf: no such file"),
        (["--with", "Q4_0,judge.txt.GGUF"], 3, "judge.txt.GGUF: not a GGUF file"),
        (["--with", "Q2_K", "--text", "gone.txt"], 3, "cannot read the text gone.txt"),
        (["--with", "Q2_K", "--chunks", "1"], 2, "at least two chunks"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(shell, words, code, said):
    shutil.copy(shell.folder / "judge.txt", shell.folder / "judge.txt.GGUF")
    chunks = [] if "--chunks" in words else ["--chunks", "6"]
    options = ["--ctx", "128", "--threads", "1", "--out", "builds"]
    _, err = shell("compare", "plan.json", "--text", "judge.txt", *options, *chunks, *words, code=code)
    assert said in err and "Traceback" not in err and "+ llama-quantize" not in err
