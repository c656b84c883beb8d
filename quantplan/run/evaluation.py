"""Plans and stock quants measured on a text, each built and measured only once.

A finished measurement is kept by what the file is made of, so that the file itself may go: of a large model no disk holds
every version of it. Where there is room files stay until they are no longer needed.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from quantplan.build.build import rules_file
from quantplan.build.preflight import SPARE_BYTES
from quantplan.evaluate.baselines import BuildContext, as_planned, built, built_path
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.llamacpp import tools
from quantplan.measurement import METRICS_VERSION, Measurement
from quantplan.plan import Plan
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.cache import Cache
from quantplan.records.formats import MEASUREMENTS
from quantplan.records.journal import digest_of, text_digest
from quantplan.text import Text


@dataclass(frozen=True)
class EvaluatedFile:
    """``ftype``: of a stock quant, built without rules; ``finished``: where its file may exist already, outside the context."""

    name: str
    plan: Plan
    ftype: str = ""
    finished: Path | None = None

    @property
    def key(self) -> str:
        """What the weights of its file depend on."""
        made_from: list[object] = [self.plan.imatrix.digest if self.plan.imatrix else None, self.plan.encodings]
        if use := self.plan.rounding:
            made_from.append([use.text_digest, use.n_ctx, use.chunks])
        return digest_of(*made_from)


class Builds:
    """Built files: made where they are missing, removed where the disk needs room or they are no longer needed."""

    def __init__(self, context: BuildContext) -> None:
        self.context = context

    def place(self, file: EvaluatedFile) -> Path:
        """Where its file is or will be."""
        if file.finished and self.as_planned(file.finished, file):
            return file.finished
        return built_path(file.plan, file.name.replace(" ", "-"), self.context)

    def as_planned(self, place: Path, file: EvaluatedFile) -> bool:
        """Whether its file is there, whole and as planned."""
        in_folder = place.parent == self.context.folder  # where names tell what files are made from
        return as_planned(place, file.plan, self.context.rounding_cache, named_by_content=in_folder)

    def path(self, file: EvaluatedFile) -> Path:
        """Its file, built if need be. Raises what building raises."""
        place = self.place(file)
        return (
            place if place == file.finished else built(file.plan, file.name.replace(" ", "-"), self.context, file.ftype)
        )

    def batch(self, files: Sequence[EvaluatedFile]) -> list[Path]:
        """The first of ``files``, as many as the disk holds at once, at least one."""
        paths: list[Path] = []
        for file in files:
            if not self._room(file):
                if paths:
                    break
                self.drop_all_but(())
            paths.append(self.path(file))
        return paths

    def _room(self, file: EvaluatedFile) -> bool:
        place = self.place(file)
        if self.as_planned(place, file):
            return True
        self.context.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.context.folder).free >= file.plan.file_bytes + SPARE_BYTES

    def drop_all_but(self, files: Iterable[EvaluatedFile]) -> None:
        """Removes all other files of the context's folder; files elsewhere stay."""
        paths = {path for file in files for path in (self.place(file), rules_file(self.place(file)))}
        for path in self.context.folder.glob("*") if self.context.folder.is_dir() else ():
            if path.is_file() and path not in paths:
                path.unlink()

    def finish(self, file: EvaluatedFile, out: Path) -> None:
        """Its file, at ``out``."""
        if self.as_planned(out, file):
            return
        if not self._room(file):
            self.drop_all_but(())
        out.parent.mkdir(parents=True, exist_ok=True)
        self.path(file).replace(out)


class Evaluator:
    """Measurements of files on one text."""

    def __init__(self, builds: Builds, text: Text, options: MeasureOptions, cache: Path) -> None:
        self.builds, self.text, self.options, self._cache = builds, text, options, cache
        self.made_from = (
            METRICS_VERSION,
            builds.context.source.digest,
            tools.build(),
            version("llama-cpp-python"),
            text_digest(text),
            options.n_ctx,
            options.chunks,
            options.execution.backend,
        )
        self._measurements = Cache(MEASUREMENTS, cache, "trial", *self.made_from)

    def knows(self, file: EvaluatedFile) -> bool:
        return file.key in self._measurements

    def measure(
        self, files: Sequence[EvaluatedFile], report: Reporter = SILENT, stage: str = "measure"
    ) -> list[Measurement]:
        """In the order of ``files``; what was not measured yet is built and measured, the base once for all that fit on the
        disk together.

        Raises what building and measuring raise.
        """
        todo = list({file.key: file for file in files if not self.knows(file)}.values())
        total, done = len(todo), 0
        with report.stage(stage, total) if total else SILENT.stage(stage) as advance:
            while done < total:
                paths = self.builds.batch(todo[done:])
                self._measure(todo[done : done + len(paths)], paths, advance)
                done += len(paths)
        return [self.measurement(file) for file in files]

    def _measure(self, batch: Sequence[EvaluatedFile], paths: Sequence[Path], advance: Advance) -> None:
        def step(share: float) -> None:
            advance(share * len(paths))

        measurements = measure(self.builds.context.source.path, paths, self.text, self.options, step, self._cache)
        for file, measurement in zip(batch, measurements, strict=True):
            self._measurements.put(file.key, measurement)

    def measurement(self, file: EvaluatedFile) -> Measurement:
        """The file's own name and size: another of the same weights may have been measured."""
        return replace(self._measurements[file.key], file=file.name, file_bytes=file.plan.file_bytes)
