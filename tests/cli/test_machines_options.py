"""--jobs, --scheduler and --rpc as a person types them."""

import json

import pytest
from rpc_server import rpc_server


@pytest.fixture
def words(small_model, small_imatrix, small_text):
    return (
        "probe",
        "-m",
        small_model,
        "--imatrix",
        small_imatrix,
        "--calibration",
        small_text,
        "-c",
        128,
        "--types",
        "Q4_K",
        "--chunks",
        4,
        "--sample",
        "4k",
        "--threads",
        1,
        "--json",
    )


def scales(ended):
    assert ended.code == 0, ended.err
    return json.loads(ended.out)["tensors"]


@pytest.mark.llamacpp
def test_probes_elsewhere_give_the_same(command, words, workplace, monkeypatch):
    """Each in a cache of its own: nothing is taken from another."""
    found = []
    with rpc_server() as server:
        for extra in ((), ("--jobs", 2), ("--rpc", server.address)):
            folder = workplace / f"cache{len(found)}"
            monkeypatch.setenv("QUANTPLAN_CACHE", str(folder))
            found.append(scales(command(*words, *extra)))
    own, *others = found
    for other in others:
        assert [row["name"] for row in other] == [row["name"] for row in own]
        for one, same in zip(own, other, strict=True):
            assert (one["kld"], one["windows"]) == (same["kld"], same["windows"])
            assert same["scale"] == pytest.approx(one["scale"], rel=1e-6)  # second moments are summed in another order


def test_nobody_listens(command, words):
    ended = command(*words, "--rpc", "127.0.0.1:1")
    assert ended.code == 1 and ended.error.startswith("error: no RPC server answers at 127.0.0.1:1; start one there")


@pytest.mark.parametrize(
    "extra, sentence",
    [
        (("--rpc", "somewhere"), "write host:port"),
        (("--rpc", "a:1", "--jobs", "2"), "--jobs 2 and --rpc a:1: choose one"),
        (("--scheduler", "somewhere"), "tcp://host:8786"),
    ],
)
def test_words_that_cannot_be_meant(command, words, extra, sentence):
    ended = command(*words, *extra)
    assert ended.code == 2 and sentence in ended.error


@pytest.mark.parametrize("extra", [("--engine", "llama-perplexity"), ("--speed",)])
def test_tools_run_here(command, small_model, small_text, extra):
    ended = command("measure", small_model, "-m", small_model, "--text", small_text, "--rpc", "a:1", *extra)
    assert ended.code == 2 and "llama.cpp's tools run on this machine" in ended.error
