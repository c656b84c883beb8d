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
        ("llama-quantize a.gguf b.gguf Q4_K_M", BadFile, "no --tensor-type or --custom-q"),
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


# --- texts as people keep them

COMMAND = "llama-quantize --tensor-type attn_v=q8_0 model-F16.gguf model-a.gguf Q4_K_M"
OTHER = "llama-quantize --tensor-type attn_v=q4_k model-F16.gguf model-b.gguf Q3_K_M"


@pytest.mark.parametrize(
    "text",
    [
        f"{COMMAND} | tee log.txt",
        f"{COMMAND} 2>&1 >>log.txt && echo done",
        f"{COMMAND} 16 &> log; ./llama-server -m model-a.gguf --port 8080",
        f"{COMMAND}\npause",
        f"for file in *.gguf; do {COMMAND}; done",
        f"sudo nice -n 5 ./build/bin/{COMMAND} $(nproc) &",
        f"{COMMAND}   # it's mine\nexit 0",
        f"# it's mine\n{COMMAND}\n# don't",
        "llama-quantize --tensor-type attn_v=q8_0 model-F16.gguf Q4_K_M 8",
        "TYPE=Q4_K_M\nRULE='attn_v=q8_0'\nllama-quantize --tensor-type \"$RULE\" in.gguf out-${TYPE}.gguf $TYPE",
        'rules=(--tensor-type\n  attn_v=q8_0)\n"$BIN/llama-quantize" "${rules[@]}" in.gguf out.gguf Q4_K_M',
        'OPTIONS="--tensor-type attn_v=q8_0"\n$QUANTIZE $OPTIONS in.gguf out.gguf Q4_K_M',
        "cat > note.txt <<'END'\nit's\nEND\n" + COMMAND,
        "@echo off\nrem don't\nllama-quantize.exe ^\n --tensor-type attn_v=q8_0 ^\n C:\\Bob's\\in.gguf out.gguf Q4_K_M\npause",
        "& .\\llama-quantize.exe `\n  --tensor-type attn_v=q8_0 `\n  in.gguf out.gguf Q4_K_M",
        f"It's so: don't.\n\n```bash\n$ {COMMAND}\n```\nIsn't it?",
        f"- It's a list\n  ~~~\n  {COMMAND}\n  ~~~\n",
        f"> It's quoted\n> ```\n> {COMMAND}\n> ```\n",
        f"It's older Markdown.\n\n    {COMMAND}\n\nDon't you see?",
        f"It's made by {COMMAND}",
        f"<pre><code>{COMMAND.replace('attn_v=q8_0', '&quot;attn_v=q8_0&quot;')}</code></pre> It's HTML",
        f"Run `{COMMAND}`, it's all.",
        f"{COMMAND}\n{COMMAND.replace('model-a', 'model-c')}",  # the same recipe twice is one
        COMMAND.replace("--tensor", "\u2013tensor").replace("attn_v=q8_0", "\u201cattn_v=q8_0\u201d"),
    ],
)
def test_a_command_ends_where_its_shell_ends_it(text):
    found = parse_rules(text)
    assert ([str(rule) for rule in found.rules], found.ftype) == (["attn_v=q8_0"], "Q4_K_M")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (f"{COMMAND}\n{OTHER}", "the text holds 2 recipes; the first was read"),
        (f"{COMMAND} && {OTHER}", "2 recipes"),
        (f"```\n{COMMAND}\n```\nIt's better:\n```\n{OTHER}\n```", "2 recipes"),
        (f"```\n{COMMAND}\n```\n```\nllama-quantize --tensor-type 'broken\n```", "2 recipes"),
        (f"`{COMMAND}` or `{OTHER}`", "2 recipes"),
        (f"for q in Q4_K_M Q3_K_M; do {COMMAND.replace('Q4_K_M', '$q')}; done", "2 files in a loop"),
    ],
)
def test_of_several_recipes_the_first_is_read(text, warning):
    found = parse_rules(text)
    assert ([str(rule) for rule in found.rules], found.ftype) == (["attn_v=q8_0"], "Q4_K_M")
    assert [warning in each for each in found.warnings] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "cat <<'END' > rules.txt\nattn_v=q8_0\nEND\nllama-quantize --tensor-type-file rules.txt m.gguf o.gguf Q4_K_M",
        "v=attn_v\ncat > r.txt << END\n$v=q8_0\nEND\nllama-quantize --tensor-type-file r.txt m.gguf o.gguf Q4_K_M",
        "tee r.txt <<END\nattn_v=q8_0\nEND\nllama-quantize --tensor-type-file r.txt m.gguf o.gguf Q4_K_M",
        'llama-quantize --tensor-type "${RULE:-attn_v=q8_0}" m.gguf "${2-o.gguf}" ${1:-Q4_K_M}',
        'import subprocess\nsubprocess.run(["llama-quantize", "--tensor-type", "attn_v=q8_0", src, f"{x}.gguf", "Q4_K_M"])',
        "It's easy:\n```python\ncmd = ('/b/llama-quantize', '--tensor-type', r'attn_v=q8_0', str(src), dst, 'Q4_K_M', '8')\n```",
        "llama-quantize --tensor-type \x1b[32mattn_v=q8_0\x1b[0m m.gguf o.gguf \x1b[1mQ4_K_M\x1b[0m",
        "llama-quantize \u2013\u2013tensor-type \u201cattn_v=q8_0\u201d m.gguf o.gguf Q4_K_M",
    ],
)
def test_rules_in_files_defaults_lists_and_colours(text):
    """Here-documents, defaults of variables, Python's lists of words, what a terminal has coloured."""
    found = parse_rules(text)
    assert ([str(rule) for rule in found.rules], found.ftype, found.warnings) == (["attn_v=q8_0"], "Q4_K_M", ())


