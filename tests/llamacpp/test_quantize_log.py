"""argv and parse of llama-quantize, without the tool: logs saved from a real run."""

import re
from pathlib import Path

import pytest

from quantplan.errors import ToolFailed
from quantplan.llamacpp import quantize
from quantplan.llamacpp.quantize import Recipe, Rule, UnreadableLog, argv, parse
from quantplan.llamacpp.tools import first_reason
from quantplan.quant_type import BY_NAME

LOGS = Path(__file__).parent / "logs"


def log(name):
    return (LOGS / name).read_text()


def test_types_of_all_tensors():
    types = parse(log("dry-run-fallback.log"))
    assert len(types) == 24
    assert types["token_embd.weight"].name == "Q6_K"
    assert types["blk.0.attn_norm.weight"].name == "F32"
    assert types["blk.0.ffn_down.weight"].name == "Q5_0"  # Q4_K does not fit rows of 288
    assert types["blk.1.ffn_down.weight"].name == "Q8_0"


def test_f16_fallback_and_overrides_do_not_confuse():
    types = parse(log("dry-run-f16-fallback.log"))
    assert len(types) == 24
    assert types["blk.0.ffn_down.weight"].name == "F16"
    assert types["blk.0.attn_v.weight"].name == "Q6_K"
    assert types["blk.1.attn_k.weight"].name == "IQ2_S"


def test_warnings_inside_a_tensors_line_do_not_confuse():
    text = (
        "[   1/   2] a.weight    - [  300,   4,  1,  1], type =    f16, \n"
        "quantize : tensor cols 300 x 4 are not divisible by 256, required for q4_K - using fallback "
        "quantization q5_0\n"
        "size =     0.14 MiB ->     0.05 MiB (q5_0)\n"
        "====== did not find weights for b\n"
        "[   2/   2] b.weight    - [  256,   4,  1,  1], type =    f32, size =    0.001 MiB\n"
        "model size  =    19.28 MiB (16.01 BPW)\n"
    )
    assert {name: kind.name for name, kind in parse(text).items()} == {"a.weight": "Q5_0", "b.weight": "F32"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],  # cut off
        lambda text: re.sub(r"\[ +7/.*\n", "", text),  # a line lost
        lambda text: re.sub(r"\(q6_K\)", "", text),
        lambda text: text.replace("(q6_K)", "(q6_Z)"),
        lambda text: re.sub(r"size = .*", "", text),
    ],
)
def test_a_log_that_is_not_whole_is_an_error(spoil):
    with pytest.raises(UnreadableLog) as error:
        parse(spoil(log("dry-run-fallback.log")))
    assert isinstance(error.value, ToolFailed)


def test_the_log_of_a_real_run_is_not_taken_for_a_dry_run():
    with pytest.raises(UnreadableLog, match="token_embd"):
        parse(log("run.log"))


def test_dry_run_command():
    recipe = Recipe("Q4_K_M", rules=(Rule(r"^output\.weight$", BY_NAME["Q6_K"]),), pure=True, allow_requantize=True)
    words = argv(Path("/models/m.gguf"), recipe)
    assert words[:2] == ["llama-quantize", "--dry-run"]
    assert words[-2:] == [str(Path("/models/m.gguf").absolute()), "Q4_K_M"]
    assert words[2:-2] == ["--allow-requantize", "--pure", "--tensor-type", r"^output\.weight$=q6_k"]


def test_real_command_has_output_type_and_threads_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe("Q4_K_S", rules_file=Path("/r.txt"), imatrix=Path("i.gguf"), token_embedding_type=BY_NAME["Q4_K"])
    words = argv(Path("--m.gguf"), recipe, Path("7"), threads=3)
    assert words[-4:] == [
        str(tmp_path / "--m.gguf"),
        str(tmp_path / "7"),
        "Q4_K_S",
        "3",
    ]  # never an option, never a type
    assert "--dry-run" not in words
    assert words[words.index("--imatrix") + 1] == "i.gguf"
    assert words[words.index("--token-embedding-type") + 1] == "q4_k"


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_progress_names_each_tensor_once_however_the_log_arrives(size):
    names, text = [], log("run.log")
    watch = quantize.tensor_heads(names.append)
    next(watch)
    for start in range(0, len(text), size):
        watch.send(text[start : start + size])
    assert len(names) == len(set(names)) == 24
    assert names[0] == "output_norm.weight"
    assert names[-1] == "blk.1.ffn_up.weight"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "llama_model_loader: - kv 2: tokenizer.error str = x\n"
            "gguf_init_from_reader: duplicate tensor name 'blk.0.attn_k.weight' for tensor 14\n"
            "gguf_init_from_reader: failed to read tensor info\n"
            "llama_model_quantize: failed to quantize: llama_model_loader: failed to load model from a.gguf\n",
            "duplicate tensor name 'blk.0.attn_k.weight' for tensor 14",
        ),
        (
            "version: 0.5.0\nllama_model_quantize: failed to quantize: key a.b has wrong array length; expected 4, got 5\n"
            "llama_quantize: failed to quantize model from 'a.gguf'\n",
            "key a.b has wrong array length; expected 4, got 5",
        ),
        ("0.00.1 E llama_model_load: error loading model: missing tensor 'x'\n", "missing tensor 'x'"),
        ("all is well\n", None),
    ],
)
def test_the_first_reason_of_a_log(log, reason):
    assert first_reason(log.splitlines()) == reason
