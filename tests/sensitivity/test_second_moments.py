"""Second moments: the sums against plain numpy, the diagonal against llama-imatrix, passes, resuming, and bad input."""

import math
from itertools import pairwise

import numpy as np
import pytest
from tiny_architectures import PLAIN, tiny_lite
from tiny_models import EXPERTS, EXPERTS_USED, HEADS, UNREACHABLE, WIDTH, tiny_moe, tiny_tied

from quantplan.errors import BadFile, ModelMismatch, NoSpace, NothingSelected, QuantplanError, TextTooShort
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.nodes import node_op, node_rows, node_values
from quantplan.llamacpp.tools import run
from quantplan.second_moments import (
    SecondMoments,
    output_energy,
    relative_error,
    shrunk_to_diagonal,
    shrunk_to_mean,
)
from quantplan.sensitivity import second_moments
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.moment_files import read_sums, sums_bytes, sums_path, write_sums
from quantplan.sensitivity.moment_pass import MomentSums
from quantplan.sensitivity.second_moments import MomentOptions, chunks_needed, collect, moments_folder, passes

N_CTX, CHUNKS = 64, 4
OPTIONS = MomentOptions(n_ctx=N_CTX, chunks=CHUNKS, spread=False, execution=Execution(threads=1))


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:3000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("moments")


@pytest.fixture(scope="module")
def tied(folder):
    return read_model(tiny_tied(folder / "tied.gguf"))


@pytest.fixture(scope="module")
def moe(folder):
    return read_model(tiny_moe(folder / "moe.gguf"))


@pytest.fixture(scope="module")
def lite(folder):
    return read_model(tiny_lite(folder / "lite.gguf"))


def within(memory):
    """The options with so many bytes for sums."""
    return MomentOptions(**(vars(OPTIONS) | {"execution": Execution(threads=1, memory=memory)}))


def matrices(model):
    return [each for each in model.tensors if len(each.shape) > 1 and not each.name.endswith("gate_inp.weight")]


def collected(model, text, folder, **changes):
    return collect(model, matrices(model), text, MomentOptions(**(vars(OPTIONS) | changes)), folder / "cache")


@pytest.fixture(scope="module")
def of_tied(tied, text, folder):
    return collected(tied, text, folder)


@pytest.fixture(scope="module")
def of_moe(moe, text, folder):
    return collected(moe, text, folder)


def products(model, text, names):
    """All nodes that multiply with the named weights: {name: [(operation, inputs, ids)]}, read without quantplan's collector."""
    seen = {}

    def watch(node, ask):
        name = node.src[0].contents.name.decode() if node.src[0] else ""
        if name not in names or node_op(node) not in ("MUL_MAT", "MUL_MAT_ID"):
            return False
        if not ask:
            ids = node_values(node.src[2].contents)[0, 0].copy() if node.src[2] else None
            seen.setdefault(name, []).append((node_values(node.src[1].contents)[0].copy(), ids))
        return True

    with Engine(model.path, EngineOptions(N_CTX, execution=Execution(threads=1))) as engine:
        context = engine.new_context(N_CTX, 1, watch)
        for chunk in engine.chunks(text)[:CHUNKS]:
            engine.forward(context, chunk[None])
        engine.free_context(context)
    return seen


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


# --- the sums


def test_sums_are_those_of_numpy(tied, text, of_tied):
    names = ["blk.0.attn_k.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight", "token_embd.weight"]
    for name, uses in products(tied, text, names).items():
        rows = np.concatenate([inputs.reshape(-1, inputs.shape[-1]) for inputs, _ in uses]).astype(np.float64)
        moments = of_tied.of(name, shrink=False)
        assert len(rows) == moments.tokens == N_CTX * CHUNKS, "all positions count, in the last block too"
        assert moments.expert is None and moments.matrix.dtype == np.float32
        close(moments.matrix, rows.T @ rows / len(rows))
        assert np.array_equal(moments.matrix, moments.matrix.T)


