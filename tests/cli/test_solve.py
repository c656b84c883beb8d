import json
from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of
from model_shapes import QWEN3_8B
from tiny_architectures import tiny_hybrid

from quantplan.cache_types import F16_CACHE, parse_kv
from quantplan.cli.plan_options import parse_sample
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.records.formats import PLANS, SENSITIVITY_TABLES

pytestmark = pytest.mark.llamacpp
PRIOR = ("--sensitivity", "prior", "--types", "k,Q8_0,F16")
FIGURES = {
    "plan",
    "file_bytes",
    "bpw",
    "bytes_per_token",
    "predicted_kld",
    "predicted_kld_err",
    "predicted_domains",
    "drafts",
    "status",
    "gap",
    "bound",
    "minimised",
    "prices",
    "limits",
    "override_tensor",
    "tensor_split",
    "cache",
    "predicted_tps",
    "rounding",
}


@pytest.fixture
def solve(command, small_model):
    """solve on the small model with the given words."""
    return lambda *words: command("solve", "-m", small_model, *words)


# -- what comes out


def test_json(solve, workplace, small_model):
    done = solve("-b", "45%", *PRIOR, "--json", "--out", "p/plan.json")
    figures = json.loads(done.out)
    assert done.code == 0 and set(figures) == FIGURES
    plan = PLANS.read(workplace / "p" / "plan.json")
    model = read_model(small_model)
    assert figures["plan"] == "p/plan.json"
    assert figures["file_bytes"] == plan.file_bytes <= 0.45 * model.file_bytes
    assert figures["bpw"] == plan.bits_per_weight(model) and figures["bytes_per_token"] == plan.bytes_per_token(model)
    assert (figures["predicted_kld"], figures["predicted_kld_err"]) == (
        plan.predicted_kld,
        plan.predicted_kld_err,
    )
    assert figures["status"] == "optimal" and 0 <= figures["gap"] <= 1e-6 and figures["bound"] > 0
    assert plan.made_from["command"].startswith("quantplan solve -m ")
    assert "warning: not calibrated" in done.err


