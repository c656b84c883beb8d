"""Chats as calibration and evaluation text: every command gets the same tokens."""

import json
import shlex

import numpy as np
import pytest
from chat_models import TOOLS, with_template

from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.texts import read_texts
from quantplan.records.journal import text_digest

pytestmark = pytest.mark.llamacpp
SHORT = ("--ctx", "64", "--threads", "1")


@pytest.fixture(scope="module")
def chat_model(small_model, tmp_path_factory):
    return with_template(small_model, tmp_path_factory.mktemp("chat") / "tied-chat.gguf", TOOLS)


@pytest.fixture
def chats(workplace):
    """40 conversations, some 60 tokens each."""
    path = workplace / "chats.jsonl"
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {number} times seven? Show how you found the answer."},
                {
                    "role": "assistant",
                    "content": f"{number} times seven is {7 * number}: I added {number} seven times.",
                },
            ],
            "tools": [{"type": "function", "function": {"name": "multiply"}}],
        }
        for number in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_llama_imatrix_gets_the_tokens_of_our_own_pass(command, chat_model, chats):
    """Its values over the rendered text with --parse-special are those of the pass in this process."""
    words = ("imatrix", chat_model, "-f", chats, *SHORT)
    assert "--parse-special" in shlex.split(command(*words, "--dry-run").out)
    assert command(*words, "-o", "theirs.gguf").code == 0
    theirs = read_imatrix("theirs.gguf")
    done = command(*words, "--chunks", theirs.chunk_count, "--second-moments", "-o", "ours.gguf")
    assert done.code == 0, done.err
    ours = read_imatrix("ours.gguf")
    assert ours.chunk_count == theirs.chunk_count >= 30, "the whole text"
    for name, entry in theirs.entries.items():
        assert np.array_equal(ours.entries[name].counts, entry.counts), name
        # the first input is that of the embeddings alone: whatever is right about it is right about the tokens
        rtol = 2e-5 if name == "blk.0.attn_k.weight" else 2e-3
        np.testing.assert_allclose(ours.entries[name].sum2, entry.sum2, rtol=rtol, atol=1e-6 * entry.sum2.max())


def test_measured_on_chats(command, chat_model, chats):
    words = ("measure", chat_model, "--model", chat_model, "--text", chats, *SHORT, "--json")
    (measured,) = json.loads(command(*words).out)
    assert measured["conditions"]["text_digest"] == text_digest(read_texts([chats], read_model(chat_model)))
    assert measured["kld"] == 0 and measured["conditions"]["windows"] >= 30
    refused = command(*words, "--engine", "llama-perplexity")
    assert refused.code == 2 and "llama-perplexity parses no special tokens" in refused.error


def test_a_chat_that_the_template_refuses_is_named(command, chat_model, chats):
    twice = {"messages": [{"role": "user", "content": "one"}] * 2}
    with chats.open("a") as file:
        file.write("\n" + json.dumps(twice))
    for words in (
        ("imatrix", chat_model, "-f", chats),
        ("probe", "--model", chat_model, "-f", chats),
        ("measure", chat_model, "--model", chat_model, "--text", chats),
    ):
        done = command(*words, *SHORT)
        assert done.code == 3 and f"{chats}, line 41: the model's chat template refuses" in done.error


def test_special_tokens_of_plain_texts(command, chat_model, workplace):
    """On request, or as the project says; it is another text then."""
    (workplace / "plain.txt").write_text("A line of text.<|endoftext|>\n" * 60)
    made = command("init", chat_model, "--folder", ".", "--text", "plain.txt", "--parse-special", "--ctx", "64")
    assert made.code == 0 and "\nparse-special = true" in (workplace / "quantplan.toml").read_text()

    def digest(*words):
        done = command("measure", chat_model, "--threads", "1", "--chunks", "2", "--json", *words)
        assert done.code == 0, done.err
        return json.loads(done.out)[0]["conditions"]["text_digest"]

    parsed = digest()
    (workplace / "quantplan.toml").unlink()
    plain = ("--text", "plain.txt", "--model", chat_model, "--ctx", "64")
    assert digest(*plain) != digest(*plain, "--parse-special") == parsed


def test_the_default_texts_on_request(command, chat_model, workplace):
    words = ("measure", chat_model, "--model", chat_model, "--threads", "1", "--ctx", "256", "--chunks", "10", "--json")
    done = command(*words, "--text", "default")
    assert done.code == 0, done.err
    domains = json.loads(done.out)[0]["domains"]
    assert [(domain["name"], domain["windows"]) for domain in domains] == [
        (name, 2) for name in ("chat", "code", "languages", "prose", "tools")
    ]
    asked = command(*words)
    assert asked.code == 2 and "or --text default, quantplan's own small texts" in asked.error
    hinted = command("init", chat_model, "--folder", ".")
    assert 'calibration = "default", text = "default"' in hinted.err
    named = command("init", chat_model, "--folder", ".", "--calibration", "default", "--text", "default", "--force")
    written = (workplace / "quantplan.toml").read_text()
    assert named.code == 0 and 'calibration = "default"' in written and '\ntext = "default"' in written
    (workplace / "below").mkdir()
    dry = command("measure", chat_model, "--chunks", "10", "--dry-run")
    assert dry.code == 0 and "PPL and KLD on default (in-process)" in dry.out
