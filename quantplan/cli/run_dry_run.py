"""What `quantplan run --dry-run` prints: what is done, what is left, and the time, memory and disk that it takes."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.budget import human_bytes
from quantplan.cli import console, options
from quantplan.cli.estimate_output import estimate_fields, put_estimate
from quantplan.estimates.table_work import timed
from quantplan.estimates.work import WorkEstimate
from quantplan.evaluate.baselines import BuildContext
from quantplan.planning.request import quantizable
from quantplan.run.estimate import of_run
from quantplan.run.run import run_status
from quantplan.run.targets import RunOptions, RunStatus, RunTarget, Texts, disk_needed
from quantplan.text import Text, content


@dataclass(frozen=True)
class RunJob:
    """All that a run needs. ``rounding_text``: what second moments are collected over."""

    targets: list[RunTarget]
    texts: Texts
    options: RunOptions
    imatrix: Path
    rounding_text: Text

    @property
    def context(self) -> BuildContext:
        folder = self.targets[0].file.parent / ".quantplan" / "builds"
        return BuildContext(
            self.targets[0].request.model,
            folder,
            self.imatrix,
            self.options.measuring.execution.threads,
            console.LINES,
            self.rounding_text,
            options.cache_folder(),
            self.options.measuring.execution.memory,
        )


def announce(job: RunJob, later: list[str], as_json: bool) -> None:
    """``later``: what is measured besides, for which no time is known."""
    states = run_status(job.targets, job.texts, job.options, job.context, options.cache_folder())
    stages = _stages(job, states)
    least, most = disk_needed(job.targets)
    free = shutil.disk_usage(job.targets[0].file.absolute().parent).free
    if as_json:
        disk = {"least": least, "most": most, "free": free}
        console.put_json(_fields(job, states) | {"disk": disk, "expected": estimate_fields(stages), "besides": later})
        return
    _put_states(job, states)
    console.put(
        f"disk      at least {human_bytes(least)}, up to {human_bytes(most)} where there is room; {human_bytes(free)} are free"
    )
    if stages:
        put_estimate(stages)
    for work in later:
        console.put(f"besides   {work}")


def announce_imatrix(path: Path, as_json: bool) -> None:
    """Where nothing more is known before there is an imatrix."""
    if as_json:
        console.put_json({"imatrix": str(path), "imatrix_exists": False})
    else:
        console.put(f"imatrix   {path} would be made first; then the same command shows the rest")


def _stages(job: RunJob, states: list[RunStatus]) -> list[WorkEstimate]:
    """By a short timing, where anything is left to do."""
    if all(state.evaluated and state.file_exists for state in states):
        return []
    model = job.targets[0].request.model
    return of_run(
        job.targets,
        job.texts,
        job.options,
        states,
        options.cache_folder(),
        timed(model, quantizable(model), job.options.pricing.probe),
        imatrix=job.imatrix.exists(),
        rounding_text=job.rounding_text,
    )


def _put_states(job: RunJob, states: list[RunStatus]) -> None:
    texts = (job.texts.calibration, job.texts.validation, job.texts.evaluation)
    sizes = ", ".join(f"{len(content(text)) / 1e3:,.0f} kB" for text in texts)
    console.put(f"imatrix   {job.imatrix} {'exists' if job.imatrix.exists() else 'is made first'}")
    console.put(f"texts     {sizes} (calibration, validation, evaluation)")
    console.put(f"table     {'in the cache' if states[0].has_table else 'rounding, probe and activations to measure'}")
    for state in states:
        steps = f"{state.planned} plans solved, {state.measured} of them measured" if state.planned else "to plan"
        steps += ", evaluated" if state.evaluated else ""
        steps += ", the file exists" if state.file_exists else ""
        target = state.target
        limit = "" if target.budget_bytes is None else f", at most {target.budget_bytes:,} bytes"
        console.put(f"{target.request.budget or '':9s} {target.file}{limit}: {steps}")


def _fields(job: RunJob, states: list[RunStatus]) -> dict[str, Any]:
    targets = [
        {
            "budget": state.target.request.budget,
            "file": str(state.target.file),
            "most_bytes": state.target.budget_bytes,
            "planned": state.planned,
            "measured": state.measured,
            "evaluated": state.evaluated,
            "file_exists": state.file_exists,
        }
        for state in states
    ]
    return {
        "imatrix": str(job.imatrix),
        "imatrix_exists": job.imatrix.exists(),
        "table": states[0].has_table,
        "targets": targets,
    }
