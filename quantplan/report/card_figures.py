"""The figures of a report as pictures, for model cards: frontier with stock quants, types by role and block."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantplan.budget import human_bytes
from quantplan.planning.size_range import Planned
from quantplan.planning.stock_quants import StockQuant
from quantplan.quant_type import QuantType
from quantplan.report.frontier_plot import Curve, frontier_figure
from quantplan.report.heat_map import HeatMap, draw, save
from quantplan.report.page_data import roles
from quantplan.report.report_data import ReportData
from quantplan.tensor import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BITS = 8.5  # 16-bit types share the colour of Q8_0, as on the page
_ENDINGS = (".png", ".svg")


def write_figures(data: ReportData, folder: Path) -> list[Path]:
    """Writes frontier and heat map, each as .png and .svg; the map is of the plan that the page opens at."""
    name = data.model.name or data.model.path.stem
    plan = data.plans[data.opens_at]
    figures = {
        "frontier": frontier_figure(Curve(data.plans, data.stock_quants, data.table.calibrated), name),
        "heat-map": type_map(data.model, plan, f"{name}: {human_bytes(plan.file_bytes)}, {plan.bpw:.2f} bpw"),
    }
    paths = []
    for stem, figure in figures.items():
        for ending in _ENDINGS:
            paths.append(folder / f"{stem}{ending}")
            save(figure, paths[-1])
    return paths


def type_map(model: Model, sized: Planned | StockQuant, title: str) -> "Figure":
    """Bits per weight by role and block, tensors outside the blocks in a line below."""
    from matplotlib.colors import LogNorm

    tensors = [tensor for tensor in model.tensors if tensor.name in sized.types]
    inside = [(tensor.block, tensor) for tensor in tensors if tensor.block is not None]
    names = roles(tensors)
    blocks = 1 + max((block for block, _ in inside), default=0)
    bits = np.full((max(len(names), 1), blocks), np.nan)
    words = [[""] * blocks for _ in bits]
    for block, tensor in inside:
        row, kind = names.index(tensor.role), sized.types[tensor.name]
        bits[row, block], words[row][block] = kind.bits, kind.name
    low = min((kind.bits for kind in sized.types.values()), default=MOST_BITS)
    norm = LogNorm(min(low, MOST_BITS / 2), MOST_BITS, clip=True)
    outside = ", ".join(f"{tensor.role} {sized.types[tensor.name]}" for tensor in tensors if tensor.block is None)
    below = f"\noutside the blocks: {outside}" if outside else ""
    figure, axes, image = draw(HeatMap(title, names, bits, words, "viridis", norm, below))
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.05)
    _name_types(bar.ax, sized.types.values())
    return figure


def _name_types(axes: "Axes", types: Iterable[QuantType]) -> None:
    """Types that occur, at their bits on the colour bar; types of equal bits share a line."""
    from matplotlib.ticker import NullLocator

    by_bits: dict[float, list[str]] = {}
    for name, bits in sorted({(kind.name, kind.bits) for kind in types}):
        by_bits.setdefault(min(bits, MOST_BITS), []).append(name)
    axes.set_yticks(list(by_bits), [f"{bits:.2f}  {' '.join(names)}" for bits, names in by_bits.items()], fontsize=7)
    axes.yaxis.set_minor_locator(NullLocator())
