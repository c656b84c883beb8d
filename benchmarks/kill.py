"""kill -9 at random moments of `run`, `requantize` and `surgery publish`: the result must be that of an undisturbed run.

    python benchmarks/kill.py MODEL.gguf --calibration FILE --text FILE [--kills 50] [--seed 0] [--threads 1] [--json FILE]

The model is cut to two layers first, so that a whole `run` takes seconds. Each command runs once undisturbed. Then it is begun
in a fresh folder, killed after a random part of a third of the time that this took, and begun again, until it ends by itself
before its moment comes. Only the command's own process is killed: llama.cpp's tools and the steps of publish are left to
themselves, as on a real machine. Held against each other: the names of all files but caches, each GGUF and picture byte by
byte, and each record, less the times and durations in it. Prints a table by stage of the command: kills, and results that
differed.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

QUANTPLAN = [sys.executable, "-m", "quantplan"]
FEW = ["--types", "k,Q8_0", "--sample", "32k", "--chunks", "2", "--validation-chunks", "8", "--eval-chunks", "4"]
SHARES = {"run": 0.5, "requantize": 0.2, "surgery publish": 0.3}  # of the kills
_LATEST = (
    0.35  # of the undisturbed time: what was finished is not done again, so later stages are met by later beginnings
)
_VOLATILE = re.compile(r"seconds|date|time|created|command|noise|overhead")
_STAGES = re.compile(r"^(?:\$ quantplan (\S+(?: (?:apply|search))?)|(?:\+ (?:\(cd \S+ && )?)?(llama-\S+)|(.+) \.\.\.)")


@dataclass
class Tally:
    """Of one command: kills by stage, and in which files results differed."""

    seconds: float = 0.0
    trials: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Where it happens. ``source``: the small model; ``texts``: calibration and evaluation."""

    folder: Path
    source: Path
    texts: tuple[Path, Path]
    threads: int

    def words(self, command: str) -> list[str]:
        """The command as it is typed in a trial's folder."""
        threads = ["--threads", str(self.threads)]
        if command == "run":
            return ["run", "--budget", "5bpw", "--budget", "Q4_K_M", *FEW, *threads]
        if command == "requantize":
            return ["requantize", "q.gguf", "--ctx", "64", *threads]
        texts = ["--calibration", str(self.texts[0]), "--text", str(self.texts[1]), "--ctx", "64"]
        more = ["--name", "new", "--out", "made", "--stock", "Q2_K", "-b", "5bpw", "--no-score"]
        return [
            "surgery",
            "publish",
            "source.gguf",
            "swap 0 1",
            *texts,
            *more,
            "--run-options",
            " ".join(FEW),
            *threads,
        ]

    def prepared(self, name: str, command: str) -> Path:
        """A folder of a trial, with all that the command needs."""
        folder = self.folder / name
        folder.mkdir()
        os.link(self.source, folder / "source.gguf")
        if command != "surgery publish":
            texts = ["--calibration", str(self.texts[0]), "--text", str(self.texts[1]), "--ctx", "64"]
            typed(["init", "source.gguf", *texts], folder)
        if command == "requantize":
            typed(["quantize", "Q4_K_M", "--out", "q.gguf", "--threads", str(self.threads)], folder)
        return folder


def typed(words: list[str], folder: Path) -> None:
    """A command that must succeed."""
    done = subprocess.run([*QUANTPLAN, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")


def main() -> None:
    asked = options()
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        typed(["surgery", "apply", str(asked.model.resolve()), "keep 0-1", "--out", "source.gguf"], folder)
        texts = tuple(shortened(path, folder / path.name) for path in (asked.calibration, asked.text))
        bench = Bench(folder, folder / "source.gguf", texts, asked.threads)  # type: ignore[arg-type]
        dice = random.Random(asked.seed)
        tallies = {
            command: killed(bench, command, round(share * asked.kills), dice) for command, share in SHARES.items()
        }
    print(table(tallies))
    if asked.json:
        asked.json.write_text(json.dumps({name: vars(tally) for name, tally in tallies.items()}, indent=1))
    sys.exit(any(tally.different for tally in tallies.values()))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def shortened(path: Path, out: Path, size: int = 16_000) -> Path:
    """The beginning of a text: chunks enough for every step."""
    out.write_bytes(path.read_bytes()[:size].decode(errors="ignore").encode())
    return out


def killed(bench: Bench, command: str, kills: int, dice: random.Random) -> Tally:
    """Trials until the command was killed that often, each held against the undisturbed result."""
    tally = Tally()
    folder = bench.prepared(f"{command.replace(' ', '-')}-undisturbed", command)
    began = time.monotonic()
    typed(bench.words(command), folder)
    tally.seconds = round(time.monotonic() - began, 1)
    expected = contents(folder)
    while sum(tally.stages.values()) < kills:
        trial = bench.prepared(f"{command.replace(' ', '-')}-{tally.trials}", command)
        tally.trials += 1
        while begun_and_killed(bench, command, trial, tally, kills, dice):
            pass
        tally.different += differences(expected, contents(trial))
        print(table({command: tally}).splitlines()[-1 - len(tally.different)], file=sys.stderr, flush=True)
        shutil.rmtree(trial)
    return tally


def begun_and_killed(bench: Bench, command: str, trial: Path, tally: Tally, kills: int, dice: random.Random) -> bool:
    """Whether it was killed; False where it ended by itself, or had to because it was killed often enough."""
    enough = sum(tally.stages.values()) >= kills
    moment = None if enough else dice.uniform(0, _LATEST * tally.seconds)
    log = trial / ".log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*QUANTPLAN, *bench.words(command)], cwd=trial, stdout=subprocess.DEVNULL, stderr=file
        )
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    log.unlink()
    if process.returncode == -signal.SIGKILL:
        tally.stages[stage(text)] += 1
        return True
    if process.returncode:
        tally.different.append(f"{command} ended with {process.returncode}: {text.splitlines()[-1:]}")
    return False


def stage(log: str) -> str:
    """What the command was doing, by what it said last."""
    found = [match for line in log.splitlines() if (match := _STAGES.match(line))]
    return next(filter(None, found[-1].groups())) if found else "start"


# --- what is held against what


def contents(folder: Path) -> dict[str, object]:
    """Every file that is no cache: records less what no two runs share, others by their bytes."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(results(folder))}


def results(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            yield path


def content(path: Path) -> object:
    if path.suffix == ".json":
        return settled(json.loads(path.read_text(encoding="utf-8")))
    return path.read_bytes()


def settled(value: object) -> object:
    """A record without times and durations."""
    if isinstance(value, dict):
        return {key: settled(part) for key, part in value.items() if not _VOLATILE.search(key)}
    return [settled(part) for part in value] if isinstance(value, list) else value


def differences(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    absent = object()
    return [name for name in names if expected.get(name, absent) != found.get(name, absent)]


def table(tallies: dict[str, Tally]) -> str:
    lines = ["| command | undisturbed, s | trials | kills | killed while | results that differ |"]
    lines.append("| --- | ---: | ---: | ---: | --- | ---: |")
    for command, tally in tallies.items():
        stages = ", ".join(f"{name} {count}" for name, count in tally.stages.most_common())
        kills = sum(tally.stages.values())
        lines.append(
            f"| `{command}` | {tally.seconds:g} | {tally.trials} | {kills} | {stages} | {len(tally.different)} |"
        )
    return "\n".join([*lines, *(f"{name}: {line}" for name, tally in tallies.items() for line in tally.different)])


if __name__ == "__main__":
    main()
