"""`quantplan surgery apply` as a person runs it: what is printed, written, followed, and refused."""

import json
import shutil

import pytest
from model_shapes import QWEN3_5_2B
from tiny_architectures import tiny_hybrid

from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.tools import run
from quantplan.records.formats import PLANS

MODEL = "prose-10m-f16.gguf"


@pytest.fixture
def here(workplace, reference_model):
    shutil.copy(reference_model, workplace / MODEL)
    return workplace


@pytest.fixture
def apply(here, command):
    def call(*words):
        return command("surgery", "apply", *words, "--threads", "1")

    return call


def test_edits_make_a_file_and_its_record(apply, files, here):
    ended = apply(MODEL, "delete 3; swap 3 4", "-o", "out.gguf")
    assert (ended.code, ended.out) == (0, "out.gguf\n")
    assert files() == ["out.gguf", "out.layers.json", MODEL]
    assert read_model(here / "out.gguf").blocks == 9
    assert "layers    10 -> 9" in ended.err and "all copied byte for byte" in ended.err
    assert "next to it: out.layers.json" in ended.err and "warning" not in ended.err


@pytest.mark.llamacpp
def test_a_dry_run_refuses_what_the_real_run_would(apply, files, here):
    """An array that a pruning tool left as it was: llama.cpp loads neither the file nor what is made of it."""
    path = here / MODEL
    layout, data = read_layout(path), path.read_bytes()
    stale = {"qwen3.attention.head_count_kv": MetadataEntry.of("qwen3.attention.head_count_kv", [2] * 12)}
    changed = layout.changed(stale)
    path.write_bytes(changed.header + data[layout.data_offset :])
    said = "has wrong array length; expected 9, got 12; it does not run the original either"
    for words in (("--dry-run",), ()):
        ended = apply(MODEL, "delete 0", *words)
        assert ended.code == 3 and said in ended.error
        assert files() == [MODEL]


def test_the_record_does_it_again(apply, here):
    apply(MODEL, "delete 3; blend 5 7 0.3", "-o", "out.gguf")
    ended = apply(MODEL, "out.layers.json", "-o", "again.gguf")
    assert ended.code == 0
    assert (here / "again.gguf").read_bytes() == (here / "out.gguf").read_bytes()
    one, other = (json.loads((here / f"{name}.layers.json").read_text()) for name in ("out", "again"))
    assert one["layers"] == other["layers"] and one["edits"] == other["edits"]
    ended = apply("out.gguf", "out.layers.json", "-o", "third.gguf")
    assert ended.code == 0  # blended once more: it has ten layers as well
    apply(MODEL, "delete 0", "-o", "nine.gguf")
    ended = apply("nine.gguf", "out.layers.json", "-o", "third.gguf")
    assert ended.code == 2 and "the layer map is for a model of 10 layers, nine.gguf has 9" in ended.error


def test_a_dry_run_says_it_all_and_writes_nothing(apply, files, here):
    ended = apply(MODEL, "delete 3; repeat 0-1; blend 4 6 0.25", "--dry-run")
    assert ended.code == 0 and files() == [MODEL]
    rows = [line.split("│")[1:4] for line in ended.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0-1", "0-1", "in place"],
        ["2-3", "0-1", "copy"],
        ["4", "2", "moved"],
        ["5", "0.75 of 2 + 0.25 of 5", "blend"],
        ["6-11", "4-9", "moved"],
    ]
    assert "left out: 3" in ended.out and "layers    10 -> 12" in ended.out
    assert "writes    prose-10m-f16-delete-3_repeat-0-1_blend-4-6-0.25.gguf" in ended.out
    size = int(ended.out.partition("file      ")[2].split()[0].replace(",", ""))
    assert apply(MODEL, "delete 3; repeat 0-1; blend 4 6 0.25").code == 0
    assert (here / "prose-10m-f16-delete-3_repeat-0-1_blend-4-6-0.25.gguf").stat().st_size == size


def test_json_before_and_after(apply, here):
    before = json.loads(apply(MODEL, "delete 3", "--dry-run", "--json").out)
    after = json.loads(apply(MODEL, "delete 3", "--json").out)
    same = ("edits", "map", "layers", "layers_after", "parameters_after", "file_bytes", "reencoded", "out")
    assert {key: before[key] for key in same} == {key: after[key] for key in same}
    assert (before["written"], after["written"]) == (False, True)
    found = read_model(here / after["out"])
    assert (found.file_bytes, found.elements, found.digest) == (
        after["file_bytes"],
        after["parameters_after"],
        after["result_digest"],
    )
    assert after["map"] == "0-2 4-9" and after["record"] == "prose-10m-f16-delete-3.layers.json"