def test_a_card(solve, command, workplace, small_model):
    """--vram alone, with its context and cache; what is planned is what `quantplan memory` says."""
    free = solve("--vram", "1TiB", *PRIOR, "--json", "--serve-ctx", "256", "--out", "free.json")
    assert free.code == 0, free.err
    needs = json.loads(command("memory", "free.json", "-m", small_model, "--serve-ctx", "256", "--json").out)
    room = needs["contexts"][0]["vram"] - 300_000
    done = solve("--vram", str(room), "--serve-ctx", "256", *PRIOR, "--json", "--out", "card.json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    (limit,) = figures["limits"]
    assert limit["name"] == "VRAM" and 0 < limit["used"] <= limit["limit"] and figures["prices"]["VRAM"] > 0
    found = json.loads(command("memory", "card.json", "-m", small_model, "--serve-ctx", "256", "--json").out)
    assert room - 100_000 < found["contexts"][0]["vram"] <= room
    constraints = PLANS.read(workplace / "card.json").made_from["wishes"]
    assert (constraints["vram"], constraints["ctx"], constraints["kv"]) == (room, 256, "f16,f16")


def test_a_target(solve, workplace):
    done = solve("--max-kld", "0.02", *PRIOR)
    plan = PLANS.read(workplace / "plans" / "tied-kld0.02.json")
    assert done.code == 0 and plan.predicted_kld <= 0.02 * (1 + 1e-9) and plan.outcome.minimised == "bytes"


def test_wishes_of_all_kinds_in_one_plan(solve, workplace):
    words = [
        "--tie",
        "qkv",
        "--tie",
        "blocks=2",
        "--max-type",
        "ffn_*=Q5_K",
        "--min-type",
        "attn_v=Q4_K",
        "--only",
        "token_embd=Q6_K,Q8_0",
    ]
    done = solve("-b", "45%", *PRIOR, *words, "--max-types", "4", "--out", "plan.json")
    assert done.code == 0, done.err
    plan = PLANS.read(workplace / "plan.json")
    types = {name: kind.name for name, kind in plan.types.items() if kind.block > 1}
    assert len(set(types.values())) <= 4 and types["token_embd.weight"] in ("Q6_K", "Q8_0")
    assert len({kind for name, kind in types.items() if "attn_q" in name or "attn_k" in name or "attn_v" in name}) == 1
    assert plan.made_from["wishes"]["tie"] == ["qkv", "blocks=2"]


def test_for_people(solve, workplace):
    done = solve("-b", "4.5bpw", *PRIOR)
    plan = PLANS.read(workplace / "plans" / "tied-4.5bpw.json")
    assert done.code == 0 and f"{plan.file_bytes:,} bytes" in done.out and "not calibrated" in done.out
    assert "plans/tied-4.5bpw.json" in done.out


def test_weights_without_a_probe(solve, workplace):
    done = solve("-b", "45%", "--sensitivity", "weights", "--types", "Q4_0,Q8_0", "--threads", "1", "--json")
    assert done.code == 0 and "warning: not calibrated" in done.err
    by_weights = PLANS.read(workplace / "plans" / "tied-45%.json")
    assert not by_weights.calibrated and by_weights.made_from["scales"] == "prior"
    assert list((workplace / "cache").glob("round-trip-*.jsonl"))


def test_a_probe_is_made_where_there_is_a_text(solve, workplace, small_text, small_imatrix):
    words = [
        "-b",
        "45%",
        "--types",
        "Q4_0,Q8_0",
        "--threads",
        "1",
        "--ctx",
        "128",
        "--chunks",
        "8",
        "--imatrix",
        small_imatrix,
    ]
    done = solve(*words, "--calibration", small_text, "--json")
    assert done.code == 0 and "probed 15 tensors" in done.err and "uncalibrated" not in done.err
    plan = PLANS.read(workplace / "plans" / "tied-45%.json")
    assert plan.calibrated and plan.imatrix.file == small_imatrix.name
    smaller = solve("-b", "35%", *words[2:], "--calibration", small_text, "--json")
    assert smaller.code == 0 and "probed" not in smaller.err  # another budget costs a solve
    assert json.loads(smaller.out)["predicted_kld"] > json.loads(done.out)["predicted_kld"]


def test_a_model_of_which_only_the_header_exists(command, workplace):
    QWEN3_8B.write(workplace / "8b.gguf")
    done = command("solve", "-m", "8b.gguf", "-b", "4.5GB", "--sensitivity", "prior", "--json")
    figures = json.loads(done.out)
    assert done.code == 0 and 0.99 * 4.5e9 < figures["file_bytes"] <= 4.5e9
    refused = command("solve", "-m", "8b.gguf", "-b", "4.5GB", "--sensitivity", "weights")
    assert refused.code == 2 and "use --sensitivity FILE, or --sensitivity prior" in refused.error


def test_wishes(solve, workplace):
    done = solve(
        "-b", "45%", *PRIOR, "--pin", "blk.0.attn_v=Q8_0", "--pin", "ffn_down=Q4_0", "--min-type", "attn_?=Q5_K"
    )
    assert done.code == 0
    types = PLANS.read(workplace / "plans" / "tied-45%.json").types
    assert types["blk.0.attn_v.weight"].name == "Q8_0" and types["blk.1.ffn_down.weight"].name == "Q4_0"
    assert types["blk.1.attn_k.weight"].bits >= 5.5


def test_layer_mode(solve, command, workplace):
    done = solve("-b", "33%", "--per", "layer", "--sensitivity", "prior")
    plan = PLANS.read(workplace / "plans" / "tied-33%-layers.json")
    assert done.code == 0 and [block for block, _ in plan.layer_types] == [0, 1]
    text = command("emit", "plans/tied-33%-layers.json", "--as", "layer-types", "-m", plan.model_path).out
    assert plan.layer_types[0][1] in text and "FLAGS" in text


def test_more_than_everything_is_a_warning(solve):
    done = solve("-b", "20GB", *PRIOR)
    assert done.code == 0 and "the budget exceeds the largest file that these types make" in done.err


def test_dry_run(solve, workplace):
    done = solve("-b", "45%", *PRIOR, "--dry-run")
    assert done.code == 0
    assert done.out.startswith(
        "would choose among 7 types for 15 tensors within 2,765,966 bytes; sensitivities from: a prior"
    )
    assert list(workplace.iterdir()) == []


# -- what is refused: one sentence, its exit code, nothing written


@pytest.fixture
def odd_files(workplace, small_model, small_imatrix):
    """Files that are not what they are taken for."""
    data = small_model.read_bytes()
    (workplace / "text.gguf").write_text("this is no model " * 50)
    (workplace / "cut.gguf").write_bytes(data[:-5000])
    (workplace / "v1.gguf").write_bytes(data[:4] + b"\1\0\0\0" + data[8:])
    (workplace / "few.txt").write_text("only a few words")
    (workplace / "empty.txt").write_text("\n")
    (workplace / "damaged.json").write_text('{"format": "quantplan-damage", "version": 1}')
    (workplace / "newer.json").write_text('{"format": "quantplan-damage", "version": 99}')
    nan = imatrix_of({"blk.0.attn_q.weight": np.full((1, 256), np.nan)})
    write_imatrix(nan, workplace / "nan.imatrix")
    write_imatrix(imatrix_of({"blk.0.attn_q.weight": np.ones((1, 512))}), workplace / "other.imatrix")
    return workplace


@pytest.mark.parametrize(
    "words, code, message",
    [
        # models
        (["-m", "nofile.gguf"], 3, "nofile.gguf: No such file"),
        (["-m", "text.gguf"], 3, "not a GGUF file"),
        (["-m", "cut.gguf"], 3, "cut short"),
        (["-m", "v1.gguf"], 3, "GGUF version 1 is not supported"),
        (["-m", "."], 3, "Is a directory"),
        # imatrices
        (["--imatrix", "nofile"], 3, "no such imatrix file"),
        (["--imatrix", "few.txt"], 3, "not an imatrix"),
        (["--imatrix", "nan.imatrix"], 3, "blk.0.attn_q.weight has 256 NaN"),
        (["--imatrix", "other.imatrix"], 4, "it was made from another model"),
        # budgets
        (["-b", "1bpw"], 6, "no file of 1bpw"),
        (["-b", "5"], 2, "has no unit; write 5GB, 5GiB or 5bpw"),
        (["-b", "much"], 2, "cannot read the budget 'much'"),
        (["-b", "-5GB"], 2, "cannot read the budget"),
        (["-b", "=nofile"], 3, "cannot take the budget from nofile"),
        (["-b", "="], 3, "not a file"),
        (["-b", "Q4_K_XXL"], 5, "no stock quant 'Q4_K_XXL'; nearest: Q4_K_M, Q4_K_S"),
        (["-b", "UD-Q4_K_XL"], 5, "nearest: Q4_K_M, Q4_K_S"),
        (["-b", "Q8"], 5, "nearest: Q8_0"),
        (["-b", "9" * 400 + "GB"], 2, "more than any disk holds"),
        # types and selectors
        (["--types", "Q9_K"], 5, "did you mean Q6_K"),
        (["--types", "I8"], 5, "I8 is no type for weights"),
        (["--types", "k,-k"], 5, "no quantization type is left"),
        (["--types", "F32"], 5, "cannot be stored as F32: they are larger than F16"),
        (["--types", "IQ2_XXS"], 5, "they need an imatrix; make one with `quantplan imatrix`"),
        (["--pin", "attn_w=Q4_K"], 5, "did you mean attn_"),
        (["--pin", "attn_v"], 2, "SELECTOR=TYPE"),
        (["--pin", "attn_v=I8"], 5, "I8 is no type for weights"),
        (["--pin", "attn_v=IQ1_S"], 2, "--pin attn_v=IQ1_S: IQ1_S has 1.5625 bits, which ruins anything but experts"),
        (["--pin", "attn_v=IQ1_S", "--allow-1-bit"], 5, "blk.0.attn_v.weight cannot be stored as IQ1_S"),
        (["--pin", "/(/=Q4_K"], 2, "is not a regular expression"),
        (["--min-type", "attn_v=F32"], 5, "--min-type attn_v=F32: nothing is left for blk.0.attn_v.weight"),
        (["-b", "30%", "--min-type", "*=Q6_K"], 6, "the smallest has"),
        (["--per", "block"], 2, "--per"),
        (["--per", "layer", "--tie", "qkv"], 2, "in layer mode a stock quant decides for all tensors of a block"),
        (["--per", "layer", "--max-type", "attn_v=Q2_K"], 2, "no stock quant and no type that is allowed for block"),
        (["--monotone"], 2, "--monotone is about whole blocks: give --per layer too"),
        (["--per", "layer", "--monotone", "--valley"], 2, "choose one course over the layers"),
        (["--pin", "attn_v=Q4_K", "--pin", "blk.0.*=Q5_K"], 2, "conflict: both name blk.0.attn_v.weight"),
        (["--pin", "attn_v=Q2_K", "--min-type", "attn_v=Q4_K"], 2, "the nearest that both allow is --pin"),
        (["--tie", "qkx"], 5, "no quantizable tensor matches 'qkx'"),
        (["--tie", "blocks=0-99"], 2, "the model has blocks 0 to"),
        (["--only", "attn_v=Q9"], 5, "there is no quantization type 'Q9'"),
        (["--objective", "mean"], 2, "--objective"),
        (["--max-kld", "0"], 2, "--max-kld 0: must be greater than zero"),
        (["--max-kld", "nan"], 2, "--max-kld nan: must be greater than zero"),
        (["--min-tps", "0"], 2, "--min-tps 0: must be greater than zero"),
        (["--min-tps", "inf"], 2, "--min-tps inf: must be greater than zero"),
        (["--vram", "1GiB", "--min-tps", "5"], 2, "tensors go to the GPU, but the installed llama.cpp sees no GPU"),
        (["-b", "95%", "--max-kld", "1e-9"], 6, "the least is"),
        # texts, found out before the round trip
        (["--sensitivity", "", "--calibration", "few.txt"], 10, "the text has 4 tokens, at least 1024 are needed"),
        (["--sensitivity", "", "--calibration", "empty.txt"], 3, "the text is empty"),
        (["--sensitivity", ""], 2, "no calibration text: give --calibration FILE to probe, or --sensitivity weights"),
        # tables
        (["--sensitivity", "nofile"], 3, "cannot read nofile"),
        (["--sensitivity", "few.txt"], 3, "not JSON"),
        (["--sensitivity", "damaged.json"], 3, "damaged sensitivity table"),
        (["--sensitivity", "newer.json"], 3, "version 99 of quantplan-damage is unknown"),
        # places
        (["--out", "few.txt/plan.json"], 3, "cannot write few.txt/plan.json"),
        (["--out", "."], 3, "cannot write .: it is a folder"),
    ],
)
def test_refused(command, odd_files, files, small_model, words, code, message):
    before = files()
    options = {"-m": small_model, "-b": "45%", "--sensitivity": "prior", "--types": "k"}
    given = [word for option, value in options.items() if option not in words for word in (option, value)]
    if words[:2] == ["--sensitivity", ""]:
        words = words[2:]
    done = command("solve", *given, *words)
    assert done.code == code and message in done.error and done.out == ""
    assert files() == before
    assert not (odd_files / "cache").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--pin", "attn_w=Q4_K"],
        ["--min-type", "attn_v=F32"],
        ["-b", "10%"],
        ["--per", "layer", "--tie", "qkv"],
    ],
)
def test_refused_before_anything_is_measured(solve, workplace, small_text, words):
    options = {"-b": "45%", "--types": "k", "--calibration": small_text, "--ctx": "128"}
    options |= dict(zip(words[::2], words[1::2], strict=True))
    done = solve(*(word for pair in options.items() for word in pair))
    assert done.code in (2, 5, 6) and done.error and "..." not in done.err
    assert not (workplace / "cache").exists()


