"""Files of operated models: what is copied, what is written anew, what llama.cpp makes of them, and what is left of failures."""

import errno
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from reporters import Recorder
from tiny_architectures import tiny_dense_lead, tiny_hybrid, tiny_listed, tiny_sliding
from tiny_models import tiny_moe, tiny_tied

from quantplan.errors import BadFile, BadUsage, NoSpace, NotAsPlanned
from quantplan.execution import Execution
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import number_arrays, read_model, tensor_bytes
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.tools import run
from quantplan.surgery import write_model
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.encode_tensors import tensor_data
from quantplan.surgery.operation import operate
from quantplan.surgery.write_model import write_edited_model
from quantplan.surgery.write_shards import write_shards
from quantplan.tensor import padded

CHUNK = 32
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def made(model, text):
    return apply_edits(model.blocks, parse_edits(text))


def operated(model, text, out, **options):
    return write_edited_model(model, made(model, text), out, threads=1, **options)


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


@pytest.fixture(scope="module")
def quantized(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("quantized") / "q4.gguf"
    run(["llama-quantize", str(model.path), str(path), "Q4_K_M", "1"])
    return read_model(path)


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("shards") / "part"
    run(["llama-gguf-split", "--split", "--split-max-size", "5M", str(model.path), str(prefix)])
    return read_model(next(prefix.parent.glob("part-00001-of-*.gguf")))


def logits(path, put=()):
    """float32 [window, position, token]; ``put``: (name, bytes) pairs put into the loaded model before."""
    with Engine(path, EngineOptions(n_ctx=CHUNK, execution=Execution(1), swappable=bool(put))) as engine:
        chunks = (np.arange(2 * CHUNK) * 37 % engine.vocabulary).astype(np.int32).reshape(2, CHUNK)
        if put:
            assert engine.find_weights({name for name, _ in put}) == {name for name, _ in put}
        for name, data in put:
            engine.put(name, data)
        return np.concatenate([batch.copy() for batch in engine.logits(chunks)])


# --- copies


SMALL = {
    "tied": (tiny_tied, "swap 0 1"),
    "moe": (tiny_moe, "swap 0 2"),
    "hybrid": (tiny_hybrid, "swap 0 4, 3 7"),
    "sliding, by an array": (
        lambda path: tiny_sliding(path, sliding=[True, False, True, True, False, True]),
        "swap 0 1",
    ),
    "listed, by an array": (tiny_listed, "swap 2 3"),
    "dense in front": (tiny_dense_lead, "swap 3 4"),
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def swapped_twice(model, text, folder, **options):
    once = operated(model, text, folder / "once.gguf", **options)
    operated(once, text, folder / "twice.gguf", **options)
    return once.path.read_bytes(), (folder / "twice.gguf").read_bytes()


@pytest.mark.parametrize("name", SMALL)
def test_a_swap_done_twice_is_the_original_file(name, tmp_path):
    build, text = SMALL[name]
    path = build(tmp_path / "model.gguf")
    once, twice = swapped_twice(read_model(path), text, tmp_path)
    assert twice == path.read_bytes() != once


@pytest.mark.parametrize("name", ["moe", "listed, by an array"])
def test_a_swap_done_twice_in_a_quantized_file(name, tmp_path):
    build, text = SMALL[name]
    path = tmp_path / "quantized.gguf"
    run(["llama-quantize", str(build(tmp_path / "model.gguf")), str(path), "Q4_K_M", "1"])
    once, twice = swapped_twice(read_model(path), text, tmp_path)
    assert twice == path.read_bytes() != once


def test_a_swap_done_twice_where_the_blocks_are_stored_differently(quantized, tmp_path):
    """Q4_K_M gives ffn_down of some blocks Q6_K: offsets behind them move, and move back."""
    down = {tensor.block: tensor.type.name for tensor in quantized.tensors if tensor.role == "ffn_down"}
    other = next(block for block, kind in down.items() if kind != down[0])
    once, twice = swapped_twice(quantized, f"swap 0 {other}", tmp_path)
    assert twice == quantized.path.read_bytes() != once


def test_a_file_that_ends_with_its_last_weight(tmp_path):
    """Some writers do not pad the end. llama.cpp refuses a tensor that it has no use for, so this file is not run."""
    path = odd_end(tmp_path)
    once, twice = swapped_twice(read_model(path), "swap 0 1", tmp_path, try_it=False)
    assert twice == path.read_bytes() != once


def odd_end(folder):
    """tiny_tied with a vector of 7 numbers behind everything, unpadded."""
    whole = tiny_tied(folder / "plain.gguf")
    layout = read_layout(whole)
    data = whole.read_bytes()[len(layout.header) :]
    sizes = [tensor.bytes for tensor in read_model(whole).tensors]
    extra = replace(layout.tensors[-1], name="position_scale.weight", dims=(7,), type=0)
    longer = layout.with_tensors([*zip(layout.tensors, sizes, strict=True), (extra, 28)])
    path = folder / "unpadded.gguf"
    path.write_bytes(longer.header + data + bytes(28))
    return path


def test_an_older_version_and_another_alignment(model, tmp_path):
    """What the source has, the result has: version 2, tensors at multiples of 64."""
    layout = read_layout(model.path)
    layout = replace(layout, version=2).changed({"general.alignment": MetadataEntry.of("general.alignment", 64)})
    layout = layout.with_tensors(
        (info, tensor.bytes) for info, tensor in zip(layout.tensors, model.tensors, strict=True)
    )
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(layout.header)
        for tensor in model.tensors:
            file.write(tensor_bytes(model, tensor).tobytes().ljust(padded(tensor.bytes, 64), b"\0"))
    once, twice = swapped_twice(read_model(path), "swap 0 1", tmp_path)
    assert twice == path.read_bytes() != once
    assert read_layout(tmp_path / "once.gguf").version == 2


def test_copies_keep_their_bytes_in_a_quantized_file(quantized, tmp_path):
    found = operated(quantized, "delete 2; bridge 5 after 7; move 0 after 3", tmp_path / "out.gguf")
    for part in edited_tensors(quantized, made(quantized, "delete 2; bridge 5 after 7; move 0 after 3")):
        tensor = found.by_name[part.name]
        assert tensor.type == part.first.type
        assert (tensor_bytes(found, tensor) == tensor_bytes(quantized, part.first)).all()


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("delete 3; swap 3 4", 9),
        ("swap 2 3; swap 6 7; blend 5 7 0.5; bridge 1 after 5", 12),
        ("repeat 3-6", 14),
        ("repeat 2-5", 14),
        ("triple 4", 12),
        ("keep 0 2-9 2", 10),
        ("merge 4-5 6-7; reverse 1-3; cycle 0-2 by 1; scale 4 0.9", 8),
    ],
)
def test_llama_cpp_runs_what_comes_out(model, text, layers, tmp_path):
    found = operated(model, text, tmp_path / "out.gguf")
    assert found.blocks == layers
    assert np.isfinite(logits(found.path)).all()


