"""Every kind of file that quantplan reads: a valid one, how it is damaged, and who reads it; what may come of it and what not.

A damaged input is read, or refused with a ``QuantplanError`` of one printable sentence. All else is a fault: another exception,
a warning of Python, more than 10 seconds, more than a gigabyte on top of what the process has.
"""

import json
import re
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import record_parts
from model_parts import imatrix_of
from mutated_gguf import GgufParts, damaged_gguf, small_llama, tiny_arrays
from mutations import ODD_TEXTS, damaged, damaged_json, damaged_text

from quantplan.analyze.statistics import statistics
from quantplan.budget import Budget, human_bytes, parse_size
from quantplan.cache_types import parse_kv
from quantplan.cli.memory import parse_contexts
from quantplan.cli.plan_options import parse_sample
from quantplan.errors import BadUsage, QuantplanError
from quantplan.evaluate.suites.suite_files import SHORT, bundled_suite, read_suite
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.evaluate.task_files import Question, encode, read_task_file
from quantplan.execution import parse_execution
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import number_arrays, read_model, tensor_rows
from quantplan.gguf.writer import metadata_bytes
from quantplan.hub.reference import parse_reference
from quantplan.llamacpp import ggml
from quantplan.llamacpp.chat_lines import conversations
from quantplan.project import DEFAULT_TEXTS, project_text, read_project, read_text
from quantplan.quant_type import parse_types
from quantplan.recipes.import_sensitivities import sensitivity_table
from quantplan.recipes.layer_types import parse_layer_types
from quantplan.recipes.published_sensitivities import read_published
from quantplan.recipes.rule_texts import parse_rules
from quantplan.recipes.rules import resolve
from quantplan.records.cache import Cache, Plain
from quantplan.records.codec import RecordFormat
from quantplan.records.formats import (
    COMPARISONS,
    MEASUREMENTS,
    PLANS,
    RUNS,
    SENSITIVITY_TABLES,
    TASK_SCORES,
    THROUGHPUTS,
)
from quantplan.records.journal import Journal
from quantplan.selector import Selector, parse_assignment
from quantplan.sensitivity.moment_files import INDEX_FORMAT, read_sums, write_sums
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import edits_text, parse_edits
from quantplan.surgery.layer_map_files import LAYER_MAPS
from quantplan.surgery.operation import operate
from quantplan.surgery.search.families import parse_family
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS

SECONDS, MEMORY = 10, 1 << 30
READ, REFUSED = "read", "refused"
RECORDS = (
    COMPARISONS,
    INDEX_FORMAT,
    LAYER_MAPS,
    LEADERBOARDS,
    MEASUREMENTS,
    PLANS,
    RUNS,
    SENSITIVITY_TABLES,
    SUITE_SCORES,
    TASK_SCORES,
    THROUGHPUTS,
)
_DATA = Path(__file__).parent / "data"
_BLOCKS = 6
_NAMES = tuple(
    f"blk.{block}.{role}.weight"
    for block in range(_BLOCKS)
    for role in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
) + ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Kind:
    """``seeds``: contents of whole files, as ``damage`` takes them; ``read``: all that readers of such a file do with it."""

    name: str
    suffix: str
    seeds: Callable[[], Sequence[Any]]
    damage: Callable[[Random, Any], bytes]
    read: Callable[[Path], object]

    def input(self, random: Random) -> bytes:
        return self.damage(random, random.choice(_seeds_of(self)))


@cache
def _seeds_of(kind: Kind) -> Sequence[Any]:
    return tuple(kind.seeds())


class Fault(AssertionError):
    """Neither read nor refused in one sentence."""


def outcome(kind: Kind, data: bytes, folder: Path) -> str:
    """READ or REFUSED; Fault for anything else that comes of an input of that kind."""
    path = folder / f"input{kind.suffix}"
    path.write_bytes(data)
    before = sorted(folder.rglob("*"))
    try:
        with limits(), warnings.catch_warnings(action="error"):
            kind.read(path)
    except QuantplanError as error:
        check_sentence(error)
        return REFUSED
    except Exception as error:  # the fault is told with its input
        raise Fault(f"{kind.name}: {type(error).__name__}: {str(error)[:300]}\ninput: {data[:2000]!r}") from error
    finally:
        if sorted(folder.rglob("*")) != before:
            raise Fault(f"{kind.name}: files were left behind")
    return READ


def check_sentence(error: QuantplanError) -> None:
    """Fault unless the message is printable, and short enough to be read."""
    text = str(error)
    odd = [letter for letter in re.sub(r"[\n\t\udc80-\udcff]", "", text) if not letter.isprintable()]
    if not text or odd or len(text) > 3000:
        raise Fault(
            f"{type(error).__name__} says {len(text)} letters, unprintable {odd[:5]}: {text[:300]!r}"
        ) from error


