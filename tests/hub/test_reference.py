"""References to models on a hub, and which file llama.cpp's rules make of them."""

from pathlib import Path

import pytest

from quantplan.errors import BadUsage, NothingSelected
from quantplan.hub.reference import RECORD, HubReference, is_reference, model_files, parse_reference

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
        ("hf://o/r/BF16", HubReference("o/r", "BF16")),
        ("hf://o/r/m.GGUF", HubReference("o/r", "m.GGUF")),
    ],
)
def test_references(text, reference):
    assert parse_reference(text) == reference
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text, reference",
    [
        ("https://huggingface.co/o/r/resolve/main/m.gguf?download=true", HubReference("o/r", "m.gguf")),
        ("https:/huggingface.co/o/r/blob/main/sub/m%20x.gguf", HubReference("o/r", "sub/m x.gguf")),
        ("http://hf.co/o/r/raw/v1.0/m.gguf#x", HubReference("o/r", "m.gguf", revision="v1.0")),
        ("https://huggingface.co/o/r/blob/refs%2Fpr%2F1/m.gguf", HubReference("o/r", "m.gguf", revision="refs/pr/1")),
        ("https://huggingface.co/o/r/tree/main/BF16", HubReference("o/r", "BF16")),
        ("https://huggingface.co/o/r/tree/main", HubReference("o/r")),
        ("https://huggingface.co/o/r", HubReference("o/r")),
        ("huggingface.co/o/r/", HubReference("o/r")),
        ("hf.co/o/r:Q4_K_M", HubReference("o/r", quant="Q4_K_M")),
        ("https://hf-mirror.com/o/r/resolve/main/m.gguf", HubReference("o/r", "m.gguf")),
    ],
)
def test_addresses_as_browsers_show_them(text, reference):
    assert parse_reference(text) == reference
    assert is_reference(Path(text)) and parse_reference(Path(text).as_posix()) == reference


def test_the_address_of_the_hub_in_use(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8080/")
    assert parse_reference("http://127.0.0.1:8080/o/r/resolve/main/m.gguf") == HubReference("o/r", "m.gguf")


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
        ("https://example.com/o/r/resolve/main/m.gguf", "only models on Hugging Face"),
        ("https://huggingface.co/o", "not the address of a model"),
        ("https://huggingface.co/o/r/blob/main/README.md", "is not a GGUF file"),
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


PUBLISHED = (
    "model-4b-it-BF16.gguf",
    "model-4b-it-F16.gguf",
    "model-4b-it-UD-Q4_K_XL.gguf",
    "model-4b-it-UD-Q4_K_M.gguf",
    "model-4b-it.i1-Q5_K_M.gguf",
    "model-4b-it.Q5_K_M.gguf",
    "model-4b-it-Q4_K_M.gguf",
    "model-4b-it-Q4_K_S-imat.gguf",
    "model-4b-it-mtp-IQ4_XS.gguf",
    "model-4b-it-mtp-Q6_K.gguf",
    "model-4b-it-Q6_K.gguf",
    "model_4b_it_q8_0.GGUF",
    "Q3_K_M/model-00001-of-00002.gguf",
    "Q3_K_M/model-00002-of-00002.gguf",
    "mtp-model-4b-it-Q4_K_M.gguf",
    "mmproj-F16.gguf",
)


@pytest.mark.parametrize(
    "quant, file",
    [
        ("F16", "model-4b-it-F16.gguf"),
        ("f16", "model-4b-it-F16.gguf"),
        ("fp16", "model-4b-it-F16.gguf"),
        ("BF16", "model-4b-it-BF16.gguf"),
        ("Q4_K_M", "model-4b-it-Q4_K_M.gguf"),
        ("UD-Q4_K_M", "model-4b-it-UD-Q4_K_M.gguf"),
        ("Q4_K_XL", "model-4b-it-UD-Q4_K_XL.gguf"),
        ("Q5_K_M", "model-4b-it.Q5_K_M.gguf"),
        ("i1-Q5_K_M", "model-4b-it.i1-Q5_K_M.gguf"),
        ("Q4_K_S", "model-4b-it-Q4_K_S-imat.gguf"),
        ("IQ4_XS", "model-4b-it-mtp-IQ4_XS.gguf"),
        ("Q6_K", "model-4b-it-Q6_K.gguf"),
        ("Q8_0", "model_4b_it_q8_0.GGUF"),
        ("Q3_K_M", "Q3_K_M/model-00001-of-00002.gguf"),
        (None, "model-4b-it-Q4_K_M.gguf"),
    ],
)
def test_a_quant_is_a_whole_word_and_exact_ones_go_first(quant, file):
    assert model_files(HubReference("o/r", quant=quant), PUBLISHED)[0] == file


@pytest.mark.parametrize("quant", ["Q4_K", "Q4_XS", "Q2_K", "16"])
def test_a_part_of_a_word_is_no_quant(quant):
    with pytest.raises(NothingSelected, match=f"no quant {quant}; there are: model-4b-it-BF16.gguf"):
        model_files(HubReference("o/r", quant=quant), PUBLISHED)


def test_only_bf16_is_no_f16():
    with pytest.raises(NothingSelected, match="no quant F16; there are: m-BF16.gguf, m-Q4_K_M.gguf"):
        model_files(HubReference("o/r", quant="F16"), ("m-BF16.gguf", "m-Q4_K_M.gguf", "mmproj-F16.gguf"))


def test_a_folder_means_its_model():
    files = model_files(HubReference("o/r", "Q3_K_M"), PUBLISHED)
    assert files == ("Q3_K_M/model-00001-of-00002.gguf", "Q3_K_M/model-00002-of-00002.gguf")
    with pytest.raises(NothingSelected, match="o/r has no Q2_K; there are"):
        model_files(HubReference("o/r", "Q2_K"), PUBLISHED)


def test_a_whole_file_may_have_the_name_of_a_shard():
    name = "Merged-Model-00001-of-00013.gguf"
    assert model_files(HubReference("o/r"), (name,)) == (name,)


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


def test_a_record_is_a_json_file():
    table = HubReference("o/r", "sub/m.sensitivity.json", revision="v1")
    assert parse_reference("hf:/o/r/sub/m.sensitivity.json@v1", RECORD) == table
    assert parse_reference("https://huggingface.co/o/r/blob/v1/sub/m.sensitivity.json", RECORD) == table
    for text in ("hf://o/r", "hf://o/r/m.gguf", "https://huggingface.co/o/r"):
        with pytest.raises(BadUsage, match="name a JSON file of the repository: hf://owner/repo/table.json"):
            parse_reference(text, RECORD)
    assert model_files(HubReference("o/r", "t.json"), ("t.json", "m.gguf")) == ("t.json",)
    with pytest.raises(NothingSelected, match="o/r has no u.json; JSON files there: t.json"):
        model_files(HubReference("o/r", "u.json"), ("t.json", "m.gguf"))