def test_one_layer_is_left(model, tmp_path):
    assert operated(model, "delete 0-3 5-9", tmp_path / "one.gguf").blocks == 1


# --- logits


@pytest.mark.parametrize("text", ["swap 3 4", "reverse 2-6", "blend 3 5 0.25 into 4", "scale 3 0.9"])
def test_the_file_is_the_swap_in_memory(model, text, tmp_path):
    found = operated(model, text, tmp_path / "out.gguf")
    parts = [
        part for part in edited_tensors(model, made(model, text)) if part.sources != ((model.by_name[part.name], 1.0),)
    ]
    assert parts
    assert (logits(found.path) == logits(model.path, [(part.name, tensor_data(model, part)) for part in parts])).all()
    assert (logits(found.path) != logits(model.path)).any()


def test_a_repeated_layer_runs_again(model, tmp_path):
    """A layer whose outputs are scaled to nothing is no layer: repeating it changes nothing, deleting it neither."""
    idle = operated(model, "scale 4 0 attn_output ffn_down", tmp_path / "idle.gguf")
    twice = operated(idle, "repeat 4", tmp_path / "twice.gguf")
    without = operated(idle, "delete 4", tmp_path / "without.gguf")
    assert (twice.blocks, without.blocks) == (11, 9)
    assert (logits(twice.path) == logits(idle.path)).all()
    assert (logits(without.path) == logits(idle.path)).all()