def test_edits_from_a_file(apply, here):
    (here / "edits.txt").write_text("delete 3   # of no use\nswap 3 4\n")
    assert json.loads(apply(MODEL, "edits.txt", "--dry-run", "--json").out)["edits"] == "delete 3; swap 3 4"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfdelete 3\r\nswap 3 4\r\n", b"delete 3 # cut\r\n\r\nswap 3 4"])
def test_edits_of_other_editors(apply, here, content):
    (here / "edits.txt").write_bytes(content)
    ended = apply(MODEL, "edits.txt", "--dry-run", "--json")
    assert ended.code == 0 and json.loads(ended.out)["edits"] == "delete 3; swap 3 4"


def test_what_is_given_is_not_overwritten(apply, here, reference_imatrix):
    (here / "edits.txt").write_text("delete 3")
    shutil.copy(reference_imatrix, here / "i.gguf")
    for words in (("edits.txt", "-o", "edits.txt"), ("edits.txt", "-o", "i.gguf", "--imatrix", "i.gguf")):
        before = {path: path.read_bytes() for path in here.iterdir()}
        ended = apply(MODEL, *words)
        assert ended.code == 2 and "would be overwritten" in ended.error
        assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_what_an_earlier_run_left_beside_it_is_named(apply, here, reference_imatrix):
    apply(MODEL, "delete 3", "-o", "out.gguf", "--imatrix", reference_imatrix)
    ended = apply(MODEL, "delete 4", "-o", "out.gguf")
    assert ended.code == 0 and "out.imatrix.gguf is from before and does not follow the edits" in ended.err


def test_a_file_that_is_no_text(apply, here):
    (here / "edits.txt").write_bytes(b"\xff\xfed\x00e\x00")
    ended = apply(MODEL, "edits.txt")
    assert ended.code == 3 and "cannot read the edits edits.txt: not UTF-8 text" in ended.error


def test_a_record_that_contradicts_itself(apply, here):
    apply(MODEL, "delete 3", "-o", "out.gguf")
    path = here / "out.layers.json"
    record = json.loads(path.read_text())
    for change in ({"layers": [0, 1, 2]}, {"edits": "delete 4"}, {"edits": "swap 0 40"}, {"edits": ""}):
        path.write_text(json.dumps(record | change))
        ended = apply(MODEL, "out.layers.json", "-o", "again.gguf")
        assert ended.code == 3 and "was the file changed by hand?" in ended.error
        assert not (here / "again.gguf").exists()


def test_many_edits_have_a_short_name(apply):
    text = "; ".join(["swap 1 2"] * 11)
    name = json.loads(apply(MODEL, text, "--dry-run", "--json").out)["out"]
    assert name.startswith("prose-10m-f16-edits-") and len(name) < 40


def test_edits_that_change_nothing_are_told(apply, here):
    ended = apply(MODEL, "swap 1 2; swap 1 2", "-o", "same.gguf")
    assert ended.code == 0 and "leave every layer where it is" in ended.err
    assert (here / "same.gguf").read_bytes() == (here / MODEL).read_bytes()


def test_a_name_of_its_own(apply, here):
    apply(MODEL, "delete 3", "-o", "out.gguf", "--name", "Prose Cut")
    assert read_model(here / "out.gguf").name == "Prose Cut"


