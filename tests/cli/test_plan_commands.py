"""emit, import and quantize as a person runs them."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantplan.cli import config
from quantplan.cli.main import application
from quantplan.cli.plan_output import default_plan_path
from quantplan.errors import BadUsage, ModelMismatch, NothingSelected
from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS

pytestmark = pytest.mark.llamacpp
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.project.cache_clear()
    yield tmp_path
    config.project.cache_clear()


@pytest.fixture
def quantplan(capsys):
    """Runs a command; errors are raised as the library raises them."""

    def run(*words):
        capsys.readouterr()
        application()(args=[str(word) for word in words], prog_name="quantplan", standalone_mode=False)
        printed = capsys.readouterr()
        return SimpleNamespace(stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture
def plan_path(quantplan, reference_model, folder):
    (folder / "mine.txt").write_text("attn_v=q6_k")
    quantplan("import", "mine.txt", "--model", reference_model, "--stock-quant", "q4_k_s")
    return folder / "plans" / "prose-10m-mine.json"


def test_import_prints_json_for_programs(quantplan, reference_model, folder):
    (folder / "rules.txt").write_text("attn_v=q6_k attn_norm=q8_0")
    result = quantplan(
        "import", "rules.txt", "-m", reference_model, "--stock-quant", "q4_k_s", "--out", "p/a.json", "--json"
    )
    figures = json.loads(result.stdout)
    plan = PLANS.read(folder / "p" / "a.json")
    expected = {
        "plan": "p/a.json",
        "file_bytes": plan.file_bytes,
        "bpw": plan.bits_per_weight(read_model(reference_model)),
        "predicted_kld": None,
        "predicted_kld_err": None,
        "status": "given",
        "gap": None,
        "bound": None,
    }
    assert expected.items() <= figures.items()
    assert "warning: the rule attn_norm=q8_0" in result.stderr


def test_import_prints_a_table_for_people(quantplan, reference_model, plan_path):
    out = quantplan("import", "mine.txt", "-m", reference_model, "--stock-quant", "q4_k_s").stdout
    assert f"{PLANS.read(plan_path).file_bytes:,} bytes" in out
    row = next(line for line in out.splitlines() if "attn_v" in line)
    assert row.split()[:4] == ["attn_v", "Q6_K", "10", "0-9"]


def test_emit_writes_rules_that_import_reads(quantplan, reference_model, plan_path, folder):
    quantplan("emit", plan_path, "--as", "tensor-types", "--out", "rules.txt")
    quantplan("import", "rules.txt", "-m", reference_model, "--out", "again.json")
    assert PLANS.read(folder / "again.json").types == PLANS.read(plan_path).types
    assert quantplan("emit", plan_path).stdout == (folder / "rules.txt").read_text()


def test_emitted_command_builds_the_plan(quantplan, plan_path, folder):
    from quantplan.llamacpp.tools import bin_folder, environment

    line = quantplan("emit", plan_path, "--as", "args").stdout
    subprocess.run(f"PATH={bin_folder()}:$PATH; {line}", shell=True, env=environment(), check=True, capture_output=True)
    plan = PLANS.read(plan_path)
    plan.check_built(read_model(next(folder.glob("*.gguf"))))


def test_layer_types_only_of_layer_plans(quantplan, plan_path):
    with pytest.raises(BadUsage, match="tensor by tensor"):
        quantplan("emit", plan_path, "--as", "layer-types")


def test_forms_for_other_tools_read_back(quantplan, reference_model, plan_path, folder):
    for form in ("custom-q", "recipe"):
        quantplan("emit", plan_path, "--as", form, "--out", f"{form}.txt")
        quantplan("import", f"{form}.txt", "-m", reference_model, "--out", "again.json")
        assert PLANS.read(folder / "again.json").types == PLANS.read(plan_path).types
    assert (folder / "custom-q.txt").read_text().startswith("--custom-q '^")


def test_import_of_types_that_llama_cpp_lacks(quantplan, reference_model, folder):
    (folder / "r.recipe").write_text("# mine\n^output\\.weight$=q6_0\n^.*$=iq4_kt\n")
    with pytest.raises(NothingSelected, match="--nearest"):
        quantplan("import", "r.recipe", "-m", reference_model)
    result = quantplan("import", "r.recipe", "-m", reference_model, "--nearest")
    assert "warning: llama.cpp does not have IQ4_KT (4 bits; 71 tensors" in result.stderr.replace("\n", " ")


KLDS = "QTYPE,{names}\niq1_kt,{values}\n"
CURVE = "QTYPE,group0\nq4_K,0.05\nq6_K,0.004\nq8_0,0.0014\niq4_kt,0.07\n"


@pytest.fixture
def klds(reference_model, folder):
    from quantplan.llamacpp.quantize import quantizable

    names = [tensor.name for tensor in quantizable(read_model(reference_model))]
    (folder / "klds.csv").write_text(KLDS.format(names=",".join(names), values=",".join(["0.01"] * len(names))))
    (folder / "curve.csv").write_text(CURVE)
    return names


def test_published_klds_become_a_table_that_scores(quantplan, reference_model, klds, folder):
    result = quantplan("import", "klds.csv", "--curve", "curve.csv", "-m", reference_model, "--json")
    figures = json.loads(result.stdout)
    assert figures == {
        "damage": "klds-damage.json",
        "tensors": len(klds),
        "types": ["Q4_K", "Q6_K", "Q8_0"],
        "borrowed": 0,
        "model_digest": read_model(reference_model).digest,
    }
    (folder / "all.txt").write_text(".*=q6_k")
    scored = ("import", "all.txt", "-m", reference_model, "--sensitivity", "klds-damage.json", "--out", "p.json")
    out = quantplan(*scored).stdout
    assert PLANS.read(folder / "p.json").predicted_kld == pytest.approx(len(klds) * 0.01 * 0.004)
    assert "expected  KLD 0.00288 +- 0.00288 nats/token (not calibrated: for ranking only)" in out


def test_published_klds_without_a_model(quantplan, klds):
    out = quantplan("import", "klds.csv", "--curve", "curve.csv", "--as", "damage", "--out", "d.json").stdout
    assert "any with these tensors" in out and "d.json" in out


def test_quantize_builds_under_a_telling_name(quantplan, plan_path, folder):
    result = quantplan("quantize", plan_path, "--threads", "1")
    assert result.stdout == "prose-10m-mine.gguf\n"
    assert read_model(folder / "prose-10m-mine.gguf").file_bytes == PLANS.read(plan_path).file_bytes
    assert "+ llama-quantize " in result.stderr


def test_a_stock_mix_by_its_name(quantplan, reference_model, reference_imatrix, folder):
    said = quantplan("quantize", "q4_k_m", "-m", reference_model, "--imatrix", reference_imatrix, "--dry-run").stdout
    assert "llama-quantize --imatrix" in said and "--tensor-type" not in said and list(folder.iterdir()) == []
    result = quantplan("quantize", "q4_k_m", "-m", reference_model, "--imatrix", reference_imatrix, "--threads", "1")
    assert result.stdout == "prose-10m-Q4_K_M.gguf\n"
    built = read_model(folder / "prose-10m-Q4_K_M.gguf")
    assert f"{built.file_bytes:,} bytes" in said and built.metadata["quantize.imatrix.file"] == reference_imatrix.name
    assert "no imatrix: Q8_0" in quantplan("quantize", "Q8_0", "-m", reference_model, "--dry-run").stderr


def test_dry_run_writes_nothing(quantplan, plan_path, folder):
    before = sorted(folder.rglob("*"))
    out = quantplan("quantize", plan_path, "--dry-run", "--out", "sub/out.gguf").stdout
    assert f"{PLANS.read(plan_path).file_bytes:,} bytes" in out
    assert "--tensor-type" in out
    assert "free disk" in out
    assert sorted(folder.rglob("*")) == before


def test_plan_of_another_model(quantplan, plan_path, folder):
    from tiny_models import tiny_tied

    with pytest.raises(ModelMismatch, match="plan again"):
        quantplan("quantize", plan_path, "--model", tiny_tied(folder / "tied.gguf"))


def test_inside_a_project_plans_go_to_its_folder(quantplan, reference_model, folder, monkeypatch):
    (folder / "quantplan.toml").write_text(f'model = "{reference_model}"\n')
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    config.project.cache_clear()
    (folder / "sub" / "r.txt").write_text(".*=q8_0")
    quantplan("import", "r.txt")
    assert (folder / "plans" / "prose-10m-r.json").is_file()
    quantplan("quantize", folder / "plans" / "prose-10m-r.json", "--threads", "1")
    assert (folder / "prose-10m-r.gguf").is_file()


def test_an_imatrix_that_has_moved_is_taken_from_the_project(quantplan, reference_model, reference_imatrix, folder):
    moved = folder / "elsewhere" / reference_imatrix.name
    moved.parent.mkdir()
    moved.write_bytes(reference_imatrix.read_bytes())
    (folder / "r.txt").write_text(".*=q4_0")
    quantplan("import", "r.txt", "-m", reference_model, "--imatrix", moved, "--out", "plan.json")
    (folder / "i").mkdir()
    moved.rename(folder / "i" / "renamed.gguf")
    (folder / "quantplan.toml").write_text(f'model = "{reference_model}"\nimatrix = "i/renamed.gguf"\n')
    config.project.cache_clear()
    quantplan("quantize", "plan.json", "--threads", "1", "--out", "o.gguf")
    assert read_model(folder / "o.gguf").metadata["quantize.imatrix.file"] == reference_imatrix.name


def test_names_of_plans(reference_model):
    model = read_model(reference_model)
    assert default_plan_path(model, "17.9GB").name == "prose-10m-17.9GB.json"
    assert default_plan_path(model, "prose-10m-q5_k_m").name == "prose-10m-q5_k_m.json"
    assert default_plan_path(model, "my file (2)/x").name == "prose-10m-my-file-2-x.json"