def test_the_table_of_another_model(command, solve, odd_files, reference_model):
    from quantplan.llamacpp import quantize
    from quantplan.quant_type import parse_types
    from quantplan.sensitivity.rows import prior_table

    model = read_model(reference_model)
    SENSITIVITY_TABLES.write(
        prior_table(model, quantize.quantizable(model), parse_types("k"), None), odd_files / "other.json"
    )
    done = solve("-b", "45%", "--sensitivity", "other.json", "--types", "k")
    assert done.code == 4 and "was made for another model" in done.error


def test_tools_are_missing(solve, files, monkeypatch, tmp_path):
    from quantplan.gguf.reader import read_model as read
    from quantplan.llamacpp import quantize

    monkeypatch.setenv("QUANTPLAN_TOOLS", "/nonexistent")
    quantize._numbered_ftypes.cache_clear()
    assert read  # the header is read by the library, which is there
    done = solve("-b", "45%", *PRIOR)
    assert done.code == 7 and "is not in /nonexistent" in done.error and "pip install" in done.error
    assert files() == []


def test_the_disk_is_full(solve, files, full_disk):
    done = solve("-b", "45%", *PRIOR)
    assert done.code == 11 and "no space left on the disk" in done.error
    assert files() == []


def test_a_damaged_project(command, workplace):
    (workplace / "quantplan.toml").write_text("modle = 'x'\n")
    done = command("solve", "-b", "5bpw")
    assert done.code == 3 and "unknown key 'modle'" in done.error


