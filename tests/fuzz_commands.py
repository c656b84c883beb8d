"""Commands as they are typed, one of their files or words damaged: exit code and sentence, and nothing half-written."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from fuzz_inputs import KINDS, Fault, limits
from model_parts import imatrix_of
from mutated_gguf import GgufParts, damaged_gguf, small_llama
from mutations import ODD_TEXTS, damaged, damaged_json, damaged_text, json_bytes

from quantplan.cli import config
from quantplan.cli.main import main
from quantplan.errors import QuantplanError, ToolFailed
from quantplan.gguf.imatrix_files import write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import isolated
from quantplan.llamacpp.quantize import quantizable
from quantplan.quant_type import parse_types
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.records.json_text import parse_json
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

EXIT_CODES = {0, 2, *(each.exit_code for each in QuantplanError.__subclasses__())}
# the damaged word of each is one in braces: a file of the place, or an option's value
COMMANDS = (
    "solve -m {model.gguf} --sensitivity prior --budget 5bpw -o out.json",
    "solve -m model.gguf --sensitivity {table.json} --budget 5bpw -o out.json",
    "solve -m model.gguf --sensitivity prior --imatrix {imatrix.gguf} --budget 5bpw -o out.json",
    "solve -m model.gguf --sensitivity prior --imatrix {imatrix.dat} --budget 5bpw -o out.json",
    "frontier -m {model.gguf} --sensitivity prior --points 3",
    "frontier -m model.gguf --sensitivity {table.json} --points 3",
    "quantize {plan.json} --out out.gguf --threads 1",
    "quantize plan.json -m {model.gguf} --out out.gguf --threads 1",
    "quantize Q4_K_M -m {model.gguf} --out out.gguf --threads 1",
    "diff {plan.json} quant.gguf",
    "diff model.gguf {quant.gguf}",
    "explain {plan.json} output",
    "explain plan.json output --sensitivity {table.json}",
    "emit {plan.json} --as rules",
    "emit {plan.json} --as args",
    "import {quant.gguf} -m model.gguf -o out.json",
    "import {rules.txt} -m model.gguf -o out.json --stock-quant Q4_K_M",
    "import {layers.md} -m model.gguf -o out.json",
    "import {published.json} -m model.gguf -o out.json --fill max",
    "memory {model.gguf} --serve-ctx 256",
    "memory {plan.json} --serve-ctx 256",
    "card {plan.json} --out out",
    "card {quant.gguf} -m model.gguf --out out",
    "analyze {imatrix.gguf}",
    "analyze {imatrix.dat} --json",
    "compare {measurement.json} measurement-unmeasured.json",
    "init {model.gguf} --folder out",
    "surgery apply {model.gguf} 'delete 1' --dry-run",
    "surgery apply {model.gguf} 'blend 0 1 0.5' --out out.gguf",
    "requantize {quant.gguf} --base model.gguf --out out.gguf",
    # options
    "solve -m model.gguf --sensitivity prior --budget {4bpw} -o out.json",
    "solve -m model.gguf --sensitivity prior --budget 5bpw --types {k,Q8_0} -o out.json",
    "solve -m model.gguf --sensitivity prior --budget 5bpw --pin {attn_v=Q6_K} -o out.json",
    "solve -m model.gguf --sensitivity prior --budget 5bpw --tie {blocks=0-1} -o out.json",
    "solve -m model.gguf --sensitivity prior --budget 5bpw --max-types {3} -o out.json",
    "solve -m model.gguf --sensitivity prior --budget 5bpw --vram {1GB} --serve-ctx {256} -o out.json",
    "solve -m model.gguf --sensitivity {prior} --budget 5bpw -o {out.json}",
    "memory model.gguf --serve-ctx {256,512} --kv {q8_0}",
    "memory model.gguf --serve-ctx 256 --ubatch {64}",
    "quantize plan.json --out out.gguf --threads {1}",
    "surgery apply model.gguf {delete 1} --dry-run",
    "frontier -m model.gguf --sensitivity prior --points {3} --with {Q4_K_M}",
    "explain plan.json {output}",
    "emit plan.json --as {rules}",
    "analyze imatrix.gguf --sort {zd} --rows {3}",
    "init model.gguf --folder {out} --ctx {512}",
    "diff {model.gguf} {quant.gguf} --nonsense {1}",
)
# these load the model into the process
LOADING = (
    "measure {model.gguf} --model model.gguf --text text.txt --ctx 32 --chunks 2 --threads 1",
    "measure model.gguf --model {model.gguf} --text text.txt --ctx 32 --chunks 2 --threads 1",
    "probe -m {model.gguf} --calibration text.txt --ctx 32 --chunks 1 --types Q4_0,Q8_0 --only attn_v --threads 1",
    "solve -m {model.gguf} --sensitivity weights --imatrix imatrix.gguf --types IQ4_NL,Q8_0 --budget 7bpw -o out.json",
    "score {model.gguf} --text text.txt --chunks 2 --threads 1",
    "imatrix {model.gguf} -f text.txt --ctx 32 --chunks 2 --threads 1 -o out.gguf",
)
_NAMED = (
    "damaged",
    "damaged",
    "damaged",
    "a\x1b[31mb",
    "a\nb\r\x07",
    "\x9b2J\u202e",
    "[red]x",
    "\udcff",
    "-m",
    "a b'c\"d",
)
_STEERS = re.compile(r"[^\n\t\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\U0010ffff]")
_ODD_WORDS = (
    "0",
    "-1",
    "1e9",
    "99999999999999999999",
    "nan",
    "1.5",
    "--help",
    "-",
    "~",
    "/",
    ".",
    "*",
    "'",
    "\u0663",
    "Q4_K_M",
)


@dataclass(frozen=True)
class Place:
    """A folder with a whole set of files that belong together."""

    folder: Path

    def contents(self) -> set[Path]:
        """What there is, caches and logs left out."""
        return {
            path for path in self.folder.rglob("*") if not {"cache", "logs"} & {*path.relative_to(self.folder).parts}
        }


def make_place(folder: Path) -> Place:
    """Makes the files of ``COMMANDS`` in an empty folder, and makes it the working folder."""
    os.chdir(folder)
    os.environ.update(QUANTPLAN_CACHE=str(folder / "cache"), XDG_STATE_HOME=str(folder / "logs"), COLUMNS="160")
    model = read_model(small_llama(Path("model.gguf")))
    tensors, random = quantizable(model), np.random.default_rng(0)
    imatrix = imatrix_of({tensor.name: random.lognormal(0, 1, (1, tensor.columns)) for tensor in tensors})
    write_imatrix(imatrix, Path("imatrix.gguf"))
    kinds = [kind.name for kind in parse_types("legacy,IQ4_NL,F16")]
    rows = {
        tensor.name: SensitivityRow(tensor.name, {kind: 0.001 * (place + 1) for place, kind in enumerate(kinds)})
        for tensor in tensors
    }
    SENSITIVITY_TABLES.write(SensitivityTable(model.digest, rows), Path("table.json"))
    seeds = {kind.name: kind.seeds() for kind in KINDS}
    Path("imatrix.dat").write_bytes(seeds["imatrix.dat"][0])
    Path("layers.md").write_text('LAYER_TYPES=\'[[0,"Q4_K_M"],[1,"Q6_K"]]\'\nFLAGS="--token-embedding-type Q4_K"\n')
    Path("rules.txt").write_text("^blk\\.0\\.attn_v\\.weight$=q6_k\nffn_down=q5_k token_embd=q8_0\n")
    for name, place in (("measurement", 0), ("measurement-unmeasured", 1)):
        Path(f"{name}.json").write_bytes(json_bytes(seeds["quantplan-measurement"][place]))
    Path("published.json").write_bytes(json_bytes(seeds["sensitivities.json"][0]))
    Path("text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    for words in (
        "solve -m model.gguf --sensitivity table.json --budget 6bpw -o plan.json",
        "quantize plan.json --out quant.gguf --threads 1",
    ):
        code, _, said = typed(words.split())
        assert code == 0, said
    return Place(folder)


def typed(words: Sequence[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command, run in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2)]
    before, sys.argv = sys.argv, ["quantplan", *words]
    config.project.cache_clear()
    code: object = 0
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
    out, err = (_text_of(stream) for stream in streams)
    return int(code), out, err  # type: ignore[call-overload]


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def damaged_command(
    random: Random, place: Place, commands: Sequence[str] = COMMANDS
) -> tuple[list[str], dict[str, bytes]]:
    """The words of a command, and the damaged contents of files that it names."""
    template = random.choice(commands)
    words, contents = [], dict[str, bytes]()
    for word in _split(template):
        name = word[1:-1] if word.startswith("{") else ""
        if name and (place.folder / name).is_file():
            damaged_name = f"{random.choice(_NAMED)}.{name}"
            contents[damaged_name] = _damage_of(name)(random, _content(place.folder / name))
            words.append(damaged_name)
        elif name:
            words.append(_odd_word(random, name))
        else:
            words.append(word)
    return words, contents


def _split(template: str) -> list[str]:
    """Words; those in braces or quotes may hold blanks."""
    return [match.strip("'") for match in re.findall(r"\{[^}]*\}|'[^']*'|\S+", template)]


def _odd_word(random: Random, word: str) -> str:
    text = random.choice(
        (
            random.choice(ODD_TEXTS),
            random.choice(_ODD_WORDS),
            damaged_text(random, word.encode()).decode("utf-8", "replace"),
        )
    )
    return text.replace("\0", "")[:2000].encode("utf-8", "replace").decode()  # as a shell could pass it on


def _damage_of(name: str) -> Callable[[Random, object], bytes]:
    if name.endswith(".gguf"):
        return damaged_gguf  # type: ignore[return-value]
    if name.endswith(".json"):
        return damaged_json
    return damaged if name.endswith(".dat") else damaged_text  # type: ignore[return-value]


def _content(path: Path) -> object:
    if path.suffix == ".gguf":
        return GgufParts.of(path)
    return parse_json(path.read_bytes()) if path.suffix == ".json" else path.read_bytes()


def try_command(words: Sequence[str], contents: dict[str, bytes], place: Place) -> int:
    """The exit code; Fault for a traceback, an unforeseen error, no sentence, or files that a refused command leaves."""
    for name, data in contents.items():
        (place.folder / name).write_bytes(data)
    before = place.contents()
    try:
        with limits():
            code, put, said = typed(words)
        after = place.contents()
    except Exception as error:
        raise Fault(f"{words}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        for path in sorted(place.contents() - before, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for name in contents:
            (place.folder / name).unlink(missing_ok=True)
    _check(words, code, said, {path.name for path in after - before})
    if odd := _STEERS.findall(put + said):
        raise Fault(f"{words}: {odd} are printed")
    return code


def _check(words: Sequence[str], code: int, said: str, new: set[str]) -> None:
    shown = f"{words}: exit code {code}, new files {sorted(new)}\n{said[-2000:]}"
    if code not in EXIT_CODES or "Traceback" in said or "unexpected" in said:
        raise Fault(shown)
    if code and not ("error: " in said or "─ Error ─" in said):
        raise Fault(f"no sentence: {shown}")
    if any(name.endswith(".part") or (code and name != "reports") for name in new):
        raise Fault(f"left behind: {shown}")


def load_models(place: Place, seeds: Sequence[str]) -> list[int | Fault]:
    """The exit codes, or faults, of commands that load a damaged model into their process; one for each seed.

    They run in child processes, many in each: an assertion of ggml ends one of them, with its own exit code.
    """
    ended: list[int | Fault] = []
    while len(ended) < len(seeds):
        try:
            isolated.call(_load_all, place, seeds[len(ended) :], reports={"tell": ended.append})
        except isolated.Died as died:
            said = f"seed {seeds[len(ended)]!r}: the process ended with {died.code}: {died.said}"
            ended.append(died.code if died.code == ToolFailed.exit_code else Fault(said))
    return ended


def _load_all(place: Place, seeds: Sequence[str], tell: Callable[[int | Fault], None]) -> None:
    os.chdir(place.folder)
    for seed in seeds:
        words, contents = damaged_command(Random(seed), place, LOADING)
        try:
            tell(try_command(words, contents, place))
        except Fault as fault:
            tell(Fault(f"seed {seed!r}: {fault}"))