def test_matrices_that_share_an_input_share_its_moments(of_tied):
    shared = [each.tensors for each in of_tied.inputs]
    block = [(f"blk.{block}.attn_{q}.weight" for q in "qkv") for block in range(2)]
    assert {frozenset(names) for names in block} <= {frozenset(names) for names in shared}
    assert ("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight") in shared
    assert len(shared) == 2 * 4 + 1 and shared[-1] == ("token_embd.weight",)
    assert sorted(of_tied.tensors) == sorted(name for names in shared for name in names)


def test_experts_by_the_routes_of_the_graph(moe, text, of_moe):
    for name in ("blk.2.ffn_up_exps.weight", "blk.2.ffn_down_exps.weight"):
        rows = [[] for _ in range(EXPERTS)]
        for inputs, ids in products(moe, text, [name])[name]:
            for token, row in enumerate(ids):
                for slot, expert in enumerate(row):
                    rows[expert].append(inputs[token, slot % inputs.shape[1]])
        assert of_moe.tokens(name).tolist() == [len(each) for each in rows]
        assert of_moe.tokens(name).sum() == N_CTX * CHUNKS * EXPERTS_USED
        expert = int(np.argmax(of_moe.tokens(name)))
        moments = of_moe.of(name, expert, shrink=False)
        assert moments.expert == expert and moments.routed
        x = np.array(rows[expert], np.float64)
        close(moments.matrix, x.T @ x / len(x))


def test_heads_of_latent_attention_one_by_one(lite, text, folder):
    moments = collect(lite, [lite.by_name["blk.3.attn_k_b.weight"]], text, OPTIONS, folder / "cache")
    inputs = products(lite, text, ["blk.3.attn_k_b.weight"])["blk.3.attn_k_b.weight"]
    assert moments.input_of("blk.3.attn_k_b.weight").stack == HEADS
    for head in range(HEADS):
        x = np.concatenate([values[head] for values, _ in inputs]).astype(np.float64)
        found = moments.of("blk.3.attn_k_b.weight", head, shrink=False)
        assert found.matrix.shape == (PLAIN, PLAIN) and found.tokens == len(x) and not found.routed
        close(found.matrix, x.T @ x / len(x))


def test_sums_are_taken_in_place():
    sums, rows = MomentSums(300), np.random.default_rng(0).standard_normal((700, 300)).astype(np.float32)
    before = sums.lower.ctypes.data
    for part in (rows[:40], rows[40:90], rows[90:]):
        sums.add(part)
    sums.flush()
    assert sums.lower.ctypes.data == before and sums.tokens == 700
    close(np.tril(sums.lower), np.tril(rows.T.astype(float) @ rows))


def test_every_layout_of_a_node_is_read(lite, text):
    """The inputs of attn_k_b are permuted: [heads, tokens] in the graph, [tokens, heads] in memory."""
    contiguous = []

    def watch(node, ask):
        if not node.src[0] or node.src[0].contents.name != b"blk.3.attn_k_b.weight":
            return False
        if not ask:
            source = node.src[1].contents
            contiguous.append(all(big >= small for small, big in pairwise(list(source.nb))))
            assert np.array_equal(node_rows(source), node_values(source).reshape(-1, source.ne[0]))
        return True

    with Engine(lite.path, EngineOptions(N_CTX, execution=Execution(threads=1)), watch) as engine:
        next(engine.logits(engine.chunks(text)[:1]))
    assert contiguous == [False]


# --- the imatrix


@pytest.mark.llamacpp
def test_the_diagonal_is_the_imatrix(reference_model, calibration_text, reference_imatrix, tmp_path):
    model, theirs = read_model(reference_model), read_imatrix(reference_imatrix)
    options = MomentOptions(n_ctx=256, chunks=20, spread=False, execution=Execution(threads=1))
    text = calibration_text.read_text(encoding="utf-8")
    ours = collect(model, matrices(model)[:3], text, options, tmp_path).imatrix(theirs.datasets[0])
    same_imatrix(ours, theirs)
    write_imatrix(ours, tmp_path / "ours.gguf")
    same_imatrix(read_imatrix(tmp_path / "ours.gguf"), theirs)


