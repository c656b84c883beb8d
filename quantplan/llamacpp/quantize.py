"""llama-quantize: which types it would store, and the real run.

``--dry-run`` resolves every tensor's type in milliseconds without reading weights, header-only files
included. It is asked instead of repeating its rules here: what is quantizable, what a stock quant is, what a rule
does to an odd shape.
"""

import difflib
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quantplan.errors import NothingSelected, ToolFailed
from quantplan.llamacpp.tools import run
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.tensor import GGUF_ALIGNMENT, Model, Tensor

TOOL = "llama-quantize"
_HEAD = re.compile(r"\[ *(\d+)/ *(\d+)\] +(\S+) +- +\[[^\]]*\], +type = *(\w+),")
_SIZE = re.compile(r"\bsize = *[\d.]+ MiB( *-> *[\d.]+ MiB(?: \((\w+)\))?)?")
_PUBLISHED = (
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ2_M",
    "Q2_K_S",
    "Q2_K",
    "IQ3_XXS",
    "IQ3_XS",
    "Q3_K_S",
    "IQ3_S",
    "IQ3_M",
    "Q3_K_M",
    "Q3_K_L",
    "IQ4_XS",
    "IQ4_NL",
    "Q4_0",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_0",
    "Q5_K_S",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
)
_FTYPE_LINE = re.compile(r"^ *(?:(\d+) +or +)?(\w+) +:", re.MULTILINE)
_FAMILY = re.compile(r"(?:(?:UD|I1)[-_])?((I?Q|TQ|MXFP|NVFP)\d+)\w*")  # UD-Q4_K_XL: publishers' prefixes, then Q4
_FTYPE_LIST = "allowed quantization types"


class UnreadableLog(ToolFailed):
    """The tool ended well, but what it said is not all there or not understood."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``--tensor-type pattern=type``: the tool lower-cases the pattern and searches it in tensor names."""

    pattern: str
    type: QuantType

    def __str__(self) -> str:
        return f"{self.pattern}={self.type.name.lower()}"


# for a model whose alignment is not 32: else the tool pads by 32 under a header that says otherwise
REALIGN = ("--override-kv", f"general.alignment=int:{GGUF_ALIGNMENT}")


@dataclass(frozen=True)
class Recipe:
    """What llama-quantize is told besides input and output."""

    ftype: str
    rules: tuple[Rule, ...] = ()
    rules_file: Path | None = None
    imatrix: Path | None = None  # its text becomes metadata of the output: give a bare name and run in its folder
    pure: bool = False
    token_embedding_type: QuantType | None = None
    output_tensor_type: QuantType | None = None
    allow_requantize: bool = False
    leave_output: bool = False
    exclude: tuple[str, ...] = ()  # tensors whose imatrix data are not used; the tool searches these words in names
    realign: bool = False  # see REALIGN

    def options(self) -> list[str]:
        words = ["--allow-requantize"] if self.allow_requantize else []
        words += ["--pure"] if self.pure else []
        words += ["--leave-output-tensor"] if self.leave_output else []
        words += [*REALIGN] if self.realign else []
        words += ["--imatrix", str(self.imatrix)] if self.imatrix else []
        for name in self.exclude:
            words += ["--exclude-weights", name]
        for option, kind in (
            ("--token-embedding-type", self.token_embedding_type),
            ("--output-tensor-type", self.output_tensor_type),
        ):
            words += [option, kind.name.lower()] if kind else []
        words += ["--tensor-type-file", str(self.rules_file)] if self.rules_file else []
        for rule in self.rules:
            words += ["--tensor-type", str(rule)]
        return words


def argv(source: Path, recipe: Recipe, out: Path | None = None, threads: int = 0) -> list[str]:
    """The command line; without ``out`` a dry run. Paths are made absolute: no name can pass for an option or
    a type.
    """
    words = [TOOL, *([] if out else ["--dry-run"]), *recipe.options(), str(source.absolute())]
    words += [str(out.absolute())] if out else []
    return [*words, recipe.ftype, *([str(threads)] if threads > 0 else [])]


def realigns(model: Model) -> bool:
    """Whether the tool must be told to align the file that it makes of the model as it pads it."""
    return model.alignment != GGUF_ALIGNMENT


# --- dry runs


def dry_run(source: Path, ftype: str, **recipe: Any) -> dict[str, QuantType]:
    """Stored type of every tensor that ``llama-quantize source ... ftype`` would write, all shards together.

    ``recipe``: further fields of Recipe. Raises ToolFailed with the tool's words, UnreadableLog for a log
    that does not name every tensor.
    """
    return dry_run_as(source, Recipe(ftype, **recipe))


def dry_run_as(source: Path, recipe: Recipe) -> dict[str, QuantType]:
    """``dry_run`` for a recipe that is there already."""
    return parse(run(argv(source, recipe)).log)


def parse(log: str) -> dict[str, QuantType]:
    """Tensor -> stored type from the log of a dry run. UnreadableLog unless all tensors that it announces are
    there.

    Warnings may stand before, between and inside the tensors' lines: a tensor's size is the first after its
    head.
    """
    heads = list(_HEAD.finditer(log))
    announced = {int(head.group(2)) for head in heads}
    if (
        not heads
        or announced != {len(heads)}
        or [int(head.group(1)) for head in heads] != list(range(1, len(heads) + 1))
    ):
        raise UnreadableLog(
            f"the log of {TOOL} --dry-run names {len(heads)} tensors of {max(announced, default=0)} "
            "announced; "
            "run it by hand, and see `quantplan doctor` for the version that is installed"
        )
    ends = [head.start() for head in heads[1:]] + [len(log)]
    return {head.group(3): _stored(head, log[head.end() : end]) for head, end in zip(heads, ends, strict=True)}


