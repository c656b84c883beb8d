"""The stock quants that a run falls back on: those that keep the limits of the target."""

from collections.abc import Iterable
from functools import cache

from quantplan.build.build import stock_plan
from quantplan.devices.limits import memory_use
from quantplan.devices.speed.table import GENERATION, SpeedTable
from quantplan.evaluate.baselines import stock_quant_sizes
from quantplan.imatrix import Imatrix
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest
from quantplan.tensor import Model


class StockQuants:
    """Stock quants of one model with one imatrix; those of llama.cpp's table by size."""

    def __init__(self, model: Model, imatrix: Imatrix | None, speeds: SpeedTable | None) -> None:
        self._model, self._imatrix, self._speeds = model, imatrix, speeds
        self.plan = cache(lambda name: stock_plan(model, name, imatrix))
        self._sizes = cache(lambda: stock_quant_sizes(model, imatrix))

    def smallest(self) -> list[str]:
        """The smallest of all, for comparison where none is within the limits; empty where llama.cpp makes none."""
        sizes = self._sizes()
        return [min(sizes, key=sizes.__getitem__)] if sizes else []

    def fallbacks(self, request: PlanRequest, most_bytes: int | None, named: Iterable[str]) -> list[str]:
        """The largest that keeps the limits, then those of ``named`` that do. ``most_bytes`` None: any size."""
        by_size = sorted(self._sizes().items(), key=lambda item: -item[1])
        nearest = next((name for name, _ in by_size if self._keeps_limits(request, most_bytes, self.plan(name))), None)
        fitting = [name for name in named if self._keeps_limits(request, most_bytes, self.plan(name))]
        return list(dict.fromkeys([nearest, *fitting] if nearest else fitting))

    def _keeps_limits(self, request: PlanRequest, most_bytes: int | None, quant: Plan) -> bool:
        devices, least_tps = request.devices, request.least_tps
        if most_bytes is not None and quant.file_bytes > most_bytes:
            return False
        if devices is not None and devices.exceeded(memory_use(quant.types, self._model, devices)):
            return False
        if least_tps is None or self._speeds is None:
            return True
        return self._speeds.tokens_per_second(quant.types, GENERATION).value >= least_tps
