"""Damaged files of every kind that quantplan reads: how many are read, how many refused, and every fault with its input.

    python benchmarks/fuzz.py [--count 20000] [--seed 0] [--kind gguf] [--keep FOLDER] [--commands 2000] [--loads 500]

Then whole commands with damaged files and odd words, and commands that load a damaged model into llama.cpp.

The generators are those of tests/fuzz. A fault is an exception that is no QuantplanError, a message that cannot be printed,
more than 10 seconds, or more than 1 GiB of memory. Exit code 1 if there is any.
"""

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz_commands import damaged_command, load_models, make_place, try_command
from fuzz_inputs import KINDS, READ, REFUSED, Fault, Kind, outcome

FAULT = "fault"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", action="append", choices=[kind.name for kind in KINDS], help="repeatable; default: all"
    )
    parser.add_argument("--commands", type=int, default=0, help="commands with damaged files and odd words")
    parser.add_argument("--loads", type=int, default=0, help="commands that load a damaged model")
    parser.add_argument("--keep", type=Path, help="folder for the inputs of faults")
    return parser.parse_args()


def place(fault: BaseException) -> str:
    """The line of the package that raised what became the fault."""
    frames = traceback.extract_tb((fault.__cause__ or fault).__traceback__)
    inside = [frame for frame in frames if "/quantplan/quantplan/" in frame.filename or "quantplan/" in frame.filename]
    frame = (inside or frames)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"


def tried(kind: Kind, count: int, seed: int, keep: Path | None) -> tuple[Counter[str], Counter[str], float]:
    """Outcomes; faults by place and reason; seconds of the slowest input."""
    outcomes, faults, slowest = Counter[str](), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            data = kind.input(random.Random(f"{seed} {kind.name} {number}"))
            start = time.monotonic()
            try:
                outcomes[outcome(kind, data, Path(folder))] += 1
            except Fault as fault:
                outcomes[FAULT] += 1
                reason = f"{place(fault)}: {str(fault).splitlines()[0][:160]}"
                if keep and not faults[reason]:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{kind.name}-{number}{kind.suffix}").write_bytes(data)
                faults[reason] += 1
            slowest = max(slowest, time.monotonic() - start)
    return outcomes, faults, slowest


def commands(count: int, loads: int, seed: int) -> Iterator[tuple[str, Counter[str], Counter[str], float]]:
    """As ``tried``, with the rows' names: whole commands, and those that load a damaged model."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        place = make_place(Path(folder))
        ended, slowest = list[int | Fault](), 0.0
        for number in range(count):
            words, contents = damaged_command(random.Random(f"{seed} command {number}"), place)
            start = time.monotonic()
            try:
                ended.append(try_command(words, contents, place))
            except Fault as fault:
                ended.append(fault)
            slowest = max(slowest, time.monotonic() - start)
        yield "commands", *counted(ended), slowest
        yield "models in llama.cpp", *counted(load_models(place, [f"{seed} load {n}" for n in range(loads)])), 0.0
        os.chdir(before)


def counted(ended: Iterable[int | Fault]) -> tuple[Counter[str], Counter[str]]:
    """Outcomes and faults by reason of exit codes and faults."""
    outcomes, faults = Counter[str](), Counter[str]()
    for code in ended:
        outcomes[FAULT if isinstance(code, Fault) else REFUSED if code else READ] += 1
        if isinstance(code, Fault):
            faults[str(code)[:400]] += 1
    return outcomes, faults


def main() -> None:
    wanted = options()
    kinds = [kind for kind in KINDS if not wanted.kind or kind.name in wanted.kind]
    total, reasons = Counter[str](), list[str]()

    def row(name: str, outcomes: Counter[str], faults: Counter[str], slowest: float) -> None:
        numbers = [outcomes.total(), *(outcomes[result] for result in (READ, REFUSED, FAULT))]
        seconds = f"{slowest:.2f}" if slowest else ""
        print(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} | {seconds} |", flush=True)
        total.update(outcomes)
        reasons.extend(f"{count} x {reason}" for reason, count in faults.most_common())

    print("| kind | tried | read | refused | faults | slowest, s |\n| --- | --: | --: | --: | --: | --: |")
    for index, kind in enumerate(kinds):
        count = wanted.count // len(kinds) + (index < wanted.count % len(kinds))
        row(kind.name, *tried(kind, count, wanted.seed, wanted.keep))
    if wanted.commands or wanted.loads:
        for results in commands(wanted.commands, wanted.loads, wanted.seed):
            row(*results)
    row("all", Counter(total), Counter(), 0.0)
    print("\n".join(reasons), file=sys.stderr)
    sys.exit(1 if reasons else 0)


if __name__ == "__main__":
    main()