def test_outside_of_any_project(command):
    done = command("solve", "-b", "5bpw")
    assert done.code == 2 and "which model? give --model MODEL.gguf" in done.error


@pytest.mark.parametrize(
    "text, elements",
    [("512k", 1 << 19), ("2M", 1 << 21), ("100000", 100_000), ("full", None), ("FULL", None)],
)
def test_sample(text, elements):
    assert parse_sample(text) == elements


@pytest.mark.parametrize("text", ["", "0", "k", "-5", "1.5M", "5G"])
def test_sample_nonsense(text):
    with pytest.raises(BadUsage, match="write a number of weights such as 512k or 2M, or full"):
        parse_sample(text)


# -- weights and KV cache together


def test_cache_types_are_chosen_with_the_weights(solve, command, workplace, small_model, small_text, monkeypatch):
    """Measured once on the calibration text; the same table serves again, and without measuring."""
    from quantplan.evaluate import cache_sensitivities as measuring

    pairs = [F16_CACHE, parse_kv("q8_0"), parse_kv("q8_0,q4_0")]
    monkeypatch.setattr(measuring, "possible_caches", lambda _model: pairs)
    command("init", small_model, "--folder", ".")
    vram = json.loads(command("memory", small_model, "--serve-ctx", 8192, "--json").out)["contexts"][0]["vram"]
    words = ["--vram", str(vram - 4_000_000), "--serve-ctx", 8192, "--kv", "auto", *PRIOR]
    done = solve(*words, "--calibration", small_text, "--threads", 1, "-o", "plan.json", "--json")
    assert done.code == 0 and "cache.json" in done.err
    cache = json.loads(done.out)["cache"]
    plan = PLANS.read(workplace / "plan.json")
    assert cache["types"] == plan.cache.types in ("f16", "q8_0", "q8_0,q4_0") and cache["ctx"] == 8192
    (table,) = (workplace / "reports").glob("*.cache.json")
    done = solve(*words, "--kv-sensitivity", table, "-o", "again.json")
    assert done.code == 0 and PLANS.read(workplace / "again.json").types == plan.types
    assert f"KV cache  {plan.cache.types}: KLD" in done.out and "-ngl 999 -c 8192 -ctk" in done.out
    other = solve("--vram", "1GiB", "--kv", "auto", *PRIOR, "--kv-sensitivity", "plan.json")
    assert other.code == 3 and "quantplan-cache file is needed" in other.error


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-b", "45%", "--kv", "auto"], 2, "give --vram"),
        (["--vram", "1GiB", "--kv", "auto"], 2, "give --calibration TEXT, or --kv-sensitivity"),
        (["--vram", "1GiB", "--kv", "auto", "-ctk", "q8_0"], 2, "--kv sets both types"),
        (["--vram", "1MiB", "--kv", "auto"], 6, "the limit is 1.05 MB: in VRAM its weights take"),
    ],
)
def test_what_kv_auto_needs(solve, files, words, code, message):
    done = solve(*words, *PRIOR)
    assert done.code == code and message in done.error
    assert files() == []


