"""Names and figures in Markdown stand there as they are, whatever is in them."""

import json

import pytest

from quantplan.report.markdown import block, code, escaped, folded, table, yaml_scalar


def test_markup_is_taken_literally():
    assert escaped("a|b_c*<i>\n[x](y) `z` #1") == "a\\|b\\_c\\*\\<i\\> \\[x\\](y) \\`z\\` \\#1"


@pytest.mark.parametrize(
    "text, found", [("a.gguf", "`a.gguf`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\nb", "`a b`")]
)
def test_code_survives_backticks_and_lines(text, found):
    assert code(text) == found


def test_a_block_is_fenced_by_more_than_is_in_it():
    assert block("x\n") == "```\nx\n```"
    assert block("```\nx", "sh") == "````sh\n```\nx\n````"


def test_a_summary_is_html():
    assert folded("a_b <c>", "x") == "<details>\n<summary>a_b &lt;c&gt;</summary>\n\nx\n\n</details>"


def test_no_cell_ends_a_row():
    lines = table(["File", "KLD", "Remark"], [[code("a|b"), "1", escaped("c|d")]], texts=(0, -1)).splitlines()
    assert lines[1] == "| :-- | --: | :-- |"
    assert lines[2] == "| `a\\|b` | 1 | c\\|d |"


@pytest.mark.parametrize("text", ["apache-2.0", "Qwen/Qwen3-8B", "me", "a b"])
def test_plain_yaml(text):
    assert yaml_scalar(text) == text


@pytest.mark.parametrize("text", ["no", "True", "1.0", "a: b", "- a", "#x", "", "'", "a\nb", "é", "a ", "[x]", "on"])
def test_yaml_that_would_be_something_else_is_quoted(text):
    assert json.loads(yaml_scalar(text)) == text and yaml_scalar(text)[0] == '"'