def test_a_file_type_may_be_its_number():
    assert parse_rules("llama-quantize --tensor-type a=q8_0 in.gguf out.gguf 15 8").ftype == "15"
    assert parse_rules("llama-quantize --tensor-type a=q8_0 in.gguf 15").ftype == "15"
    assert parse_rules("llama-quantize --tensor-type a=q8_0 in.gguf").ftype is None


@pytest.mark.parametrize(
    ("option", "warning"),
    [
        (
            "--exclude-weights ffn_down",
            "--exclude-weights ffn_down is ignored: the plan is made with the whole imatrix",
        ),
        ("--override-kv a.b=int:3", "metadata, not types"),
        ("--tensor-pad [[704,768]]", r"--tensor-pad [[704,768]] is no option of llama-quantize that is known here"),
        ("--repack", "--repack is no option"),
    ],
)
def test_options_that_a_plan_cannot_follow_are_told(option, warning):
    found = parse_rules(COMMAND.replace("--tensor-type", f"{option} --tensor-type"))
    assert found.ftype == "Q4_K_M"
    assert [warning in each for each in found.warnings] == [True]


def test_an_option_after_the_model_is_told():
    (warning,) = parse_rules("llama-quantize in.gguf out.gguf Q4_K_M --tensor-type attn_v=q8_0").warnings
    assert "stands after the model" in warning


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--prune-layers 3,4", "surgery apply MODEL 'delete 3 4'"),
        ("--attn-v-type q8_0", "say it with --custom-q"),
    ],
)
def test_options_that_make_another_model(option, words):
    with pytest.raises(BadFile, match=words):
        parse_rules(COMMAND.replace("--tensor-type", f"{option} --tensor-type"))


def test_the_output_may_be_left_as_it_is():
    assert parse_rules(COMMAND.replace("--tensor-type", "--leave-output-tensor --tensor-type")).leave_output


@pytest.mark.parametrize(
    "text",
    [
        "attn_v=q8_0   # values, the best\nffn_down=q6_k\t# it's one",
        "attn_v = q8_0\nffn_down\t=\tq6_k\n",
        "`attn_v`=`q8_0`\n`ffn_down=q6_k`",
        "Built with `--tensor-type attn_v=q8_0` and `--tensor-type ffn_down=q6_k` over Q4_K_M; it's good.",
        "It's `attn_v=q8_0` and `ffn_down=q6_k`.",
        "```\nattn_v=q8_0 ffn_down=q6_k\n```\nDon't forget.",
        "-attn_v=q6_k\n+attn_v=q8_0\n ffn_down=q6_k\n",
        "+attn_v=q8_0\n+ffn_down=q6_k",
        "- attn_v=q8_0\n- ffn_down=q6_k",
        "custom='\nattn_v=q8_0 # values\nffn_down=q6_k'\nllama-quantize --custom-q \"$custom\" in.gguf out.gguf Q4_K",
        "```\ncustom='attn_v=q8_0,ffn_down=q6_k'\n```\nIt's then\n```\nllama-quantize --custom-q \"$custom\" i o Q4_K\n```",
    ],
)
def test_comments_blanks_and_ticks_about_rules(text):
    assert [str(rule) for rule in parse_rules(text).rules] == ["attn_v=q8_0", "ffn_down=q6_k"]


def test_a_long_word_is_not_printed_whole():
    with pytest.raises(BadFile) as error:
        parse_rules("x" * 5000)
    assert len(str(error.value)) < 200
