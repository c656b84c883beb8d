"""The whole chain on a model that runs in a tenth of a second: it resumes, and it never keeps what is worse."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import tiny_tied

from quantplan.build.build import stock_plan
from quantplan.devices.limits import Devices, memory_use
from quantplan.errors import BadUsage, NoSpace
from quantplan.evaluate import baselines
from quantplan.evaluate.baselines import BuildContext
from quantplan.evaluate.measure import MeasureOptions
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.planning.request import PlanRequest
from quantplan.quant_type import parse_types
from quantplan.records.journal import Journal
from quantplan.run import evaluation as trying
from quantplan.run import refine, rounding_choice
from quantplan.run import run as running
from quantplan.run.run import run
from quantplan.run.targets import RunOptions, RunStatus, RunTarget, Texts
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.probe import ProbeOptions

pytestmark = pytest.mark.llamacpp
ROOT = Path(__file__).parents[2]
TYPES = parse_types("k,Q8_0")
PRICING = SensitivityOptions(
    TYPES, ProbeOptions(n_ctx=64, chunks=8, extend=False, execution=Execution(1)), 1 << 15, False
)
OPTIONS = RunOptions(PRICING, MeasureOptions(64, 12, Execution(1)), refine_chunks=16)
BUDGETS = ("Q4_K_M", "6.2bpw")
FEW = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return read_model(tiny_tied(tmp_path_factory.mktemp("run") / "tied-f16.gguf"))


@pytest.fixture(scope="module")
def texts(calibration_text):
    whole = calibration_text.read_text(encoding="utf-8")
    return Texts(whole[:8_000], whole[20_000:26_000], whole[40_000:46_000])


@pytest.fixture(autouse=True)
def few_mixes(monkeypatch):
    """Sizes of 25 mixes take a second; five will do."""
    monkeypatch.setattr(baselines, "published_ftypes", lambda: FEW)


def targets(model, folder, budgets=BUDGETS):
    requests = [PlanRequest(model, None, TYPES, budget) for budget in budgets]
    return [
        RunTarget(each, f"tied-{each.budget.lower()}", folder / f"tied-{each.budget.lower()}.gguf") for each in requests
    ]


def carry_out(model, texts, folder, options=OPTIONS, budgets=BUDGETS):
    context = BuildContext(model, folder / "builds", None, 1)
    return run(targets(model, folder, budgets), texts, options, context, folder / "cache")


@pytest.fixture(scope="module")
def whole(model, texts, tmp_path_factory):
    """An uninterrupted run of two sizes, its folder, and the keys of all journal lines that it wrote."""
    folder = tmp_path_factory.mktemp("whole")
    honest, lines = Journal.put, []

    def noting(self, key, value):
        lines.append((self.path.name, key))
        honest(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "published_ftypes", lambda: FEW)
        patch.setattr(Journal, "put", noting)
        found = carry_out(model, texts, folder)
    return found, folder, lines


def test_the_files_are_the_plans(whole, model):
    found, folder, _ = whole
    assert [each.target.request.budget for each in found] == list(BUDGETS)
    for each in found:
        built = read_model(each.target.file)
        each.plan.check_built(built)
        assert built.file_bytes <= each.target.budget_bytes
        assert each.measurement.conditions.chunks == 12
        assert each.measurement.file_bytes == built.file_bytes
    assert sorted(path.name for path in folder.glob("*.gguf")) == sorted(each.target.file.name for each in found)
    assert not list((folder / "builds").glob("*")), "what was built on the way is gone"


def test_the_file_is_no_worse_than_any_stock_quant(whole):
    for each in whole[0]:
        rows = {row.name: row.measurement.kld.value for row in each.comparison.rows}
        assert each.stock_quants and set(each.stock_quants) < set(rows)
        assert each.measurement.kld.value <= min(rows[name] for name in each.stock_quants)


def test_refinement_is_recorded(whole):
    for each in whole[0]:
        state = each.refinement
        assert len(state.plans) >= 2 and state.stock_quants
        assert all(len(one.klds) == 16 for one in state.measured)
        assert (each.gain is not None) == state.counts
        own = each.target.name
        assert state.plan.name == own and {row.name for row in each.comparison.rows[:1]} <= {own, state.leader.name}


def test_nothing_is_measured_twice_in_a_run(whole):
    counts = Counter(whole[2])
    assert max(counts.values()) == 1, counts.most_common(3)
    stages = Counter(name.rsplit("-", 1)[0] for name, _ in counts)
    assert stages["round-trip"] == 15 and stages["probe"] >= 15 and stages["measure"] == stages["trial"]


def test_a_second_run_measures_and_builds_nothing(whole, model, texts, monkeypatch):
    found, folder, _ = whole

    def none(*_arguments, **_options):
        raise AssertionError("something was done again")

    monkeypatch.setattr(trying, "measure", none)
    monkeypatch.setattr(trying, "built", none)
    monkeypatch.setattr(Journal, "put", none)
    again = carry_out(model, texts, folder)
    assert [each.plan.types for each in again] == [each.plan.types for each in found]
    assert [each.reason for each in again] == [each.reason for each in found]


def test_one_size_more_shares_what_is_measured(whole, model, texts, tmp_path, monkeypatch):
    """A third size measures its own files and nothing else; without refinement it is plan and mix."""

    folder = tmp_path / "more"
    shutil.copytree(whole[1], folder)
    honest, lines = Journal.put, []
    monkeypatch.setattr(
        Journal, "put", lambda self, key, value: (lines.append(self.path.name), honest(self, key, value))
    )
    (one,) = carry_out(model, texts, folder, replace(OPTIONS, refine=False), ("5bpw",))
    stages = Counter(name.rsplit("-", 1)[0] for name in lines)
    assert stages.keys() <= {"run", "measure", "trial"}
    assert stages["trial"] <= 4  # plan and mix on two texts
    assert one.refinement.steps == () and one.gain is None


def test_standing_tells_what_is_done(whole, model, texts, tmp_path):
    context = BuildContext(model, whole[1] / "builds", None, 1)
    for each in running.run_status(targets(model, whole[1]), texts, OPTIONS, context, whole[1] / "cache"):
        assert each.has_table and each.evaluated and each.file_exists
        assert each.measured == each.planned >= 2
    for each in running.run_status(targets(model, tmp_path), texts, OPTIONS, context, tmp_path / "cache"):
        assert each == RunStatus(each.target)
    assert not (tmp_path / "cache").exists()


# -- going on after kill -9

KILLED = """
import json, os, pickle, signal, sys
from pathlib import Path
from quantplan.build import build
from quantplan.evaluate import baselines
from quantplan.records.journal import Journal
from quantplan.run.run import run
baselines.published_ftypes = lambda: ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")
log, last = Path(sys.argv[1]), int(sys.argv[2])
done = 0
def note(what):
    global done
    with log.open("a") as file:
        file.write(json.dumps(what) + "\\n")
    done += 1
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)
put, quantize = Journal.put, build.tool.quantize
def noting(self, key, value):
    put(self, key, value)
    note([self.path.name, key])