@pytest.mark.llamacpp
@pytest.mark.parametrize("architecture", ["moe", "lite"])
def test_the_imatrix_of_stacked_matrices(architecture, text, folder, tmp_path, request):
    model = request.getfixturevalue(architecture)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    command = ["llama-imatrix", "-m", model.path, "-f", tmp_path / "text.txt", "-o", tmp_path / "theirs.gguf"]
    command += ["-c", N_CTX, "--chunks", CHUNKS, "--process-output", "--no-ppl", "-t", "1"]
    run([str(word) for word in command])
    theirs = read_imatrix(tmp_path / "theirs.gguf")
    same_imatrix(collect(model, [], text, OPTIONS, tmp_path).imatrix(theirs.datasets[0]), theirs)


def same_imatrix(ours, theirs):
    assert list(ours.entries) == list(theirs.entries)
    assert (ours.datasets, ours.chunk_count, ours.chunk_size) == (
        theirs.datasets,
        theirs.chunk_count,
        theirs.chunk_size,
    )
    for name, entry in theirs.entries.items():
        assert np.array_equal(ours.entries[name].counts, entry.counts), name
        assert ours.entries[name].sum2.shape == entry.sum2.shape, name
        np.testing.assert_allclose(ours.entries[name].sum2, entry.sum2, rtol=1e-4, atol=1e-6 * entry.sum2.max())


# --- passes