@pytest.mark.llamacpp
def test_imatrix_and_plan_follow(apply, command, here, reference_imatrix):
    shutil.copy(reference_imatrix, here / "weights.gguf")
    assert command("import", "rules.txt", "-m", MODEL).code != 0
    (here / "rules.txt").write_text("attn=q4_k\nffn=q4_k\ntoken_embd=q6_k\noutput=q6_k\n")
    planned = command(
        "import", "rules.txt", "-m", MODEL, "--imatrix", "weights.gguf", "--base", "Q4_K_M", "-o", "plan.json"
    )
    assert planned.code == 0, planned.err
    ended = apply(MODEL, "repeat 4-5", "-o", "out.gguf", "--plan", "plan.json", "--json")
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    assert (made["imatrix"], made["plan"]) == ("out.imatrix.gguf", "out.plan.json")
    assert "an imatrix of the new model is better" in ended.err
    assert "blk.11.ffn_up.weight" in read_imatrix(here / "out.imatrix.gguf").entries
    assert PLANS.read(here / "out.plan.json").model_digest == made["result_digest"]
    built = command("quantize", "out.plan.json", "-o", "built.gguf", "--threads", "1")
    assert built.code == 0, built.err

    other = command("surgery", "apply", "out.gguf", "delete 0", "--plan", "plan.json")
    assert other.code == 4 and "the plan was made for" in other.error
    run(["llama-imatrix", "-m", "out.gguf", "-f", "rules.txt", "-o", "other.gguf", "-c", "8", "-t", "1"], cwd=here)
    foreign = apply(MODEL, "delete 0", "--imatrix", "other.gguf", "-o", "y.gguf")
    assert foreign.code == 0 and "entries that are no tensors of prose-10m-f16.gguf" in foreign.err
    unlike = apply(MODEL, "delete 0", "--plan", "plan.json", "--imatrix", "other.gguf", "-o", "x.gguf")
    assert unlike.code == 4 and "is not the imatrix that the plan was made with" in unlike.error
    assert not (here / "x.gguf").exists()

    shutil.copy(here / "weights.gguf", here / "y.imatrix.gguf")
    own = apply(MODEL, "delete 0", "--imatrix", "y.imatrix.gguf", "-o", "y.gguf")
    assert own.code == 2 and "y.imatrix.gguf would be overwritten, and is needed itself" in own.error


@pytest.mark.llamacpp
def test_a_quantized_model_in_and_out_of_shards(apply, files, here):
    run(["llama-quantize", MODEL, "q4.gguf", "Q4_K_M", "1"], cwd=here)
    ended = apply("q4.gguf", "swap 1 8", "-o", "out.gguf", "--split-max-size", "4M")
    assert ended.code == 0, ended.err
    shards = [name for name in files() if name.startswith("out-")]
    assert len(shards) > 1 and ended.out == f"{shards[0]}\n"
    assert files() == sorted([*shards, "out.layers.json", MODEL, "q4.gguf"])
    ended = apply(shards[1], "swap 1 8", "-o", "back.gguf")
    assert ended.code == 0 and (here / "back.gguf").read_bytes() == (here / "q4.gguf").read_bytes()
    ended = apply("q4.gguf", "blend 3 5", "-o", "blend.gguf")
    assert ended.code == 0 and "better edit the unquantized model" in ended.err
    assert "11 of them encoded as F32, Q4_K" in ended.err


BAD = {
    "delete 10": (2, "edit 1, 'delete 10': there is no layer 10: at this point the layers are 0-9"),
    "delete 0; swap 8 9": (2, "edit 2, 'swap 8 9': there is no layer 9: at this point the layers are 0-8"),
    "delete 0-9": (2, "no layer would remain"),
    "swap 2-4 3-5": (2, "2-4 and 3-5 overlap"),
    "delete 2-4 4": (2, "2-4 and 4 overlap"),
    "move 3-5 after 4": (2, "cannot be moved to a place inside itself"),
    "merge 1-2 4-6": (2, "1-2 has 2 layers and 4-6 has 3"),
    "repeat 5-3": (2, "the range 5-3 is backwards"),
    "frobnicate 3": (2, "unknown edit 'frobnicate'"),
    "": (2, "no edits"),
    "scale 3 0.9 ffn_dwon": (5, "layer 3 has no ffn_dwon to scale"),
    "none.layers.json": (3, "cannot read none.layers.json"),
    "none.txt": (2, "none.txt: no such file"),
}


@pytest.mark.parametrize("edits", BAD)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_bad_edits(apply, files, edits, dry):
    ended = apply(MODEL, edits, *dry)
    code, message = BAD[edits]
    assert ended.code == code and message in ended.error
    assert files() == [MODEL]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("-o", MODEL), 2, "is read itself, and would be overwritten"),
        (("-o", "."), 2, "is a folder"),
        (("-o", "out-00001-of-00003.gguf"), 2, "name of one of several shards"),
        (("-o", f"{MODEL}/out.gguf"), 3, "cannot write"),
        (("--split-max-size", "7"), 2, "a whole number followed by M or G"),
        (("--split-max-size", "1M"), 2, "token_embd.weight alone has"),
        (("--imatrix", "none.gguf"), 3, "none.gguf: No such file"),
        (("--plan", "none.json"), 3, "cannot read none.json"),
    ],
)
def test_bad_options(apply, files, words, code, message):
    for dry in ((), ("--dry-run",)):
        ended = apply(MODEL, "delete 3", *words, *dry)
        assert (ended.code == code and message in ended.error) or (dry and message == "cannot write")
    assert files() == [MODEL]


