"""A candidate in memory is the candidate's file: logits to the last bit, for all families, stored types and architectures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_architectures import tiny_hybrid, tiny_listed
from tiny_models import tiny_moe

from quantplan.errors import BadFile, BadUsage, ModelMismatch
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.tools import run
from quantplan.records.cache import Cache, Plain
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.evaluations import CandidateScore, EvaluationJob, chunks_of
from quantplan.surgery.search.evaluators import CandidateEvaluator
from quantplan.surgery.search.host import FOLDER, Host, clear, frame
from quantplan.surgery.write_model import write_edited_model

N_CTX, CHUNKS = 64, 3
# one of each family, and what phases make of them; with 7 to 12 layers
EDITS = (
    "delete 3",
    "delete 7",
    "delete 2-4",
    "swap 3 4",
    "swap 1 8",
    "repeat 2-3",
    "bridge 1-2 after 5",
    "triple 5",
    "reverse 4-6",
    "cycle 4-6",
    "merge 3-4",
    "move 2 after 6",
    "bridge 2 after 6",
    "blend 3 5 0.5",
    "blend 3 5 0.3 into 4",
    "scale 3 0.9",
    "scale 3 1.1 ffn_down",
    "delete 4; swap 5 6",
    "swap 3 4; blend 3 5 0.5; scale 2 1.1",
)


def made(model, text):
    return apply_edits(model.blocks, parse_edits(text))


def job_of(model, text, folder, **more):
    return EvaluationJob(model.path, model.digest, text, N_CTX, CHUNKS, folder, execution=Execution(1), **more)


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:4000]


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


def check_same_as_files(model, edits, text, folder):
    """Readings of candidates in memory, one after the other, against measurements of their files."""
    with CandidateEvaluator(job_of(model, text, folder)) as evaluator:
        found = [evaluator.evaluate(made(model, each)) for each in edits]
        again = evaluator.evaluate(LayerMap.identity(model.blocks))
        loads = evaluator.timing.load
    assert loads > 0
    files = []
    for index, each in enumerate(edits):
        path = folder / f"{index}.gguf"
        write_edited_model(model, made(model, each), path, try_it=False)
        files.append(path)
    measured = measure(model.path, [*files, model.path], text, MeasureOptions(N_CTX, CHUNKS, execution=Execution(1)))
    for each, reading, own in zip([*edits, "original"], [*found, again], measured, strict=True):
        assert reading.nll == own.per_chunk_nll, each
        assert (reading.ppl, reading.kld) == (own.ppl, own.kld), each
    assert again.kld.value == 0
    assert len({reading.nll for reading in found}) == len(edits)
    assert list((folder / FOLDER).glob("*")) == []


def test_every_family_reads_as_its_file(model, text, tmp_path):
    check_same_as_files(model, EDITS, text, tmp_path)


@pytest.mark.llamacpp
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K_M"])
def test_so_does_every_family_of_quantized_files(model, text, tmp_path, kind):
    path = tmp_path / f"{kind}.gguf"
    run(["llama-quantize", str(model.path), str(path), kind, "1"])
    check_same_as_files(read_model(path), EDITS[::2] if kind == "Q4_0" else EDITS, text, tmp_path)


@pytest.mark.llamacpp
def test_so_do_split_files(model, text, tmp_path):
    prefix = tmp_path / "part"
    run(["llama-gguf-split", "--split", "--split-max-size", "5M", str(model.path), str(prefix)])
    first = next(tmp_path.glob("part-00001-of-*.gguf"))
    check_same_as_files(read_model(first), EDITS[:8:2], text, tmp_path)


@pytest.mark.parametrize(
    ("make", "edits"),
    [
        (tiny_moe, ("delete 1", "swap 0 2", "repeat 0-1", "blend 0 2 0.5 into 1")),
        (tiny_hybrid, ("swap 0 1", "swap 3 7", "delete 0-3", "repeat 2-5", "blend 0 2 0.5 into 1", "scale 3 0.9")),
        (tiny_listed, ("swap 0 1", "delete 1", "repeat 0-1")),
    ],
    ids=["experts", "hybrid", "listed"],
)
def test_so_do_other_architectures(make, edits, text, tmp_path):
    model = read_model(make(tmp_path / "tiny.gguf"))
    check_same_as_files(model, edits, text, tmp_path)


# -- frames and hosts


def test_candidates_of_one_frame_need_one_host(model):
    assert frame(model, made(model, "swap 3 4")) == frame(model, LayerMap.identity(10))
    assert frame(model, made(model, "delete 3")) == frame(model, made(model, "delete 8"))
    assert frame(model, made(model, "delete 3")) != frame(model, made(model, "swap 3 4"))
    assert frame(model, made(model, "repeat 2")) == frame(model, made(model, "bridge 3 after 9"))


@pytest.mark.llamacpp
def test_mixed_stored_types_are_frames_of_their_own(model, tmp_path):
    path = tmp_path / "mixed.gguf"
    run(["llama-quantize", str(model.path), str(path), "Q4_K_M", "1"])
    mixed = read_model(path)
    types = {block: mixed.by_name[f"blk.{block}.ffn_down.weight"].type for block in range(10)}
    one, other = next((a, b) for a in range(10) for b in range(a) if types[a] != types[b])
    alike, twin = next((a, b) for a in range(10) for b in range(a) if types[a] == types[b])
    assert frame(mixed, made(mixed, f"swap {one} {other}")) != frame(mixed, LayerMap.identity(10))
    assert frame(mixed, made(mixed, f"swap {alike} {twin}")) == frame(mixed, LayerMap.identity(10))


def test_only_what_differs_is_put_in(model, tmp_path, monkeypatch):
    put = []
    with Host(model, LayerMap.identity(10), EngineOptions(N_CTX, execution=Execution(1)), tmp_path) as host:
        real = host.engine.put
        monkeypatch.setattr(host.engine, "put", lambda name, data: put.append(name) or real(name, data))
        per_block = sum(tensor.block == 0 for tensor in model.tensors)
        for text, blocks in (("swap 3 4", {3, 4}), ("swap 3 5", {3, 4, 5}), ("swap 3 5; swap 3 5", {3, 5})):
            put.clear()
            assert host.become(edited_tensors(model, made(model, text)))
            assert len(put) == per_block * len(blocks)
            assert {int(name.split(".")[1]) for name in put} == blocks
    assert not (tmp_path / FOLDER).exists()  # no file for the model itself


def test_a_part_out_of_reach_leaves_the_host_as_it_is(model, tmp_path, monkeypatch):
    find = Engine.find_weights
    monkeypatch.setattr(Engine, "find_weights", lambda self, names: find(self, names) - {"blk.4.attn_norm.weight"})
    with Host(model, LayerMap.identity(10), EngineOptions(N_CTX, execution=Execution(1)), tmp_path) as host:
        monkeypatch.setattr(host.engine, "put", lambda *_: pytest.fail("nothing may change"))
        assert not host.become(edited_tensors(model, made(model, "swap 3 4")))
        monkeypatch.undo()
        assert host.become(edited_tensors(model, made(model, "swap 2 3")))


def test_such_a_candidate_is_read_from_its_own_file(model, text, tmp_path, monkeypatch):
    loaded = []
    real = Host.__init__

    def recorded(self, *arguments):
        real(self, *arguments)
        loaded.append(arguments[1])

    with CandidateEvaluator(job_of(model, text, tmp_path)) as evaluator:
        expected = [evaluator.evaluate(made(model, each)) for each in ("swap 3 4", "swap 5 6")]
    monkeypatch.setattr(Engine, "find_weights", lambda self, names: set())
    monkeypatch.setattr(Host, "__init__", recorded)
    with CandidateEvaluator(job_of(model, text, tmp_path)) as evaluator:
        found = [evaluator.evaluate(made(model, each)) for each in ("swap 3 4", "swap 5 6")]
    assert found == expected
    assert loaded == [LayerMap.identity(10), made(model, "swap 3 4"), made(model, "swap 5 6")]


def test_files_that_killed_searches_left_are_cleared(model, tmp_path):
    """A process is killed while its host's file is there; ours, that runs, keeps its own."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from quantplan.gguf.reader import read_model\nfrom quantplan.llamacpp.engine import Engine, EngineOptions\n"
        "from quantplan.surgery.apply_edits import apply_edits\nfrom quantplan.surgery.edits import parse_edits\n"
        "from quantplan.surgery.search.host import Host\n"
        "Engine.__init__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model = read_model(sys.argv[1])\n"
        "Host(model, apply_edits(10, parse_edits('delete 1')), EngineOptions(), Path(sys.argv[2]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, model.path, tmp_path], check=False)
    assert killed.returncode == -9
    (left,) = (tmp_path / FOLDER).iterdir()
    half = left.with_name(f".{left.name}.{left.name.split('-')[0]}.part")
    half.write_bytes(b"half")
    own = left.with_name(f"{os.getpid()}-0123.gguf")
    own.write_bytes(b"mine")
    clear(tmp_path)
    assert list((tmp_path / FOLDER).iterdir()) == [own]
    clear(tmp_path / "nothing there")