def test_the_tools_run_the_result(quantized, tmp_path):
    found = operated(quantized, "delete 3; swap 3 4", tmp_path / "out.gguf")
    log = run(["llama-bench", "-m", str(found.path), "-p", "8", "-n", "4", "-r", "1", "-t", "1", "-o", "json"]).log
    assert '"n_gen": 4' in log


# --- metadata


def test_arrays_of_layers_go_where_the_layers_go(tmp_path):
    path = tiny_listed(tmp_path / "listed.gguf", (True, True, False, True, False))
    heads = "lfm2.attention.head_count_kv"
    assert number_arrays(path)[heads] == (0, 0, 2, 0, 2)
    found = operated(read_model(path), "delete 0; bridge 1 after 3", tmp_path / "out.gguf")
    assert number_arrays(found.path)[heads] == (0, 2, 0, 2, 2)
    assert found.blocks == 5


def test_arrays_of_words_follow_too(model, tmp_path):
    words = [f"layer {index}" for index in range(10)]
    with_words = tmp_path / "words.gguf"
    writer = gguf.GGUFWriter(with_words, "qwen3")
    writer.add_array("qwen3.words", words)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    entry, layout = read_layout(with_words).by_key["qwen3.words"], read_layout(model.path)
    data = model.path.read_bytes()[len(layout.header) :]
    with_words.write_bytes(layout.changed({entry.key: entry}).header + data)
    found = operated(read_model(with_words), "delete 3; bridge 0 after 8", tmp_path / "out.gguf")
    items = read_layout(found.path).by_key["qwen3.words"].items
    assert [item[8:].decode() for item in items] == [words[block] for block in (0, 1, 2, 4, 5, 6, 7, 8, 9, 0)]


def test_the_number_of_dense_layers_follows(tmp_path):
    model = read_model(tiny_dense_lead(tmp_path / "lead.gguf"))
    found = operated(model, "delete 0", tmp_path / "out.gguf")
    assert (found.metadata["dots1.leading_dense_block_count"], found.blocks) == (1, 4)


def test_nothing_else_in_the_header_changes(model, tmp_path):
    found = operated(model, "delete 3", tmp_path / "out.gguf")
    before, after = read_layout(model.path), read_layout(found.path)
    assert [entry.key for entry in before.entries] == [entry.key for entry in after.entries]
    differing = [one.key for one, other in zip(before.entries, after.entries, strict=True) if one != other]
    assert differing == ["qwen3.block_count"]


def test_a_new_name(model, tmp_path):
    assert operated(model, "swap 3 4", tmp_path / "out.gguf", name="prose ↔").name == "prose ↔"


def test_blended_layers_must_agree_in_their_metadata(model, tmp_path):
    """Two layers with the same tensors may still differ in an array: chosen here, gemma3 with windows of its own order."""
    path = tiny_sliding(tmp_path / "sliding.gguf", sliding=[True, True, True, True, True, False])
    layout = read_layout(path)
    pattern = layout.by_key["gemma3.attention.sliding_window_pattern"]
    scales = replace(pattern, key="gemma3.window_scales", value=pattern.value)
    changed = layout.changed({scales.key: scales.with_items([bytes([block == 2]) for block in range(6)])})
    path.write_bytes(changed.header + path.read_bytes()[len(layout.header) :])
    sliding = read_model(path)
    with pytest.raises(
        BadUsage,
        match=r"layers 1 and 2 cannot be blended: they differ in gemma3.window_scales; with --skip-architecture-check",
    ):
        operate(sliding, made(sliding, "blend 1 2"))
    forced = operate(sliding, made(sliding, "blend 1 2"), skip_check=True)
    assert forced.layout.by_key[scales.key].items == (b"\0",) * 3 + (b"\1",) + (b"\0",) * 3


# --- shards


