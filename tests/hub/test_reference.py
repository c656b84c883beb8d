"""References to models on a hub, and which file llama.cpp's rules make of them."""

from pathlib import Path

import pytest

from quantplan.errors import BadUsage, NothingSelected
from quantplan.hub.reference import HubReference, is_reference, model_files, parse_reference

FILES = (
    "README.md",
    "mmproj-Q4_K_M.gguf",
    "imatrix-Q4_K_M.gguf",
    "M-IQ4_XS.gguf",
    "M-Q4_K_M.gguf",
    "M-Q8_0.gguf",
    "M-BF16-00001-of-00002.gguf",
    "M-BF16-00002-of-00002.gguf",
)


@pytest.mark.parametrize(
    "text, reference",
    [
        ("hf://o/r/m.gguf", HubReference("o/r", "m.gguf")),
        ("hf:/o/r/m.gguf", HubReference("o/r", "m.gguf")),  # what Path leaves of it
        ("hf://o/r/sub/folder/m-Q4_K.gguf@v1.0", HubReference("o/r", "sub/folder/m-Q4_K.gguf", revision="v1.0")),
        ("hf://o/r@refs-pr-1/m.gguf", HubReference("o/r", "m.gguf", revision="refs-pr-1")),
        ("hf://o/r", HubReference("o/r")),
        ("o/R-2.5_b", HubReference("o/R-2.5_b")),
        ("o/r:Q4_K_M", HubReference("o/r", quant="Q4_K_M")),
        ("hf://o/r:UD-Q4_K_XL", HubReference("o/r", quant="UD-Q4_K_XL")),
    ],
)
def test_references(text, reference):
    assert parse_reference(text) == reference
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text, message",
    [
        ("hf://", "cannot read"),
        ("o", "cannot read"),
        ("o/r:", "cannot read"),
        ("hf://o/r:Q4_K_M/m.gguf", "a file or a quant"),
        ("hf://o/r/model.safetensors", "is not a GGUF file"),
        ("hf://o/r@a/m.gguf@b", "two revisions"),
        ("hf://o/../m.gguf/x y?z:q", "cannot read"),
    ],
)
def test_what_is_no_reference(text, message):
    with pytest.raises(BadUsage, match=message):
        parse_reference(text)


def test_paths_are_told_from_references():
    assert is_reference(Path("hf://o/r/m.gguf")) and is_reference("hf://o/r")
    assert not is_reference(Path("hf/o/r/m.gguf")) and not is_reference("./hf:/x")


@pytest.mark.parametrize(
    "quant, files",
    [
        (None, ["M-Q4_K_M.gguf"]),
        ("q8_0", ["M-Q8_0.gguf"]),
        ("IQ4_XS", ["M-IQ4_XS.gguf"]),
        ("bf16", ["M-BF16-00001-of-00002.gguf", "M-BF16-00002-of-00002.gguf"]),
    ],
)
def test_a_quant_means_a_file(quant, files):
    assert list(model_files(HubReference("o/r", quant=quant), FILES)) == files


def test_without_the_defaults_the_first_model_is_meant():
    assert model_files(HubReference("o/r"), ("a.txt", "mmproj-x.gguf", "x-Q8_0.gguf", "x-Q2_K.gguf")) == (
        "x-Q8_0.gguf",
    )
    assert model_files(HubReference("o/r"), ("x-Q2_K.gguf", "x-Q3_K.gguf")) == ("x-Q2_K.gguf",)


def test_a_file_may_be_any_shard():
    named = HubReference("o/r", "M-BF16-00002-of-00002.gguf")
    assert model_files(named, FILES) == ("M-BF16-00001-of-00002.gguf", "M-BF16-00002-of-00002.gguf")


@pytest.mark.parametrize(
    "reference, files, message",
    [
        (
            HubReference("o/r", quant="Q5_K_M"),
            FILES,
            "o/r has no quant Q5_K_M; there are: M-IQ4_XS.gguf, M-Q4_K_M.gguf",
        ),
        (HubReference("o/r", "no.gguf"), FILES, "o/r has no no.gguf; there are: M-IQ4_XS.gguf"),
        (HubReference("o/r"), ("README.md", "model.safetensors"), "o/r has no GGUF model"),
        (HubReference("o/r", quant="BF16"), FILES[:-1], "1 of 2 shards are missing, first M-BF16-00002-of-00002.gguf"),
    ],
)
def test_nothing_is_meant(reference, files, message):
    with pytest.raises(NothingSelected, match=message):
        model_files(reference, files)