def _stored(head: re.Match[str], rest: str) -> QuantType:
    size = _SIZE.search(rest)
    if not size or (size.group(1) and not size.group(2)):
        raise UnreadableLog(f"the log of {TOOL} --dry-run does not say how {head.group(3)} is stored: {rest[:80]!r}")
    name = (size.group(2) or head.group(4)).upper()
    if name not in BY_NAME:
        raise UnreadableLog(
            f"{TOOL} stores {head.group(3)} as {name}, which this quantplan does not know; update quantplan"
        )
    return BY_NAME[name]


_quantizable: dict[str, frozenset[str]] = {}
_stock_quants: dict[tuple[str, str, bool], dict[str, QuantType]] = {}


def quantizable(model: Model) -> tuple[Tensor, ...]:
    """The tensors that llama-quantize would quantize, in the model's order: what two --pure runs store
    differently, or otherwise than it is stored now. Asked once for each model.
    """
    if model.digest not in _quantizable:
        first, second = (dry_run(model.path, ftype, pure=True, allow_requantize=True) for ftype in ("Q8_0", "Q4_0"))
        _check_complete(model, first)
        names = (
            each.name
            for each in model.tensors
            if first[each.name] != second[each.name] or first[each.name] != each.type
        )
        _quantizable[model.digest] = frozenset(names)
    return tuple(each for each in model.tensors if each.name in _quantizable[model.digest])


def stock_quant(model: Model, ftype: str, imatrix: Path | None = None) -> dict[str, QuantType]:
    """Stored type of every tensor in the stock quant ``ftype``. Some depend on whether there is an
    imatrix.

    NothingSelected with near names for an unknown FTYPE.
    """
    ftype = known_ftype(ftype)
    key = model.digest, ftype, imatrix is not None
    if key not in _stock_quants:
        types = dry_run(model.path, ftype, imatrix=imatrix and imatrix.absolute(), allow_requantize=True)
        _check_complete(model, types)
        _stock_quants[key] = types
    return dict(_stock_quants[key])


def _check_complete(model: Model, types: dict[str, QuantType]) -> None:
    if types.keys() != model.by_name.keys():
        odd = min(types.keys() ^ model.by_name.keys())
        raise UnreadableLog(f"{TOOL} --dry-run on {model.path.name} and the file's header disagree about {odd}")


@cache
def _numbered_ftypes() -> dict[str, str]:
    """Name -> what the installed llama-quantize calls it by number ("" for COPY); of one number the alias stands first."""
    log = run([TOOL, "--help"], check=False).log
    numbers = {name: number for number, name in _FTYPE_LINE.findall(log.partition(_FTYPE_LIST)[2])}
    if "Q4_K_M" not in numbers:
        raise UnreadableLog(f"{TOOL} --help lists no file types that quantplan can read; see `quantplan doctor`")
    return numbers


def ftypes() -> tuple[str, ...]:
    """Names of the stock quants that the installed llama-quantize knows, COPY left out."""
    return tuple(name for name in _numbered_ftypes() if name != "COPY")


def published_ftypes() -> tuple[str, ...]:
    """The stock quants that people publish and that the installed llama-quantize knows, from small to large."""
    return tuple(name for name in _PUBLISHED if name in ftypes())


def looks_like_ftype(word: str) -> bool:
    """Whether a word can only be meant as the name of a stock quant, known to llama.cpp or not: Q4_K_L, UD-Q4_K_XL, Q8."""
    return bool(_FAMILY.fullmatch(word.strip().upper()))


def known_ftype(name: str) -> str:
    """The FTYPE called ``name`` in any case, or of that number; NothingSelected with the nearest names otherwise."""
    ftype = name.strip().upper()
    if ftype in ftypes():
        return ftype
    numbered = [each for each, number in _numbered_ftypes().items() if number == ftype]
    if numbered:
        return numbered[-1]
    raise NothingSelected(f"llama-quantize has no stock quant {name.strip()!r}; {_nearest_ftypes(ftype)}")


def _nearest_ftypes(name: str) -> str:
    """The published stock quants of the same bits and family, else those of a similar name."""
    family = _FAMILY.fullmatch(name)
    bare = name[family.start(1) :] if family else name
    same = [each for each in published_ftypes() if family and each.startswith(f"{family[1]}_")]
    if same:  # the most alike first, of equals the larger
        order = {each: (difflib.SequenceMatcher(None, bare, each).ratio(), same.index(each)) for each in same}
        return f"nearest: {', '.join(sorted(same, key=order.__getitem__, reverse=True)[:3])}"
    near = difflib.get_close_matches(bare, ftypes(), n=3)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(ftypes())}"


# --- the real run


def quantize(
    source: Path,
    recipe: Recipe,
    out: Path,
    *,
    threads: int = 0,
    cwd: Path | None = None,
    report: Reporter = SILENT,
    started: Callable[[str], None] | None = None,
) -> None:
    """Writes ``out``; ``started`` gets each tensor's name in turn. Raises ToolFailed, ToolMissing."""
    watch = tensor_heads(started) if started else None
    if watch:
        next(watch)
    run(argv(source, recipe, out, threads), cwd=cwd, report=report, on_text=watch.send if watch else None)


def tensor_heads(started: Callable[[str], None]) -> Generator[None, str, None]:
    """A coroutine that is sent pieces of the log and calls ``started`` for each tensor's head."""
    rest = ""
    while True:
        rest += yield
        end = 0
        for head in _HEAD.finditer(rest):
            started(head.group(3))
            end = head.end()
        rest = rest[end:][-4096:]