def test_a_split_model_becomes_one_file(model, shards, tmp_path):
    assert len(shards.paths) > 2
    found = operated(shards, "swap 3 4; swap 3 4", tmp_path / "whole.gguf")
    assert found.path.read_bytes() == model.path.read_bytes()


def test_the_result_in_shards(model, tmp_path):
    operation = operate(model, made(model, "delete 3"))
    found = write_shards(operation, tmp_path / "out.gguf", "6m", threads=1)
    assert [path.name for path in found.paths] == names(tmp_path)
    assert len(found.paths) > 2 and found.path.name == f"out-00001-of-{len(found.paths):05}.gguf"
    for part in operation.tensors:
        assert (tensor_bytes(found, found.by_name[part.name]) == tensor_bytes(model, part.first)).all()
    again = operated(found, "swap 0 1; swap 0 1", tmp_path / "again.gguf")
    whole = operated(model, "delete 3", tmp_path / "whole.gguf")
    assert again.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("5", "a whole number followed by M or G"),
        ("0M", "a whole number followed by M or G"),
        ("1.5G", "a whole number followed by M or G"),
        ("3M", "token_embd.weight alone has 4,194,304 bytes; choose at least 5M"),
    ],
)
def test_sizes_of_shards_that_cannot_be(model, size, message, tmp_path):
    with pytest.raises(BadUsage, match=message):
        write_shards(operate(model, made(model, "delete 3")), tmp_path / "out.gguf", size)
    assert not names(tmp_path)


def test_a_shard_that_is_not_whole(model, tmp_path, monkeypatch):
    """llama-gguf-split may end well on a full disk."""
    from quantplan.surgery import write_shards as shards_module

    split = shards_module.split

    def cut(*arguments):
        split(*arguments)
        last = sorted(arguments[1].parent.glob("*-of-*.gguf"))[-1]
        os.truncate(last, last.stat().st_size - 5000)

    monkeypatch.setattr(shards_module, "split", cut)
    with pytest.raises(NotAsPlanned, match="did not write a complete set of shards.*cut short"):
        write_shards(operate(model, made(model, "delete 3")), tmp_path / "out.gguf", "6M")
    assert not names(tmp_path)


# --- failures


def test_the_source_is_never_overwritten(model, shards, tmp_path):
    link = tmp_path / "link.gguf"
    link.symlink_to(model.path)
    for source, out in ((model, model.path), (model, link), (shards, shards.paths[-1])):
        with pytest.raises(BadUsage, match="is the model itself"):
            operated(source, "delete 3", out)
    with pytest.raises(BadUsage, match="is the name of one of several shards"):
        operated(model, "delete 3", tmp_path / "out-00001-of-00002.gguf")
    with pytest.raises(BadUsage, match="is a folder"):
        operated(model, "delete 3", tmp_path)


def test_a_header_without_weights_is_not_written(tmp_path):
    from model_shapes import QWEN3_8B

    model = read_model(QWEN3_8B.write(tmp_path / "header.gguf"))
    assert operate(model, made(model, "delete 3")).file_bytes < model.file_bytes
    with pytest.raises(BadFile, match="a header without weights"):
        operated(model, "delete 3", tmp_path / "out.gguf")
    assert names(tmp_path) == ["header.gguf"]


def test_what_llama_cpp_does_not_run_is_not_kept(tmp_path):
    """An architecture whose blocks are none that llama.cpp can exchange, forced past the check."""
    hybrid = read_model(tiny_hybrid(tmp_path / "hybrid.gguf"))
    out = tmp_path / "out.gguf"
    out.write_text("older")
    operation = replace(operate(hybrid, made(hybrid, "swap 0 4")))
    wrong = replace(operation, layout=operation.layout.changed({}, removed=["qwen35.ssm.state_size"]))
    wrong = replace(wrong, file_bytes=operation.file_bytes - len(operation.layout.header) + len(wrong.layout.header))
    with pytest.raises(BadFile, match=r"the result of 8 layers was not kept: llama.cpp cannot load .*state_size"):
        write_model.write(wrong, out)
    assert out.read_text() == "older"
    assert names(tmp_path) == ["hybrid.gguf", "out.gguf"]


