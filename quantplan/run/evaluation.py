"""Plans and stock mixes put to the test on a text, each built and measured once, ever.

A finished measurement is kept by what the file is made of, so that the file itself may go: of a large model no disk holds
every version that was tried. Where there is room files stay until they are no longer needed.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class EvaluatedFile:
    """``ftype``: a stock mix, built without rules; ``finished``: where its file may stand already, outside the workshop."""

    name: str
    plan: Plan
    ftype: str = ""
    finished: Path | None = None

    @property
    def key(self) -> str:
        """What the weights of its file depend on."""
        types = {each.name: each.type.name for each in self.plan.tensors}
        return digest_of(self.plan.imatrix.digest if self.plan.imatrix else None, types)


class Builds:
    """The files of candidates: made where they are missing, dropped where the disk needs room or nobody wants them."""

    def __init__(self, shop: BuildContext) -> None:
        self.shop = shop

    def place(self, one: EvaluatedFile) -> Path:
        """Where its file is or will be."""
        if one.finished and as_planned(one.finished, one.plan):
            return one.finished
        return built_path(one.plan, one.name.replace(" ", "-"), self.shop)

    def file(self, one: EvaluatedFile) -> Path:
        """Its file, built if need be. Raises what building raises."""
        place = self.place(one)
        return place if place == one.finished else built(one.plan, one.name.replace(" ", "-"), self.shop, one.ftype)

    def batch(self, wanted: Sequence[EvaluatedFile]) -> list[Path]:
        """Files of the first of ``wanted``, as many as the disk holds at once, at least one."""
        files: list[Path] = []
        for one in wanted:
            if not self._room(one):
                if files:
                    break
                self.drop_all_but(())
            files.append(self.file(one))
        return files

    def _room(self, one: EvaluatedFile) -> bool:
        if as_planned(self.place(one), one.plan):
            return True
        self.shop.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.shop.folder).free >= one.plan.file_bytes + SPARE_BYTES

    def drop_all_but(self, wanted: Iterable[EvaluatedFile]) -> None:
        """Removes what lies in the workshop besides; files elsewhere are nobody's to remove."""
        kept = {path for one in wanted for path in (self.place(one), rules_file(self.place(one)))}
        for path in self.shop.folder.glob("*") if self.shop.folder.is_dir() else ():
            if path.is_file() and path not in kept:
                path.unlink()

    def finish(self, one: EvaluatedFile, out: Path) -> None:
        """Its file, at ``out``."""
        if as_planned(out, one.plan):
            return
        if not self._room(one):
            self.drop_all_but(())
        out.parent.mkdir(parents=True, exist_ok=True)
        self.file(one).replace(out)


class Evaluator:
    """Measurements of candidates on one text."""

    def __init__(self, builds: Builds, text: str, options: MeasureOptions, cache: Path) -> None:
        self.builds, self.text, self.options, self._cache = builds, text, options, cache
        self.made_from = (
            METRICS_VERSION,
            builds.shop.source.digest,
            tools.build(),
            version("llama-cpp-python"),
            text_digest(text),
            options.n_ctx,
            options.chunks,
            options.execution.backend,
        )
        self._measurements = Cache(MEASUREMENTS, cache, "trial", *self.made_from)

    def knows(self, one: EvaluatedFile) -> bool:
        return one.key in self._measurements

    def measured(
        self, wanted: Sequence[EvaluatedFile], report: Reporter = SILENT, stage: str = "measure"
    ) -> list[Measurement]:
        """In the order of ``wanted``; what was not measured yet is built and measured, the base once for all that fit on the
        disk together.

        Raises what building and measuring raise.
        """
        todo = list({one.key: one for one in wanted if not self.knows(one)}.values())
        total, done = len(todo), 0
        with report.stage(stage, total) if total else SILENT.stage(stage) as advance:
            while done < total:
                files = self.builds.batch(todo[done:])
                self._measure(todo[done : done + len(files)], files, advance)
                done += len(files)
        return [self.found(one) for one in wanted]

    def _measure(self, batch: Sequence[EvaluatedFile], files: Sequence[Path], advance: Advance) -> None:

        def step(share: float) -> None:
            advance(share * len(files))

        found = measure(self.builds.shop.source.path, files, self.text, self.options, step, self._cache)
        for one, each in zip(batch, found, strict=True):
            self._measurements.put(one.key, each)

    def found(self, one: EvaluatedFile) -> Measurement:
        """The file's own name and size: another of the same weights may have been measured."""
        found = self._measurements[one.key]
        return replace(found, file=one.name, file_bytes=one.plan.file_bytes)
