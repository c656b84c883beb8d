"""Damaged files of every kind that quantplan reads: how many are read, how many refused, and every fault with its input.

    python benchmarks/fuzz.py [--count 20000] [--seed 0] [--kind gguf] [--keep FOLDER]

The generators are those of tests/fuzz. A fault is an exception that is no QuantplanError, a message that cannot be printed,
more than 10 seconds, or more than 1 GiB of memory. Exit code 1 if there is any.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz_inputs import KINDS, READ, REFUSED, Fault, Kind, outcome

FAULT = "fault"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", action="append", choices=[kind.name for kind in KINDS], help="repeatable; default: all"
    )
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


def main() -> None:
    wanted = options()
    kinds = [kind for kind in KINDS if not wanted.kind or kind.name in wanted.kind]
    total, reasons = Counter[str](), list[str]()
    print("| kind | tried | read | refused | faults | slowest, s |\n| --- | --: | --: | --: | --: | --: |")
    for index, kind in enumerate(kinds):
        count = wanted.count // len(kinds) + (index < wanted.count % len(kinds))
        outcomes, faults, slowest = tried(kind, count, wanted.seed, wanted.keep)
        numbers = [outcomes.total(), *(outcomes[name] for name in (READ, REFUSED, FAULT))]
        print(f"| {kind.name} | {' | '.join(f'{number:,}' for number in numbers)} | {slowest:.2f} |", flush=True)
        total += outcomes
        reasons += [f"{count} x {reason}" for reason, count in faults.most_common()]
    print(f"| all | {total.total():,} | {total[READ]:,} | {total[REFUSED]:,} | {total[FAULT]:,} | |")
    print("\n".join(reasons), file=sys.stderr)
    sys.exit(1 if total[FAULT] else 0)


if __name__ == "__main__":
    main()