def building(*arguments, **options):
    quantize(*arguments, **options)
    note(["llama-quantize", ""])  # killed here, before the file is renamed
Journal.put, build.tool.quantize = noting, building
targets, texts, options, context, cache = pickle.loads(sys.stdin.buffer.read())
found = run(targets, texts, options, context, cache)
print(json.dumps([[each.reason, {n: k.name for n, k in each.plan.types.items()}, each.measurement.kld.value] for each in found]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_again_and_again_it_comes_to_the_same_end_and_measures_nothing_twice(whole, model, texts, tmp_path):
    import pickle

    context = BuildContext(model, tmp_path / "builds", None, 1)
    given = pickle.dumps((targets(model, tmp_path), texts, OPTIONS, context, tmp_path / "cache"))
    log, ended, kills = tmp_path / "log", None, 0
    for last in (12, 20, 12, 6, 4, 3, 5, 10**9):
        command = [sys.executable, "-c", KILLED, str(log), str(last)]
        ended = subprocess.run(command, input=given, cwd=ROOT, capture_output=True, check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
        kills += 1
    assert ended.returncode == 0 and kills >= 6
    straight = [[e.reason, {n: k.name for n, k in e.plan.types.items()}, e.measurement.kld.value] for e in whole[0]]
    assert json.loads(ended.stdout) == straight
    lines = Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())
    built = lines.pop(("llama-quantize", ""))
    assert {key for (_, key), times in lines.items() if times > 1} <= {"#available"}  # how many windows the text has
    assert set(lines) == set(whole[2])
    files = len([key for name, key in whole[2] if name.startswith("trial")])
    assert built <= files + kills
    assert not list((tmp_path / "builds").glob("*")), "not even halves of killed builds are left"


# -- the guard


def rigged(measured):
    """Sensitivities turned upside down: the types that lose most are the cheapest."""

    def wrong(*arguments, **options):
        table = measured(*arguments, **options)
        rows = {}
        for name, row in table.rows.items():
            kinds = sorted(row.weights, key=lambda kind: row.weights[kind])
            values = sorted(row.weights.values(), reverse=True)
            rows[name] = replace(row, weights=dict(zip(kinds, values, strict=True)), kernel={})
        return replace(table, rows=rows)

    return wrong


def test_a_plan_from_a_wrong_table_is_not_kept(whole, model, texts, tmp_path, monkeypatch):

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    monkeypatch.setattr(running, "sensitivities", rigged(running.sensitivities))
    (one,) = carry_out(model, texts, tmp_path, budgets=("Q4_K_M",))
    assert one.is_stock_quant and one.kept == "Q4_K_M"
    assert one.reason == "the plan is not significantly better than Q4_K_M on the validation text: keeping Q4_K_M"
    assert "WORSE than Q4_K_M" in one.comparison.verdict
    built = read_model(one.target.file)
    assert {t.name: t.type for t in built.tensors} == stock_plan(model, "Q4_K_M").types
    assert built.metadata["general.file_type"] == 15  # as llama-quantize makes it without rules

    monkeypatch.setattr(refine, "significantly_better", lambda *_: True)
    (two,) = carry_out(model, texts, tmp_path, replace(OPTIONS, refine=False), ("Q4_K_M",))
    assert two.is_stock_quant and two.reason == "the plan is worse than Q4_K_M on the evaluation text: keeping Q4_K_M"


def test_a_refinement_that_the_evaluation_text_refutes_is_withdrawn(whole, model, texts, tmp_path, monkeypatch):
    """The refined plan of an inverted table counts; were it worse where it is judged, the plan before would stand."""

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    monkeypatch.setattr(running, "sensitivities", rigged(running.sensitivities))
    monkeypatch.setattr(refine, "significantly_better", lambda *_: True)
    (one,) = carry_out(model, texts, tmp_path, budgets=("Q4_K_M",))
    assert (
        one.refinement.counts
        and one.gain.ratio < 1
        and one.before.kld.value > one.comparison.rows[0].measurement.kld.value
    )
    honest = trying.Evaluator.measurement

    def refuted(self, each):
        found = honest(self, each)
        worse = "refined" in each.name and self.text == texts.evaluation
        return replace(found, kld=replace(found.kld, value=10 * found.kld.value)) if worse else found

    monkeypatch.setattr(trying.Evaluator, "measurement", refuted)
    (two,) = carry_out(model, texts, tmp_path, budgets=("Q4_K_M",))
    assert two.refinement.withdrawn and not two.refinement.counts and two.gain is None
    assert two.comparison.rows[0].name == two.target.name


def test_below_all_stock_quants_there_is_no_fallback(whole, model, texts, tmp_path):

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    (one,) = carry_out(model, texts, tmp_path, replace(OPTIONS, refine=False), ("3bpw",))
    assert not one.is_stock_quant and one.reason == "no stock quant is within the limits"
    assert [row.name for row in one.comparison.rows] == [one.target.name, "Q2_K"]
    assert one.comparison.rows[1].larger


# -- the disk


def test_a_full_disk_takes_the_files_one_after_the_other(whole, model, texts, tmp_path, monkeypatch):
    """Room for one file and a half: each is built, measured and removed before the next."""

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    for journal in (tmp_path / "cache").glob("trial-*"):
        journal.unlink()
    for journal in (tmp_path / "cache").glob("measure-*"):
        journal.unlink()
    largest = max(target.budget_bytes for target in targets(model, tmp_path))
    room, most = int(1.5 * largest), []

    def used():
        return sum(path.stat().st_size for path in (tmp_path / "builds").glob("*.gguf"))

    def disk_usage(_folder):
        most.append(used())
        return SimpleNamespace(free=room - used() + trying.SPARE_BYTES)

    monkeypatch.setattr(trying.shutil, "disk_usage", disk_usage)
    found = carry_out(model, texts, tmp_path, replace(OPTIONS, refine=False))
    assert max(most) <= room and len(most) > 4
    for each, straight in zip(found, whole[0], strict=True):
        assert each.refinement.plan.plan.types == straight.refinement.plan.plan.types
        assert read_model(each.target.file)


def test_no_room_at_all_is_an_error(whole, model, texts, tmp_path, monkeypatch):

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1))
    with pytest.raises(NoSpace, match="the disk has 1 B free"):
        carry_out(model, texts, tmp_path, replace(OPTIONS, refine=False), ("5.5bpw",))


