import pytest
from model_parts import model_of

from quantplan.budget import Budget, human_bytes, parse_size
from quantplan.errors import BadFile, BadUsage

MODEL = model_of({"a.weight": (256, 1000)}, file_bytes=600_000)  # 256,000 weights


@pytest.mark.parametrize(
    "text, size",
    [
        ("17.9GB", 17_900_000_000),
        ("17.9 gb", 17_900_000_000),
        ("16.5GiB", 17_716_740_096),
        ("1.5mib", 1_572_864),
        ("700kB", 700_000),
        (".5GB", 500_000_000),
        ("123456B", 123_456),
        ("123456789", 123_456_789),
        ("1TB", 10**12),
        ("40%", 240_000),
        ("4.25bpw", 136_000 + 77),
        ("4.25 BPW", 136_000 + 77),
    ],
)
def test_parse(text, size):
    budget = Budget.parse(text, MODEL, metadata_bytes=77)
    assert (budget.bytes, budget.asked) == (size, text.strip())


def test_as_large_as_a_file(tmp_path):
    (tmp_path / "other.gguf").write_bytes(bytes(12345))
    assert Budget.parse(f"={tmp_path / 'other.gguf'}", MODEL).bytes == 12345


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "cannot read the budget ''"),
        ("abc", "write 17.9GB, 16.7GiB, 4.25bpw, 40% or =other.gguf"),
        ("-5GB", "cannot read"),
        ("1e9", "cannot read"),
        ("nan", "cannot read"),
        ("17,9GB", "cannot read"),
        ("0GB", "must be greater than zero"),
        ("5", "has no unit; write 5GB, 5GiB or 5bpw"),
        ("5XB", "unknown unit 'XB'"),
        ("9" * 400 + "bpw", "more than any disk holds"),
        ("9" * 400, "more than any disk holds"),
    ],
)
def test_nonsense(text, message):
    with pytest.raises(BadUsage, match=message):
        Budget.parse(text, MODEL)


@pytest.mark.parametrize("text", ["=", "=nofile.gguf", "=."])
def test_no_file_to_be_as_large_as(text):
    with pytest.raises(BadFile, match="cannot take the budget from"):
        Budget.parse(text, MODEL)


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 << 30), ("8 gb", 8 * 10**9), ("800MiB", 800 << 20), ("65536", 65536)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("24", "the VRAM '24' has no unit; write 24GB or 24GiB"),
        ("4bpw", "unknown unit 'bpw' in the VRAM '4bpw'; known: GB GiB MB MiB$"),
        ("40%", "unknown unit '%'"),
        ("much", "cannot read the VRAM 'much'; write 24GiB"),
        ("0GB", "must be greater than zero"),
    ],
)
def test_sizes_that_are_none(text, message):
    with pytest.raises(BadUsage, match=message):
        parse_size(text, "VRAM")


def test_human_bytes():
    assert [human_bytes(size) for size in (17_913_000_000, 2_500_000, 999, 1000)] == [
        "17.91 GB",
        "2.50 MB",
        "999 B",
        "1.00 kB",
    ]
