"""The table of sizes: others' files by their quants, and how much smaller ours are."""

from dataclasses import replace

import pytest
from card_parts import card, file_of, measured, plan_of, published, rows
from measurement_parts import CONDITIONS

from quantplan.evaluate.compare import compare_measurements
from quantplan.evaluate.other_publishers import OtherFile, quant_of
from quantplan.report.card_data import CardData
from quantplan.report.card_sizes import own_quant, sizes


def table_of(data):
    table, notes = sizes(data)
    return rows(table, "File or quant"), notes


def alice(quant, file_bytes, kld=None, **fields):
    figures = (measured(kld, **fields),) if kld else ()
    return OtherFile("alice", f"m-{quant}.gguf", file_bytes, f"a-{quant}", figures)


@pytest.mark.parametrize(
    "name, quant",
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-8B-UD-q4_k_xl.gguf", "UD-Q4_K_XL"),
        ("Qwen3-8B.i1-IQ2_XS.gguf", "IQ2_XS"),
        ("sub/Qwen3-8B-BF16-00001-of-00002.gguf", "BF16"),
        ("Qwen3-8B-IQ4_XS-plan.gguf", "IQ4_XS"),
        ("Qwen3-8B.gguf", "Qwen3-8B"),
    ],
)
def test_the_quant_in_a_name(name, quant):
    assert quant_of(name) == quant


def test_a_file_stands_for_the_quant_that_it_has_the_size_of():
    assert own_quant(file_of("m-3.gguf", 1, plan=plan_of(budget_asked="q4_k_m"))) == "Q4_K_M"
    assert own_quant(file_of("m-Q5_K_M.gguf", 1, plan=plan_of(budget_asked="5bpw"))) == "Q5_K_M"
    assert own_quant(replace(file_of("m.gguf", 1), stock_quant="Q6_K")) == "Q6_K"


def test_without_others_only_f16_is_compared_with():
    weights, metadata = 256 * (512 + 256 + 256), 1_000  # of the three matrices
    q4_k = weights * 144 // 256  # bytes
    found, notes = table_of(published([0.01], sizes=(q4_k + metadata,)))
    assert found[0] == ["File or quant", "This repository", "Smaller than F16"]
    assert found[2][2] == f"{100 * (1 - (q4_k + metadata) / (2 * weights + metadata)):.1f} %" and "others" not in notes


def test_a_column_for_each_publisher():
    files = tuple(file_of(f"m-{q}.gguf", size, f"d-{q}") for q, size in (("Q3_K_M", 3_000_000), ("Q4_K_M", 4_000_000)))
    bob = OtherFile("b_b", "x-Q4_K_M.gguf", 4_200_000)
    data = CardData(files, {}, others=(alice("Q4_K_M", 5_000_000), alice("Q6_K", 6_000_000), bob))
    found, notes = table_of(data)
    assert found[0] == [
        *("File or quant", "alice", "b\\_b", "This repository"),
        *("Smaller than F16", "Smaller than theirs", "Smaller at the same KLD"),
    ]
    three, four, six = found[2:]
    assert three[:4] == ["`m-Q3_K_M.gguf`", "-", "-", "0.0030"] and three[-2:] == ["-", "-"]
    assert four[:4] == ["`m-Q4_K_M.gguf`", "0.0050", "0.0042", "0.0040"] and four[-2:] == ["4.8 %", "-"]
    assert six == ["Q6\\_K", "0.0060", *["-"] * 5]
    assert "Files without a KLD were not measured on this text." in notes


@pytest.mark.parametrize(
    "others, cell",
    [
        ([("Q4_K_M", 5_000_000, 0.02), ("Q5_K_M", 8_000_000, 0.009)], "50.0 % than Q5\\_K\\_M of alice"),
        ([("Q4_K_M", 5_000_000, 0.01003), ("Q5_K_M", 8_000_000, 0.009)], "20.0 % than Q4\\_K\\_M of alice"),
        ([("Q2_K", 2_000_000, 0.005)], "-100.0 % than Q2\\_K of alice"),
        ([("Q4_K_M", 5_000_000, 0.02)], "none of them has as low a KLD"),
        ([("Q4_K_M", 5_000_000, None)], "-"),
    ],
)
def test_the_same_kld(others, cell):
    data = published([0.01], sizes=(4_000_000,), others=tuple(alice(*other) for other in others))
    assert table_of(data)[0][2][-1] == cell


def test_klds_on_another_text_are_not_shown():
    other = alice("Q4_K_M", 5_000_000, 0.009, conditions=replace(CONDITIONS, chunks=4))
    found, notes = table_of(published([0.01], sizes=(4_000_000,), others=(other,)))
    assert "KLD" not in found[3][1] and found[2][-1] == "-" and "were not measured on this text" in notes


def test_stock_quants_of_comparisons_are_a_publisher():
    mine, theirs = measured(0.01, model_digest="d0"), measured(0.02, model_digest="s", file_bytes=5_000_000)
    data = published(
        [0.01], sizes=(4_000_000,), compared=(compare_measurements(["m-0.gguf", "Q4_K_M"], [mine, theirs]),)
    )
    found, _ = table_of(data)
    assert found[0][1] == "llama.cpp" and found[3][:2] == ["Q4\\_K\\_M", "0.0050 (KLD 0.02000 ± 0.00010)"]
    assert found[2][2] == "0.0040 (KLD 0.01000 ± 0.00010)" and found[2][-1] == "none of them has as low a KLD"
    assert "## Sizes\n\n| File or quant |" in card(data)