def test_little_memory_means_more_passes_and_the_same_sums(tied, text, of_tied, tmp_path, monkeypatch):
    runs, asked, watched = [], [], second_moments.MomentPass.watch

    class Counting(second_moments.MomentPass):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            runs.append(self)

        def watch(self, node, ask):
            asked.append((len(runs), node.name.decode()))
            return watched(self, node, ask)

    monkeypatch.setattr(second_moments, "MomentPass", Counting)
    largest = 4 * 288 * 288
    progress = []
    options = within(2 * largest * 5 // 4)
    ours = collect(tied, matrices(tied), text, options, tmp_path, progress.append)
    assert len(runs) == 5 and sum(progress) == pytest.approx(1)
    assert {run for run, name in asked if name == "result_norm"} == {5}, "earlier passes end earlier"
    assert {run for run, name in asked if name == "attn_norm-1"} == {3, 4, 5}
    assert not any(name == "result_output" for _, name in asked), "the output's product is spared"
    for name in ours.tensors:
        close(ours.of(name, shrink=False).matrix, of_tied.of(name, shrink=False).matrix)


def test_experts_are_shared_out_among_passes(moe, text, of_moe, tmp_path, monkeypatch):
    asked, watched, reports = set(), second_moments.MomentPass.watch, []

    def watch(self, node, ask):
        asked.add((len(reports), node.name.decode()))
        return watched(self, node, ask)

    monkeypatch.setattr(second_moments.MomentPass, "watch", watch)
    options = within(6 * 4 * WIDTH**2 * 5 // 4)  # of 18 sums a block
    ours = collect(moe, matrices(moe), text, options, tmp_path, reports.append)
    assert len(reports) == 10 and sum(reports) == pytest.approx(1)
    assert (0, "ffn_moe_gate-0") in asked and (0, "ffn_moe_swiglu-0") not in asked, "the pass ends at its last expert"
    for name in ("blk.0.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight", "output.weight"):
        assert np.array_equal(ours.tokens(name), of_moe.tokens(name))
        for expert in range(ours.input_of(name).stack):
            close(ours.of(name, expert, shrink=False).matrix, of_moe.of(name, expert, shrink=False).matrix)


def test_a_pass_ends_the_graph_at_its_last_input(tied, text, tmp_path, monkeypatch):
    asked = []
    watched = second_moments.MomentPass.watch

    def watch(self, node, ask):
        asked.append(node.name.decode())
        return watched(self, node, ask)

    monkeypatch.setattr(second_moments.MomentPass, "watch", watch)
    first = second_moments.read_graph
    monkeypatch.setattr(second_moments, "read_graph", lambda *arguments: one_input(first(*arguments)))
    collect(tied, matrices(tied), text, OPTIONS, tmp_path)
    assert "attn_norm-0" in asked and "Qcur-0" not in asked


def one_input(graph):
    """The graph as if it had no other input than the first."""
    return second_moments.Graph(graph.inputs[:1], graph.stop_at, graph.stop_after, graph.first_node)


def test_chunks_that_would_do(tied):
    assert chunks_needed(matrices(tied), 512) == 9  # 288 columns, 4608 tokens


def test_passes_are_consecutive_and_fit():
    sums = [second_moments.Sum(number, 0, 100, True) for number in range(5)]
    planned = passes(sums, (), 2 * 40_000 * 5 // 4)
    assert [[each.number for each in batch] for batch in planned] == [[0, 1], [2, 3], [4]]


def test_interrupted_work_is_resumed_at_the_last_finished_pass(tied, text, of_tied, tmp_path):
    options = within(4 * 288 * 288 * 5 // 4)
    passes_of_all = len(of_tied.inputs)

    shares = []

    def interrupt(share):
        shares.append(share)
        if sum(shares) > 3.001 / passes_of_all:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(tied, matrices(tied), text, options, tmp_path, interrupt)
    kept = sorted(moments_folder(tied, text, options, tmp_path).glob("*.moments"))
    assert len(kept) == 3 and not list(tmp_path.rglob("*.part"))
    half = kept[0].with_name(".0004-0000.moments.999999999.part")  # as kill -9 leaves it
    half.write_bytes(b"half a sum")
    times, shares = [path.stat().st_mtime_ns for path in kept], []
    ours = collect(tied, matrices(tied), text, options, tmp_path, shares.append)
    assert min(shares) == pytest.approx(shares[0]) and sum(shares) == pytest.approx(1)
    assert len(shares) == passes_of_all - 3, "only what is missing is summed"
    assert [path.stat().st_mtime_ns for path in kept] == times and not half.exists()
    close(ours.of("token_embd.weight", shrink=False).matrix, of_tied.of("token_embd.weight", shrink=False).matrix)


def test_finished_work_loads_no_model(tied, text, of_tied, folder, monkeypatch):
    monkeypatch.setattr(second_moments, "Engine", None)
    assert collected(tied, text, folder).folder == of_tied.folder


def test_what_changes_the_sums_changes_the_folder(tied, moe, text, tmp_path):
    other = [
        vars(OPTIONS) | change
        for change in ({"n_ctx": 32}, {"chunks": 3}, {"spread": True}, {"execution": Execution(gpu_layers=9)})
    ]
    folders = {moments_folder(tied, text, MomentOptions(**each), tmp_path) for each in other}
    folders |= {moments_folder(moe, text, OPTIONS, tmp_path), moments_folder(tied, text + "x", OPTIONS, tmp_path)}
    same = moments_folder(
        tied, text, MomentOptions(**(vars(OPTIONS) | {"execution": Execution(threads=2, memory=1)})), tmp_path
    )
    assert len(folders) == 6 and same == moments_folder(tied, text, OPTIONS, tmp_path) not in folders


@pytest.mark.llamacpp
def test_a_server_gives_the_same_sums(tied, text, of_tied, tmp_path):
    from rpc_server import rpc_server

    with rpc_server() as server:
        ours = collected(tied, text, tmp_path, execution=Execution(threads=1, rpc=(server.address,)))
    assert ours.tensors == of_tied.tensors
    for name in ours.tensors:
        assert np.array_equal(ours.tokens(name), of_tied.tokens(name))
        close(ours.of(name, shrink=False).matrix, of_tied.of(name, shrink=False).matrix)


# --- little text


def correlated(columns, tokens, seed):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((columns, columns)) * np.linspace(2, 0.1, columns)
    x = random.standard_normal((tokens, columns)) @ mixing.T
    return (x.T @ x / tokens).astype(np.float32), (mixing @ mixing.T).astype(np.float32)


def feedback_error(matrix, truth):
    """What is left when each column's error is fed into the others through the inverse of ``matrix``, as GPTQ does."""
    inverse = np.linalg.inv(matrix + 0.01 * matrix.diagonal().mean() * np.eye(len(matrix)))
    feedback = inverse / inverse.diagonal()
    return float(np.einsum("ij,ik,kj->j", feedback, truth, feedback).sum() / truth.trace())


def test_with_little_text_shrinking_serves_other_text_better(reference_model, calibration_text, tmp_path):
    """Real activations: tokens of a text are no independent draws from a normal distribution."""
    model, text = read_model(reference_model), calibration_text.read_text(encoding="utf-8")
    names = ["blk.5.attn_output.weight", "blk.8.ffn_up.weight", "blk.9.ffn_down.weight"]
    tensors = [model.by_name[name] for name in names]
    little = collect(model, tensors, text[:9000], MomentOptions(128, 3, execution=Execution(threads=1)), tmp_path)
    other = collect(model, tensors, text[20000:60000], MomentOptions(128, 16, execution=Execution(threads=1)), tmp_path)
    for name in names:
        truth = other.of(name, shrink=False).matrix
        plain, shrunk = little.of(name, shrink=False), little.of(name)
        assert np.array_equal(shrunk.diagonal, plain.diagonal) and 0.1 < shrunk.shrinkage < 1
        assert feedback_error(shrunk.matrix, truth) < 0.95 * feedback_error(plain.matrix, truth)
        assert feedback_error(shrunk.matrix, truth) < feedback_error(np.diag(plain.diagonal), truth)
        assert f"384 tokens for {plain.columns} columns" in shrunk.notes()[0]


def test_much_text_is_hardly_shrunk():
    matrix, _ = correlated(20, 100_000, seed=1)
    moments = shrunk_to_diagonal(SecondMoments(("a",), matrix.copy(), 100_000))
    assert moments.shrinkage < 0.01 and moments.notes() == [] and moments.usable


def test_uncorrelated_inputs_are_shrunk_to_the_diagonal_alone():
    x = np.random.default_rng(0).standard_normal((50, 200))
    moments = SecondMoments(("a",), (x.T @ x / 50).astype(np.float32), 50)
    assert shrunk_to_diagonal(moments).shrinkage > 0.9


def test_experts_with_few_tokens_are_shrunk_to_the_mean():
    few, truth = correlated(100, 30, seed=1)
    weights = []
    for tokens in (0, 30, 3000):
        moments = SecondMoments(("a",), few.copy(), tokens, expert=1, routed=True)
        shrunk = shrunk_to_mean(moments, truth)
        weights.append(shrunk.shrinkage)
        close(shrunk.matrix, few * (1 - shrunk.shrinkage) + truth * shrunk.shrinkage)
    assert weights[0] == 1 and weights[0] > weights[1] > weights[2] > 0


def test_experts_that_no_token_reached_are_left_to_ggml(of_moe):
    name = "blk.2.ffn_down_exps.weight"
    unseen, seen = of_moe.of(name, UNREACHABLE), of_moe.of(name, int(np.argmax(of_moe.tokens(name))))
    assert unseen.tokens == 0 and not unseen.usable and unseen.shrinkage == 1 and unseen.matrix.any()
    assert seen.usable and 0 < seen.shrinkage < 1
    assert "left to ggml's encoder" in unseen.notes()[0] and "left to ggml's encoder" in " ".join(of_moe.notes())
    again = CollectedMoments(of_moe.folder).of(name, UNREACHABLE)
    assert np.array_equal(again.matrix, unseen.matrix)


def test_little_text_is_told(of_tied):
    (note,) = of_tied.notes()
    assert f"{N_CTX * CHUNKS} tokens for 288 columns, 4,608 would do" in note and "ffn_down" in note


def test_dead_columns_are_flagged(tied, text, tmp_path):
    model = read_model(changed(tied, tmp_path / "dead.gguf", "blk.0.attn_norm.weight", 7, 0.0))
    moments = collected(model, text, tmp_path).of("blk.0.attn_q.weight")
    assert np.flatnonzero(moments.dead).tolist() == [7]
    assert f"1 of {WIDTH} inputs are zero" in moments.notes()[-1]


# --- bad input


def changed(model, path, name, index, value):
    """A copy of the model file with one float32 replaced."""
    data = bytearray(model.path.read_bytes())
    offset = model.by_name[name].offset + 4 * index
    data[offset : offset + 4] = np.float32(value).tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_not_finite(value, tied, text, tmp_path):
    model = read_model(changed(tied, tmp_path / "bad.gguf", "blk.1.ffn_norm.weight", 5, value))
    with pytest.raises(QuantplanError, match=r"inputs of blk\.1\.ffn_gate\.weight are NaN or infinite.*column 5"):
        collected(model, text, tmp_path)
    assert not list(tmp_path.rglob("*.moments")) and not list(tmp_path.rglob("*.part"))


def test_moments_of_another_model_or_text(tied, moe, text, of_tied):
    of_tied.check_belongs_to(tied)
    with pytest.raises(ModelMismatch, match=r"another model than moe\.gguf"):
        of_tied.check_belongs_to(moe)
    with pytest.raises(ModelMismatch, match="another calibration text"):
        of_tied.check_belongs_to(tied, "0" * 64)


def test_memory_that_cannot_hold_one_input(tied, text, tmp_path):
    with pytest.raises(QuantplanError, match=r"blk\.0\.ffn_down\.weight \(288 columns\) need 414,720 bytes") as error:
        collect(tied, matrices(tied), text, within(400_000), tmp_path)
    assert "--memory" in str(error.value)
    collect(tied, matrices(tied), text, within(414_720), tmp_path)


def test_a_full_disk_is_noticed_before_the_work(tied, text, tmp_path, monkeypatch):
    monkeypatch.setattr(second_moments.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    with pytest.raises(NoSpace, match="1,000 free"):
        collected(tied, text, tmp_path)


def test_too_short_a_text(tied, tmp_path):
    with pytest.raises(TextTooShort):
        collected(tied, "a few words", tmp_path)


def test_what_was_not_collected(moe, text, of_moe):
    with pytest.raises(NothingSelected, match="only the diagonal"):
        of_moe.of("blk.0.ffn_gate_inp.weight")
    with pytest.raises(NothingSelected, match="nothing is multiplied with it"):
        of_moe.of("blk.0.attn_norm.weight")
    assert of_moe.diagonal("blk.0.ffn_gate_inp.weight").shape == (1, WIDTH)


@pytest.mark.parametrize("columns", [1, 256, 257, 700])
def test_files_keep_every_value(columns, tmp_path):
    x = np.random.default_rng(0).standard_normal((30, columns)).astype(np.float32)
    full = x.T @ x
    full = np.tril(full) + np.tril(full, -1).T
    path = sums_path(tmp_path, 3, 12, True)
    write_sums(path, 30, full.diagonal(), np.tril(full))
    stored = read_sums(path)
    assert np.array_equal(stored.matrix, full) and np.array_equal(stored.diagonal, full.diagonal())
    assert stored.tokens == 30 and path.stat().st_size == sums_bytes(columns)
    assert read_sums(path, diagonal_only=True).matrix is None


def test_damaged_files_are_refused(tmp_path):
    path = sums_path(tmp_path, 0, 0, True)
    write_sums(path, 30, np.ones(300, np.float32), np.eye(300, dtype=np.float32))
    data = path.read_bytes()
    for broken in (data[:10], data[:-4], data[:5000] + b"x" + data[5001:], b"GGUF" + data[4:]):
        path.write_bytes(broken)
        with pytest.raises(BadFile, match=r"0000-0000\.moments"):
            read_sums(path)


# --- the metric


def test_relative_error_is_the_trace():
    random = np.random.default_rng(0)
    moments, _ = correlated(50, 500, seed=2)
    weights = random.standard_normal((90, 50)).astype(np.float32)
    difference = (weights * 0.01 * random.standard_normal((90, 50))).astype(np.float32)
    d, h, w = (each.astype(np.float64) for each in (difference, moments, weights))
    exact = np.trace(d @ h @ d.T) / np.trace(w @ h @ w.T)
    assert relative_error(difference, moments, weights) == pytest.approx(exact, rel=1e-5)


def test_relative_error_in_panels(monkeypatch):
    moments, _ = correlated(50, 500, seed=2)
    rows = np.random.default_rng(0).standard_normal((101, 50)).astype(np.float32)
    whole = output_energy(rows, moments)
    monkeypatch.setattr("quantplan.second_moments._PANEL_BYTES", 4 * 50 * 10)
    assert output_energy(rows, moments) == pytest.approx(whole, rel=1e-6)


def test_relative_error_of_zero_matrices():
    zero, one, moments = np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32), np.eye(4, dtype=np.float32)
    assert relative_error(zero, moments, zero) == 0
    assert relative_error(one, moments, zero) == math.inf