def test_a_file_that_is_not_what_it_should_be(model, tmp_path, monkeypatch):
    operation = operate(model, made(model, "delete 3"))
    wrong = replace(operation, tensors=(*operation.tensors[:-2], operation.tensors[-1], operation.tensors[-2]))
    with pytest.raises(NotAsPlanned, match="instead of"):
        write_model.write(wrong, tmp_path / "out.gguf")
    assert not names(tmp_path)


def test_a_disk_that_is_full_at_the_end(model, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="no space left on the disk"):
        operated(model, "delete 3", tmp_path / "out.gguf")
    assert not names(tmp_path)


FULL = """
    import sys
    from pathlib import Path
    from quantplan.errors import QuantplanError
    from quantplan.gguf.reader import read_model
    from quantplan.surgery import write_model, write_shards
    from quantplan.surgery.apply_edits import apply_edits
    from quantplan.surgery.edits import parse_edits
    from quantplan.surgery.operation import operate

    def tried(what, write):
        try:
            write()
        except QuantplanError as error:
            print(what, type(error).__name__, len(list(folder.iterdir())))

    if __name__ == "__main__":
        folder = Path(sys.argv[2])
        model = read_model(sys.argv[1])
        larger, smaller = (
            operate(model, apply_edits(model.blocks, parse_edits(text))) for text in ("repeat 0-9", "delete 3")
        )
        tried("known", lambda: write_model.write(larger, folder / "out.gguf"))
        write_model.check_space = write_shards.check_space = lambda *_: None
        tried("met", lambda: write_model.write(larger, folder / "out.gguf"))
        tried("shards", lambda: write_shards.write_shards(smaller, folder / "out.gguf", "6M"))
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(model, tmp_path):
    """A file system of 30 MB, in a name space of its own: the result of 32 MB does not fit, nor 19 MB and their shards."""
    disk, script = tmp_path / "disk", tmp_path / "full.py"
    disk.mkdir()
    script.write_text(textwrap.dedent(FULL))
    mount = 'mount -t tmpfs -o size=30m tmpfs "$1" || exit 77; shift; exec "$@"'
    words = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        mount,
        "sh",
        str(disk),
        sys.executable,
        str(script),
        str(model.path),
        str(disk),
    ]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    except FileNotFoundError:
        pytest.skip("no unshare on this system: a full disk cannot be made")
    if ended.returncode == 77 or ended.stderr.startswith("unshare:"):
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    assert ended.stdout.splitlines() == ["known NoSpace 0", "met NoSpace 0", "shards NoSpace 0"], ended.stderr


def test_an_interrupted_write_leaves_nothing(model, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    for size in (None, "6M"):
        operation = operate(model, made(model, "delete 3"))
        with pytest.raises(KeyboardInterrupt):
            if size is None:
                write_model.write(operation, tmp_path / "out.gguf", report=Recorder(interrupted))
            else:
                write_shards(operation, tmp_path / "out.gguf", size, report=Recorder(interrupted))
        assert not names(tmp_path)


def test_progress_counts_every_byte(model, tmp_path):
    recorder = Recorder()
    write_model.write(operate(model, made(model, "blend 3 5")), tmp_path / "out.gguf", threads=1, report=recorder)
    assert recorder.events[-1][1] == sum(part.bytes for part in edited_tensors(model, made(model, "blend 3 5")))


def test_what_killed_processes_left_is_removed_and_nothing_else(model, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    out = tmp_path / "out.gguf"
    (tmp_path / f".out.gguf.{ended.pid}.part").write_bytes(b"half")
    workplace = tmp_path / f".out.gguf.{ended.pid}.x7"
    workplace.mkdir()
    (workplace / "whole.gguf").write_bytes(b"half")
    kept = [f".out.gguf.{os.getppid()}.part", ".out.gguf.mine", f".other.gguf.{ended.pid}.part"]
    for name in kept:
        (tmp_path / name).write_bytes(b"at work")
    operated(model, "delete 0", out, try_it=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "out.gguf"])