def test_only_solve_and_run_choose_cache_types(command, small_model):
    done = command("frontier", "-m", small_model, "--vram", "1GiB", "--kv", "auto", *PRIOR)
    assert done.code == 2 and "--kv auto is for `quantplan solve` and `quantplan run`" in done.error
    assert "the pair that `quantplan solve --kv auto` prints" in done.error
    dry = command("solve", "-m", small_model, "--vram", "1GiB", "--kv", "auto", *PRIOR, "--dry-run")
    assert "36 pairs of KV cache types" in dry.out


def test_several_gpus(solve, workplace):
    done = solve("--vram", "300MiB,200MiB", "--serve-ctx", 256, *PRIOR, "-o", "plan.json")
    plan = PLANS.read(workplace / "plan.json")
    assert done.code == 0 and sum(plan.tensor_split) == 3  # two blocks and the output
    assert f"run with  -ngl 999 --tensor-split {','.join(map(str, plan.tensor_split))}" in done.out
    assert [limit.name for limit in plan.limits] == ["VRAM of GPU 0", "VRAM of GPU 1"]
    assert plan.made_from["wishes"]["gpus"] == [300 << 20, 200 << 20]
    few = solve("--vram", "1GiB,1GiB,1GiB", *PRIOR)
    assert few.code == 2 and "2 blocks: too few for 3 GPUs" in few.error
    wrong = solve("--vram", "1GiB,", *PRIOR)
    assert wrong.code == 2 and "cannot read the --vram ''" in wrong.error