# -- readings


def test_scores_survive_their_cache(model, text, tmp_path):
    with CandidateEvaluator(job_of(model, text, tmp_path)) as evaluator:
        scores = {"made": evaluator.evaluate(made(model, "delete 3")), "broken": CandidateScore(None, None)}
    cache = Cache(Plain(CandidateScore), tmp_path, "scores")
    for name, score in scores.items():
        cache.put(name, score)
    again = Cache(Plain(CandidateScore), tmp_path, "scores")
    assert {name: again[name] for name in again} == scores


def test_a_map_whose_logits_are_no_numbers_is_said_so(model, text, tmp_path):
    with CandidateEvaluator(job_of(model, text, tmp_path)) as evaluator:
        assert evaluator.evaluate(made(model, "scale 0-9 1e30")) == CandidateScore(None, None)
        assert evaluator.evaluate(LayerMap.identity(10)).kld.value == 0


def test_chunks_by_text_and_memory(model, text):
    there = chunks_of(model, text, N_CTX, 10_000)
    assert CHUNKS < there < 100
    assert chunks_of(model, text, N_CTX, 5) == 5
    assert chunks_of(model, text, N_CTX, None) == there  # fewer than 8192 tokens
    with pytest.raises(BadUsage, match="use --chunks 2, or fewer --jobs"):
        chunks_of(model, text, N_CTX, 10_000, jobs=1 << 40)


def test_another_model_under_the_path_is_refused(model, text, tmp_path):
    job = EvaluationJob(model.path, "another", text, N_CTX, CHUNKS, tmp_path)
    with pytest.raises(ModelMismatch, match="another model"):
        CandidateEvaluator(job)


def test_a_damaged_model_says_so(model, text, tmp_path):
    path = tmp_path / "damaged.gguf"
    data = bytearray(Path(model.path).read_bytes())
    tensor = model.by_name["output_norm.weight"]
    data[tensor.offset : tensor.offset + tensor.bytes] = np.full(tensor.elements, np.nan, np.float32).tobytes()
    path.write_bytes(data)
    with pytest.raises(BadFile, match="damaged"):
        CandidateEvaluator(job_of(read_model(path), text, tmp_path))
