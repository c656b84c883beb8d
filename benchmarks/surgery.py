"""What a search over layers costs beside its forward passes, and whether kill -9 changes its leaderboard.

    python benchmarks/surgery.py MODEL.gguf --calibration calibration.txt [--ctx 256] [--chunks 16] [--threads 0]

All single deletions and swaps and the two passes of repeat, by perplexity, in one search. The ratio is the time of the whole
search per candidate (writing hosts, swapping, scoring, journal and leaderboard included) over what a candidate cannot do
without: its forward passes, and its share of loading models; once with the passes as they were in the search, once with
those of the untouched model, run alone before and after. Then `quantplan surgery search` is killed in the middle, run
again, and its record held against that of the first search, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.project import read_text
from quantplan.surgery.search.evaluations import EvaluationJob, chunks_of
from quantplan.surgery.search.families import parse_family
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.surgery.search.search import SearchOptions, search

FAMILIES = ("delete", "swap", "repeat")
_LOOK_SECONDS = 0.05
_REPEATED = 4


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--ctx", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    asked = options()
    with tempfile.TemporaryDirectory() as folder:
        record, candidates = timed(asked, Path(folder) / "timed")
        killed(asked, Path(folder) / "killed", record, candidates // 2)


def timed(asked: argparse.Namespace, folder: Path) -> tuple[bytes, int]:
    """The record of one search, and how many candidates it read."""
    model, text = read_model(asked.model), read_text(asked.calibration)
    chunks = chunks_of(model, text, asked.ctx, asked.chunks)
    job = EvaluationJob(model.path, model.digest, text, asked.ctx, chunks, folder / "cache", Execution(asked.threads))
    wanted = SearchOptions(tuple(parse_family(each, model.blocks) for each in FAMILIES))
    record = folder / "record.json"
    alone = passes(job)
    began = time.perf_counter()
    found = search(model, job, wanted, tell=lambda progress: LEADERBOARDS.write(progress.board, record))
    LEADERBOARDS.write(found.board, record)
    taken, timing = time.perf_counter() - began, found.timing
    alone += passes(job)
    count, bare = len(found.board.standings), timing.forward + timing.load
    print(f"{count} candidates of {model.path.name} ({model.blocks} layers), {chunks} chunks of {asked.ctx} tokens")
    print(f"whole search       {taken:8.2f} s  {taken / count:.4f} s a candidate")
    print(f"forward passes     {timing.forward:8.2f} s  {timing.forward / timing.readings:.4f} s a model read")
    print(f"loading            {timing.load:8.2f} s")
    print(f"ratio              {taken / bare:8.3f}")
    untouched = statistics.median(alone)
    print(f"untouched model    {'':8}    {untouched:.4f} s, median of {len(alone)}")
    print(f"ratio to that      {taken / count / (untouched + timing.load / count):8.3f}")
    print(f"best               {found.board.standings[0].edits}")
    return record.read_bytes(), count


def passes(job: EvaluationJob) -> list[float]:
    """Seconds of the forward passes of all chunks, several times: the model as it is, nothing swapped or scored."""
    with Engine(job.model, EngineOptions(job.n_ctx, job.execution)) as engine:
        chunks = engine.chunks(job.text, job.chunks)
        return [_once(engine, chunks) for _ in range(_REPEATED + 1)][1:]  # the first warms up


def _once(engine: Engine, chunks: np.ndarray) -> float:
    began = time.perf_counter()
    for _ in engine.logits(chunks):
        pass
    return time.perf_counter() - began


def killed(asked: argparse.Namespace, folder: Path, expected: bytes, half: int) -> None:
    """The command killed when half of the candidates are in its journal, then run to its end."""
    folder.mkdir()
    line = [sys.executable, "-m", "quantplan.cli.main", "surgery", "search", str(asked.model.absolute())]
    line += [
        "--calibration",
        str(asked.calibration.absolute()),
        "--ctx",
        str(asked.ctx),
        "--chunks",
        str(asked.chunks),
    ]
    line += ["--threads", str(asked.threads), "--record", "record.json"]
    for family in FAMILIES:
        line += ["--family", family]
    process = subprocess.Popen(
        line, cwd=folder, env=os.environ | environment(folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and finished(folder) < half:
        time.sleep(_LOOK_SECONDS)
    process.kill()
    process.wait()
    there = finished(folder)
    began = time.perf_counter()
    subprocess.run(line, cwd=folder, env=os.environ | environment(folder), check=True, capture_output=True)
    same = (folder / "record.json").read_bytes() == expected
    print(f"killed after       {there:8d} candidates; run again in {time.perf_counter() - began:.2f} s")
    print(f"same leaderboard   {'yes, byte for byte' if same else 'NO':>8}")


def environment(folder: Path) -> dict[str, str]:
    """A cache of its own: the command runs in no project."""
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def finished(folder: Path) -> int:
    """Candidates in the journal, the original not counted."""
    lines = [line for path in folder.rglob("surgery-*.jsonl") for line in path.read_bytes().split(b"\n") if line]
    return max(0, len(lines) - 1)


if __name__ == "__main__":
    main()