def test_keep_all_keeps_what_was_built(whole, model, texts, tmp_path):

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    (one,) = carry_out(model, texts, tmp_path, replace(OPTIONS, refine=False, keep_all=True), ("5.6bpw",))
    assert list((tmp_path / "builds").glob("*.gguf")) and one.target.file.is_file()
    assert one.target.file.parent == tmp_path


# -- other limits than a budget


def test_a_target_needs_some_limit(model, tmp_path):
    with pytest.raises(BadUsage, match="nothing limits the file"):
        RunTarget(PlanRequest(model, None, TYPES, None), "free", tmp_path / "free.gguf")


def test_a_kld_instead_of_a_budget(whole, model, texts, tmp_path):
    """The smallest file of that predicted KLD; fallbacks and refined plans are no larger."""

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    most = 1.2 * whole[0][0].plan.predicted_kld
    target = RunTarget(PlanRequest(model, None, TYPES, None, most_kld=most), "by-kld", tmp_path / "by-kld.gguf")
    (result,) = run([target], texts, OPTIONS, BuildContext(model, tmp_path / "builds", None, 1), tmp_path / "cache")
    plan = result.refinement.plan.plan
    assert plan.predicted_kld <= most * (1 + 1e-6) and plan.outcome.minimised == "bytes"
    assert all(tried.plan.file_bytes <= plan.file_bytes for tried in result.refinement.measured)
    assert read_model(target.file).file_bytes <= plan.file_bytes and target.budget_bytes is None
    assert ("above the limit" in result.reason) == (result.measurement.kld.value > most)


