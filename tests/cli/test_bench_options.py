"""Tests of llama-bench by its own options: which are run, what cannot be meant. Nothing is measured here."""

import pytest

USUAL = "pp512, tg128, pp512+tg128"


@pytest.mark.parametrize(
    "words, names",
    [
        (("--speed",), USUAL),
        (("-pg", "1024,1024"), "pp512, tg128, pp1024+tg1024"),
        (("-p", "512,2048", "-p", "2048"), "pp512, pp2048, tg128, pp512+tg128"),
        (("--n-gen", "32", "-p", "0", "--pg", "0"), "tg32"),
        (("-pg", "64,8", "-pg", "8,64", "--speed", "-r", "2"), "pp512, tg128, pp64+tg8, pp8+tg64"),
    ],
)
def test_tests_are_named_as_llama_bench_does(command, small_model, words, names):
    done = command("measure", small_model, *words, "--dry-run")
    assert done.code == 0, done.err
    assert f"llama-bench ({names}), {2 if '-r' in words else 5} repetitions, 1 files" in done.out


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("-pg", "1024"), "--pg 1024: write a prompt and a generation in tokens"),
        (("-pg", "0,128"), "--pg 0,128: write a prompt and a generation in tokens"),
        (("-p", "many"), "--n-prompt many: not a number of tokens"),
        (("--n-gen", "99999999999"), "not a number of tokens up to 16,777,216"),
        (("-p", "0", "--n-gen", "0", "-pg", "0"), "leave no test"),
    ],
)
def test_what_is_no_test(command, small_model, words, sentence):
    done = command("measure", small_model, *words, "--dry-run")
    assert done.code == 2 and sentence in done.error


def test_a_test_that_is_not_run_is_no_order(command, small_model):
    words = ("compare", small_model, "-m", small_model, "-pg", "8,8", "--sort", "pp512+tg128")
    done = command(*words)
    assert done.code == 2 and "choose from kld, ppl, size, pp512, tg128, pp8+tg8" in done.error
