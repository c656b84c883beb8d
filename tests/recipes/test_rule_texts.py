"""Rules as others write them, in all forms."""

import pytest

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.recipes.rule_texts import parse_rules
from quantplan.recipes.rules import write_rules

Q4, Q6, Q8 = BY_NAME["Q4_K"], BY_NAME["Q6_K"], BY_NAME["Q8_0"]


def names(blocks):
    return [f"blk.{block}.{role}.weight" for block in range(blocks) for role in ("attn_v", "ffn_up")]


def test_rules_file_is_split_at_white_space():
    text = parse_rules("attn_v=Q6_K\n\n  ffn_.*=iq4_xs\toutput=q8_0 ")
    assert [str(rule) for rule in text.rules] == ["attn_v=q6_k", "ffn_.*=iq4_xs", "output=q8_0"]
    assert text.ftype is None


def test_written_rules_read_back():
    assignment = {name: Q6 if "attn" in name else Q4 for name in names(12)}
    rules = write_rules(assignment)
    assert parse_rules("\n".join(map(str, rules))).rules == rules
    assert parse_rules(" ".join(f"--tensor-type '{rule}'" for rule in rules)).rules == rules


def test_command_line():
    text = parse_rules(
        "./llama-quantize --imatrix i.gguf --pure --token-embedding-type q4_k --tensor-type "
        "'attn_(k|v)=q8_0' \\\n"
        '  --tensor-type "ffn_down=q6_k" --output-tensor-type q6_k in-f16.gguf out.gguf Q4_K_M 8'
    )
    assert [str(rule) for rule in text.rules] == ["attn_(k|v)=q8_0", "ffn_down=q6_k"]
    assert (text.ftype, text.pure, text.token_embedding, text.output) == ("Q4_K_M", True, Q4, Q6)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", BadFile, "no rules"),
        ("# mine\n# only", BadFile, "only comments"),
        ("attn_v:q6_k", BadFile, "PATTERN=TYPE"),
        ("=q6_k", BadFile, "PATTERN=TYPE"),
        ("attn_v=", BadFile, "PATTERN=TYPE"),
        ("attn_v=q6k", NothingSelected, "Q6_K"),
        ("--tensor-type", BadFile, "ends after"),
        ("--tensor-type 'x", BadFile, "split"),
        ("--pure a.gguf Q4_K", BadFile, "no --tensor-type or --custom-q"),
        ("--tensor-type-file r.txt a.gguf Q4_K", BadFile, "r.txt"),
    ],
)
def test_bad_rule_texts(text, error, words):
    with pytest.raises(error, match=words):
        parse_rules(text)


# --- ik_llama.cpp and recipes


@pytest.mark.parametrize(
    "text",
    [
        r"attn_v=q8_0,ffn_.*_exps=iq4_kt",
        r"--custom-q 'attn_v=q8_0,ffn_.*_exps=iq4_kt'",
        "llama-quantize --custom-q attn_v=q8_0 --custom-q 'ffn_.*_exps=iq4_kt' in.gguf out.gguf IQ4_K 8",
        "# attention\nattn_v=q8_0\n\n## experts, as in Thireus' files\nffn_.*_exps=iq4_kt\n## THE END!",
        '#!/usr/bin/env bash\ncustom="\n# don\'t mind\nattn_v=q8_0\nffn_.*_exps=iq4_kt\n"\n\ncustom=$(\n'
        "  echo \"$custom\" | grep -v '^#' | sed -Ez 's:\\n+:,:g;s:,$::;s:^,::'\n)\n"
        './build/bin/llama-quantize --custom-q "$custom" --imatrix i.dat in.gguf out.gguf IQ4_K 24',
    ],
)
def test_forms_of_ik_llama_cpp(text):
    found = parse_rules(text)
    assert [str(rule) for rule in found.rules] == ["attn_v=q8_0", "ffn_.*_exps=iq4_kt"]
    assert found.keep_case
    assert found.ftype == ("IQ4_K" if "out.gguf" in text else None)


def test_a_comma_in_a_pattern_is_no_list():
    (rule,) = parse_rules(r"blk\.[0-9]{1,2}\.attn_v=q8_0").rules
    assert str(rule) == r"blk\.[0-9]{1,2}\.attn_v=q8_0"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('llama-quantize --custom-q "$rules" a b Q4_K', BadFile, "shell variable rules"),
        ("llama-quantize --custom-q a=q8_0 --tensor-type b=q8_0 a b Q4_K", BadFile, "keep one of them"),
        ("llama-quantize --custom-q a a b Q4_K", BadFile, "PATTERN=TYPE"),
        ("a=q8_0,b=iq9_k", NothingSelected, "did you mean"),
        ("a=i32", NothingSelected, "no type for weights"),
    ],
)
def test_bad_texts_of_ik_llama_cpp(text, error, words):
    with pytest.raises(error, match=words):
        parse_rules(text)