def test_blocks_that_predict_further_tokens_get_the_bits_of_the_last(command, workplace):
    """The state's block before is no attention: roles come from the last block that has them."""
    path = tiny_hybrid(workplace / "mtp.gguf", predicting=True)
    for limit in (("-b", "40%"), ("--max-kld", "0.01")):
        done = command("solve", "-m", path, *limit, *PRIOR, "--out", "p.json")
        assert done.code == 0, done.err
        assert (
            "8 tensors of block 8 (" in done.out
            and "only predict further tokens (MTP): not in the expected KLD" in done.out
        )
        types = PLANS.read(workplace / "p.json").types
        for role in ("attn_v", "ffn_down"):
            mine, last = types[f"blk.8.{role}.weight"], types[f"blk.7.{role}.weight"]
            assert abs(mine.bits - last.bits) < 1.1 and mine.name != "Q2_K"
    shown = command("explain", "p.json", "-m", path, "blk.8.attn_v")
    assert "from not run; as blk.7.attn_v.weight" in shown.out
    assert "blk.8.nextn.eh_proj.weight" in json.loads(command("explain", "p.json", "-m", path, "--json").out)["drafts"]


# --- several texts


def test_the_worst_text_is_planned_for(command, workplace, case, priced):
    """With a table that says what each tensor costs on two texts."""
    table, rng = priced[0].table, np.random.default_rng(0)
    rows = {
        name: replace(row, domains=dict(zip(("chat", "code"), rng.lognormal(0, 0.7, 2).tolist(), strict=True)))
        for name, row in table.rows.items()
    }
    domains = {"chat": table.interaction, "code": replace(table.interaction, factor=1.2 * table.interaction.factor)}
    SENSITIVITY_TABLES.write(replace(table, rows=rows, domains=domains), workplace / "table.json")
    words = (
        "solve",
        "--model",
        case.model.path,
        "--budget",
        "6.2bpw",
        "--types",
        "k,Q8_0",
        "--sensitivity",
        "table.json",
    )
    worst, mean = (
        json.loads(command(*words, "--json", "--out", f"{name}.json", "--objective", name).out)
        for name in ("worst-domain", "sum")
    )
    assert worst["minimised"] == "worst-domain" and worst["gap"] <= 1e-3
    klds = [max(each["kld"] for each in plan["predicted_domains"].values()) for plan in (worst, mean)]
    assert klds[0] <= klds[1] * 1.01 and worst["predicted_kld"] >= mean["predicted_kld"] * 0.999
    shown = command(*words, "--objective", "worst-domain").out
    assert "by text   chat 0." in shown and shown.count("(worst)") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calibration", "one.txt"), "plans for several kinds of text: give a folder of them"),
        (("--calibration", "one.txt", "--sensitivity", "weights"), "needs a probe on several texts, or its table"),
    ],
)
def test_several_texts_are_needed_to_plan_for_the_worst(command, workplace, small_model, words, message):
    (workplace / "one.txt").write_text("One text alone.\n" * 200)
    done = command("solve", "--model", small_model, "--budget", "5bpw", "--objective", "worst-domain", *words)
    assert done.code == 2 and message in done.error
