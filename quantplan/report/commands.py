"""The commands that make a plan of a report again, as a person pastes them into a shell."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.gguf.sized_plan import base_ftype
from quantplan.llamacpp.quantize import TOOL, Recipe, realigns
from quantplan.llamacpp.tools import command_line
from quantplan.plan import PlannedTensor
from quantplan.planning.size_range import Planned
from quantplan.recipes.rules import write_rules
from quantplan.report.report_data import ReportData


@dataclass(frozen=True)
class Commands:
    """``solve``: words of the command that plans, without a budget. Paths are as seen from the folder to run in."""

    solve: Sequence[str]
    plans: Path  # folder
    stem: str  # what names of plans and files begin with

    def by_quantplan(self, plan: Planned) -> str:
        """Two commands: make the plan again, and build it."""
        file = self.plans / f"{self._name(plan)}.json"
        made = command_line([*self.solve, "--budget", plan.asked, "--out", file])
        return f"{made}\n{command_line(['quantplan', 'quantize', file])}"

    def by_llama_quantize(self, report_data: ReportData, plan: Planned) -> str:
        """llama-quantize with all rules spelled out. It runs in the imatrix's folder: the path that it is given becomes
        metadata of the file, and would change its size."""
        model, imatrix = report_data.model, report_data.request.imatrix
        folder = imatrix.path.parent if imatrix else Path()
        planned = tuple(
            PlannedTensor(name, kind, model.by_name[name].bytes_as(kind), True) for name, kind in plan.types.items()
        )
        old = {name: model.by_name[name].type for name in plan.types}
        recipe = Recipe(
            base_ftype(planned),
            write_rules(plan.types, model.by_name),
            imatrix=Path(imatrix.path.name) if imatrix else None,
            allow_requantize=any(
                old[name] != kind and old[name].family != "float" for name, kind in plan.types.items()
            ),
            realign=realigns(model),
        )
        source, out = (_seen_from(folder, path) for path in (model.path, Path(f"{self._name(plan)}.gguf")))
        words = [TOOL, *recipe.options(), source, out, recipe.ftype]
        return command_line(words, folder if folder != Path() else None)

    def _name(self, plan: Planned) -> str:
        words = re.sub(r"[^A-Za-z0-9._=%+-]+", "-", plan.asked.lower()).strip("-=")
        return f"{self.stem}-{words}"


def _seen_from(folder: Path, path: Path) -> str:
    """The path as it stands in that folder; ``./`` in front where it could pass for an option."""
    seen = str(path if path.is_absolute() else Path(os.path.relpath(path, folder)))
    return f"./{seen}" if seen.startswith("-") else seen