def test_bad_models(apply, here, files):
    (here / "text.gguf").write_text("no model")
    (here / "cut.gguf").write_bytes((here / MODEL).read_bytes()[:1_000_000])
    for name, message in (("none.gguf", "No such file"), ("text.gguf", "not a GGUF"), ("cut.gguf", "cut short")):
        ended = apply(name, "delete 0")
        assert ended.code == 3 and message in ended.error
    (here / "none.gguf").write_bytes((here / MODEL).read_bytes().replace(b"qwen3.block_count", b"qwen3.block_kount"))
    ended = apply("none.gguf", "delete 0")
    assert ended.code == 2 and "its header counts no layers (qwen3.block_count)" in ended.error
    assert files() == ["cut.gguf", "none.gguf", MODEL, "text.gguf"]


def test_a_full_disk_leaves_nothing(apply, files, full_disk):
    ended = apply(MODEL, "delete 3", "-o", "out.gguf")
    assert ended.code == 11 and "no space left on the disk for out.gguf" in ended.error
    assert files() == [MODEL]


def test_hybrid_models_keep_their_pattern(apply, here):
    """Qwen3.5-2B, from its header: 24 + 4 layers are a model, 24 + 3 are none."""
    QWEN3_5_2B.write(here / "hybrid.gguf")
    ended = apply("hybrid.gguf", "repeat 8-11", "--dry-run")
    assert ended.code == 0 and "layers    24 -> 28" in ended.out
    ended = apply("hybrid.gguf", "repeat 7-10", "--dry-run")
    assert ended.code == 0 and "layers    24 -> 28" in ended.out
    for force in ((), ("--force",)):
        ended = apply("hybrid.gguf", "repeat 8-10", "--dry-run", *force)
        assert ended.code == 2 and "full_attention_interval = 4" in ended.error
        assert "27 layers are not a multiple of 4" in ended.error
        assert ended.error.endswith("the nearest valid edits: 'repeat 8-11' or 'repeat 7-10' or 'repeat 9-12'")
    ended = apply("hybrid.gguf", "repeat 8-11", "-o", "out.gguf")
    assert ended.code == 3 and "a header without weights" in ended.error
    assert not (here / "out.gguf").exists()


def test_a_hybrid_model_runs_with_a_period_more(apply, here):
    tiny_hybrid(here / "hybrid.gguf")
    ended = apply("hybrid.gguf", "repeat 2-5", "-o", "longer.gguf")
    assert ended.code == 0, ended.err
    assert read_model(here / "longer.gguf").blocks == 12
    ended = apply("hybrid.gguf", "blend 2 3", "-o", "no.gguf")
    assert ended.code == 2 and not (here / "no.gguf").exists()


def test_an_unknown_architecture_must_be_forced(apply, here):
    """A file as of an architecture that came later; llama.cpp does not know it either, and that is said."""
    data = (here / MODEL).read_bytes().replace(b"qwen3", b"qwen9")
    (here / "later.gguf").write_bytes(data)
    ended = apply("later.gguf", "delete 3", "-o", "out.gguf")
    assert (
        ended.code == 2
        and "rules for the layers of qwen9 models; --skip-architecture-check does it anyway" in ended.error
    )
    ended = apply("later.gguf", "delete 3", "-o", "out.gguf", "--force")
    assert ended.code == 3 and "unknown model architecture: 'qwen9'" in ended.error
    assert ended.error.endswith("it does not run the original either") and not (here / "out.gguf").exists()
    ended = apply("later.gguf", "delete 3", "--force", "--dry-run")
    assert ended.code == 3 and "warning: quantplan does not know the rules for the layers of qwen9 models" in ended.err
    assert "would not be kept" in ended.err and "unknown model architecture: 'qwen9'" in ended.err


def test_the_help_shows_every_form(command):
    from quantplan.surgery.edits import FORMS

    ended = command("surgery", "apply", "--help")
    assert ended.code == 0
    for verb in FORMS:
        assert any(line.strip().startswith(f"{verb} ") for line in ended.out.splitlines()), verb