class Hang(Exception):
    """The time was up."""


@contextmanager
def limits() -> Iterator[None]:
    """Hang after ``SECONDS`` of work, MemoryError above ``MEMORY`` more than now; only what the system can do of it."""
    with _deadline(), _memory_limit():
        yield


@contextmanager
def _deadline() -> Iterator[None]:
    def ring(_signal: int, _frame: object) -> None:
        raise Hang(f"more than {SECONDS} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: a busy machine makes no hang
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _memory_limit() -> Iterator[None]:
    status = Path("/proc/self/statm")
    if not status.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# --- GGUF


@cache
def _made(make: Callable[[Path], Path]) -> bytes:
    with TemporaryDirectory() as folder:
        return make(Path(folder) / "made.gguf").read_bytes()


def gguf_parts(make: Callable[[Path], Path]) -> GgufParts:
    """The parts of a file that ``make`` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made.gguf"
        path.write_bytes(_made(make))
        return GgufParts.of(path)


def _use_model(path: Path) -> None:
    model = read_model(path)
    for entry in read_layout(path).entries:
        _ = entry.text, entry.texts, entry.numbers, entry.number, entry.as_c_strings.raw
    number_arrays(path)
    metadata_bytes(model, None)
    _ = model.file_type, model.tied, model.mtp_blocks, model.main_blocks, model.bits_per_weight(), model.elements
    for tensor in model.tensors:
        if ggml.can_quantize(tensor.type):
            tensor_rows(model, tensor, slice(0, 2))
    operate(model, apply_edits(model.blocks, parse_edits("repeat 0; delete 0")))


# --- imatrices


def _imatrix_file(path: Path) -> Path:
    random = np.random.default_rng(2)
    sums = {name: random.lognormal(0, 1, (1, 32)) for name in _NAMES[:6]}
    sums["blk.0.ffn_up_exps.weight"] = random.lognormal(0, 1, (2, 32))
    write_imatrix(imatrix_of(sums, {"blk.0.ffn_up_exps.weight": [0, 9]}), path)
    return path


def _legacy_imatrix() -> bytes:
    entries = [(name.encode(), 4, np.arange(1, 9, dtype="<f4")) for name in _NAMES[:4]]
    pieces = [struct.pack("<i", len(entries))]
    for name, chunks, sums in entries:
        pieces += [struct.pack("<i", len(name)), name, struct.pack("<ii", chunks, sums.size), sums.tobytes()]
    return b"".join([*pieces, struct.pack("<ii", 4, 5), b"a.txt"])


def _use_imatrix(path: Path) -> None:
    imatrix = read_imatrix(path)
    statistics(imatrix)
    for entry in imatrix.entries.values():
        _ = entry.mean_square(), entry.unseen, entry.rare


# --- records and caches


def _records(name: str) -> list[Any]:
    files = record_parts.GOLDEN.glob("*.json")
    contents = [json.loads(file.read_text()) for file in sorted(files)]
    return [content for content in contents if content["format"] == name]


def _use_record(record_format: RecordFormat[Any], path: Path) -> None:
    value = record_format.read(path)
    record_format.encode(value)
    if record_format is SENSITIVITY_TABLES:
        value.predict({row.tensor: next(iter(row.weights)) for row in value.rows.values() if row.weights})
    if record_format is PLANS:
        _ = value.types, value.encodings, value.tensor_bytes, human_bytes(value.file_bytes)


_STAGE = ("probe", "model", 1)


def _journal_lines() -> list[bytes]:
    with TemporaryDirectory() as folder:
        journal = Journal(Path(folder), *_STAGE)
        for name in _NAMES[:4]:
            journal.put(name, {"value": 0.5, "names": [name]})
        return [journal.path.read_bytes()]


def _use_journal(path: Path) -> None:
    target = Journal(path.parent / "none", *_STAGE).path.name
    with TemporaryDirectory() as folder:
        (Path(folder) / target).write_bytes(path.read_bytes())
        cache = Cache(Plain(dict[str, Any]), Path(folder), *_STAGE)
        cache.put("next", {"value": 1})
        assert "next" in Cache(Plain(dict[str, Any]), Path(folder), *_STAGE)


def _sums_file() -> list[bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.moments"
        write_sums(path, 9, np.ones(8, np.float32), np.tri(8, dtype=np.float32))
        return [path.read_bytes()]


# --- recipes


_CARD = """# A card, with someone's apostrophe
Sizes: see below. Q4_K_L : Q4_K_M + attn_o = q6_k

```bash
LAYER_TYPES='[
  [0 ,"Q4_K_M"],[1 ,"Q4_K_S"],[2 ,"Q4_K_L"],[3 ,"Q6_K"],
  [4 ,"IQ4_XS"],[5 ,"Q8_0"]
]'
FLAGS="--token-embedding-type Q4_K --output-tensor-type Q6_K --layer-types-high"
```
"""
_RANGES = "0..3 : Q4_K_M\n4..5 : Q6_K\nembed : Q4_K\noutput : Q6_K\n"
_RULES = "^blk\\.[0-3]\\.attn_v\\.weight$=q6_k\nblk.*.ffn_down=q4_K ffn_(up|gate)=iq4_xs\n"
_SCRIPT = """#!/bin/bash
# a comment
custom="
# attention
blk\\.[[:digit:]]\\.attn_v\\.weight=q6_K,
token_embd\\.weight=q8_0"
llama-quantize --imatrix a.gguf --token-embedding-type q8_0 \\
  --tensor-type "attn_v=q6_k" --tensor-type ffn_down=q5_k model.gguf out.gguf Q4_K_M 8
"""
_CUSTOM = "blk\\.[0-2]\\.attn_q=iq4_ks,blk\\..*\\.ffn_down.*=iq3_k_r4,token_embd=q8_0"
_CSV = "QTYPE," + ",".join(_NAMES[:3]) + "\nq2_K,0.1,0.2,0.3\niq1_s,1.5,nan,0.7\n"
_CURVE = "QTYPE,group0\nq2_K,0.5\nq4_K,0.04\nq6_K,0.002\n"
_PUBLISHED = {
    "qtypes": ["Q2_K", "Q4_K", "Q6_K"],
    "ref_qtype": "Q2_K",
    "curve": {"Q2_K": 0.5, "Q4_K": 0.04, "Q6_K": 0.002},
    "groups": [{"shape": [256, 256], "stored": {"Q2_K": "Q4_K"}}],
    "tensors": [[name, 0, 0.1] for name in _NAMES[:4]],
    "unmeasured": [[_NAMES[5], 0]],
    "measured_together": [[0, 1]],
    "source": {"url": "none"},
}


def _use_layer_types(path: Path) -> None:
    parse_layer_types(read_text(path), _BLOCKS)


def _use_rules(path: Path) -> None:
    text = parse_rules(read_text(path))
    resolve(text.rules, _NAMES, keep_case=text.keep_case)


def _use_published(path: Path) -> None:
    curve = path.with_name("input.curve.csv")
    curve.write_text(_CURVE)
    try:
        sensitivity_table(read_published(path, curve), fill="max")
    finally:
        curve.unlink()


# --- projects, suites, tasks, edits

_TOML = (
    project_text("m.gguf", "i.gguf", "c.txt", "t.txt", 512)
    + '\n[plan]\nbudget = ["4bpw", "Q4_K_M"]\npin = ["output=Q8_0"]\nmax-types = 4\n[memory]\nvram = "24GiB"\n'
)
_EDITS = "delete 1; swap 0 1, 2 3\nmove 2 after 0 # why\nblend 0 2 0.5 after 1\nscale 1 0.9 attn_output ffn_down; repeat 1-2 x3"
_TASKS = (Question("What is 1 + 1?", ("2", "3"), 0), Question("And 2 + 2?", ("3", "4", "5"), 1))
_JSONL = "".join(
    json.dumps({"question": q.question, "answers": q.answers, "correct": q.correct}) + "\n" for q in _TASKS
)


def _use_edits(path: Path) -> None:
    layer_map = apply_edits(_BLOCKS, parse_edits(path.read_bytes().decode("utf-8", "replace")))
    _ = layer_map.digest, str(layer_map), len(layer_map)


def _use_toml(path: Path) -> None:
    project = read_project(path)
    _ = project.plans, project.reports, [project.place_of(option) for option in project.settings]


# --- values of options

_OPTIONS = (
    "17.9GB",
    "16.7GiB",
    "4.25bpw",
    "40%",
    "=other.gguf",
    "attn_v=Q6_K",
    "/^blk\\.3\\./=Q8_0",
    "blk.1[0-5].ffn_*",
    "all,-iq,Q4_K",
    "q8_0,q5_1",
    "hf://owner/repo/file.gguf@main",
    "owner/repo:Q4_K_M",
    "127.0.0.1:50052,host:1",
    "tcp://host:8786",
    "4096,16384",
    "512k",
    "repeat:8/4,4/1",
    "blend:0.3,0.5",
    "swap:3",
    "2147483648",
    "-1",
    "0",
)


def _damaged_option(random: Random, text: str) -> bytes:
    if random.randint(0, 2) == 0:
        return random.choice(ODD_TEXTS).encode("utf-8", "replace")
    return damaged_text(random, text.encode())


@cache
def _option_model() -> Any:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(_made(small_llama))
        return read_model(path)


_PARSERS: tuple[Callable[[str], object], ...] = (
    lambda text: Budget.parse(text, _option_model()),
    parse_size,
    lambda text: Selector(text).select(_option_model().tensors),
    lambda text: parse_assignment(text)[0].select(_option_model().tensors),
    parse_types,
    parse_kv,
    parse_reference,
    lambda text: parse_execution(scheduler=text),
    lambda text: parse_execution(rpc=text),
    lambda text: parse_contexts([text]),
    parse_sample,
    lambda text: parse_family(text, _BLOCKS),
    lambda text: edits_text(parse_edits(text)),
)


def _use_option(path: Path) -> None:
    """All parsers of options take it or refuse it; refused where none takes it."""
    text = path.read_bytes().decode("utf-8", "replace")
    refusals = []
    for parse in _PARSERS:
        try:
            parse(text)
        except QuantplanError as error:
            check_sentence(error)
            refusals.append(error)
    if len(refusals) == len(_PARSERS):
        raise BadUsage("no parser takes it")


# --- the kinds


def _kinds() -> Iterator[Kind]:
    yield Kind("gguf", ".gguf", lambda: [gguf_parts(tiny_arrays), gguf_parts(small_llama)], damaged_gguf, _use_model)
    yield Kind("imatrix.gguf", ".gguf", lambda: [gguf_parts(_imatrix_file)], damaged_gguf, _use_imatrix)
    yield Kind("imatrix.dat", ".dat", lambda: [_legacy_imatrix()], damaged, _use_imatrix)
    for record in RECORDS:
        yield Kind(record.name, ".json", partial(_records, record.name), damaged_json, partial(_use_record, record))
    yield Kind("journal", ".jsonl", _journal_lines, damaged, _use_journal)
    yield Kind("second moments", ".moments", _sums_file, damaged, read_sums)
    cards = [_CARD.encode(), _RANGES.encode(), _CARD.partition("```")[2].encode()]
    yield Kind("LAYER_TYPES", ".md", lambda: cards, damaged_text, _use_layer_types)
    rules = [text.encode() for text in (_RULES, _SCRIPT, _CUSTOM, _CARD + _SCRIPT)]
    yield Kind("rules", ".sh", lambda: rules, damaged_text, _use_rules)
    yield Kind("sensitivities.csv", ".csv", lambda: [_CSV.encode()], damaged_text, _use_published)
    yield Kind("sensitivities.json", ".json", lambda: [_PUBLISHED], damaged_json, _use_published)
    yield Kind("quantplan.toml", ".toml", lambda: [_TOML.encode()], damaged_text, _use_toml)
    yield Kind("suite", ".yaml", lambda: [_short_suite()], damaged_text, read_suite)
    yield Kind(
        "tasks.txt", ".txt", lambda: [(_DATA / "hellaswag.txt").read_bytes()[:3000]], damaged_text, read_task_file
    )
    yield Kind("tasks.csv", ".csv", lambda: [(_DATA / "winogrande.csv").read_bytes()], damaged_text, read_task_file)
    yield Kind("tasks.jsonl", ".jsonl", lambda: [_JSONL.encode()], damaged_text, read_task_file)
    yield Kind("chats.jsonl", ".jsonl", lambda: [_chats()], damaged_text, _use_chats)
    yield Kind("tasks.bin", ".bin", lambda: [encode(_TASKS)], damaged, read_task_file)
    yield Kind("edits", ".txt", lambda: [_EDITS.encode()], damaged_text, _use_edits)
    yield Kind("option", ".txt", lambda: _OPTIONS, _damaged_option, _use_option)


def _chats() -> bytes:
    """The beginnings of the default chats and tool calls."""
    folder = DEFAULT_TEXTS / "calibration"
    return b"".join(b"".join((folder / f"{name}.jsonl").open("rb").readlines()[:2]) for name in ("chat", "tools"))


def _use_chats(path: Path) -> None:
    for chat in conversations(read_text(path), path):
        assert isinstance(chat.written, str) and all(isinstance(name, str) for name in chat.called)


def _short_suite() -> bytes:
    """The beginning of the shipped suite: two items of each of its first parts."""
    return bundled_suite(SHORT).read_bytes()[:6000].rpartition(b"\n")[0] + b"\n"


KINDS = tuple(_kinds())