def test_memory_limits_plan_and_fallbacks(whole, model, texts, tmp_path):

    shutil.copytree(whole[1] / "cache", tmp_path / "cache")
    anything = Devices(None, None, 256)
    room = memory_use(stock_plan(model, "Q4_K_M").types, model, anything).vram
    request = PlanRequest(model, None, TYPES, None, devices=replace(anything, vram=room))
    target = RunTarget(request, "by-vram", tmp_path / "by-vram.gguf")
    context = BuildContext(model, tmp_path / "builds", None, 1)
    options = replace(OPTIONS, refine=False, baselines=("Q6_K",))
    (result,) = run([target], texts, options, context, tmp_path / "cache")
    assert not request.devices.exceeded(memory_use(result.plan.types, model, request.devices))
    assert [tried.name for tried in result.refinement.stock_quants] == ["Q4_K_M"]
    assert set(result.stock_quants) == {"Q4_K_M", "Q6_K"}


# -- compensated rounding


def test_a_finished_compensated_file_is_recognised(model, texts, tmp_path, monkeypatch):
    """Its header is that of the same types as llama-quantize rounds them: what was built is known by its digest."""
    monkeypatch.setattr(refine, "significantly_better", lambda *_: True)
    options = replace(OPTIONS, pricing=replace(PRICING, compensate=True), refine=False)
    context = BuildContext(model, tmp_path / "builds", None, 1, calibration=texts.calibration, cache=tmp_path / "cache")

    def go():
        return run(targets(model, tmp_path, ("4.5bpw",)), texts, options, context, tmp_path / "cache")

    (first,) = go()
    assert len(first.plan.compensated) > 10 and not first.is_stock_quant
    assert baselines.as_planned(first.target.file, first.plan, tmp_path / "cache")
    assert not baselines.as_planned(first.target.file, first.plan.with_stock_rounding(), tmp_path / "cache")
    before = first.target.file.stat().st_ino

    def none(*_arguments, **_options):
        raise AssertionError("something was done again")

    monkeypatch.setattr(trying, "measure", none)
    monkeypatch.setattr(trying, "built", none)
    (second,) = go()
    assert second.plan == first.plan and second.target.file.stat().st_ino == before
    (status,) = running.run_status(targets(model, tmp_path, ("4.5bpw",)), texts, options, context, tmp_path / "cache")
    assert status.file_exists

    monkeypatch.undo()
    with first.target.file.open("r+b") as file:  # the first bytes of a tensor
        file.seek(read_model(first.target.file).by_name[first.plan.compensated[0]].offset)
        file.write(bytes(8))
    assert not baselines.as_planned(first.target.file, first.plan, tmp_path / "cache")


def test_llama_quantizes_rounding_is_kept_where_compensation_is_not_better(model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(rounding_choice, "significantly_better", lambda *_: False)
    monkeypatch.setattr(refine, "significantly_better", lambda *_: True)
    options = replace(OPTIONS, pricing=replace(PRICING, compensate=True), refine=False)
    context = BuildContext(model, tmp_path / "builds", None, 1, calibration=texts.calibration, cache=tmp_path / "cache")
    (one,) = run(targets(model, tmp_path, ("4.5bpw",)), texts, options, context, tmp_path / "cache")
    assert one.plan.rounding is None and not one.is_stock_quant
    assert baselines.as_planned(one.target.file, one.plan, tmp_path / "cache")
