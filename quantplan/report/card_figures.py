"""The figures of a report as pictures, for model cards: frontier with stock mixes, types by role and block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantplan.budget import human_bytes
from quantplan.quant_type import QuantType
from quantplan.report.frontier_plot import frontier_figure
from quantplan.report.page_data import roles
from quantplan.report.plots import NUMBERS_UP_TO, save
from quantplan.report.report_data import Planned, ReportData, Sized, StockQuantRow
from quantplan.tensor import Model, Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_BITS = 8.5  # 16-bit types share the colour of Q8_0, as on the page
FAMILIAR = ("Q2_K", "IQ3_XXS", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")  # names stay apart
_KINDS = (".png", ".svg")


@dataclass(frozen=True)
class _Curve:
    entries: Sequence[Planned]
    stock_quants: Sequence[StockQuantRow]
    calibrated: bool
    knee: int | None = None


def draw(found: ReportData, folder: Path) -> list[Path]:
    """Writes frontier and heat map, each as .png and .svg; the map is of the plan that the page opens at."""
    name = found.model.name or found.model.path.stem
    scored = [
        stock_quant
        for stock_quant in found.stock_quants
        if stock_quant.kld is not None and stock_quant.name in FAMILIAR
    ]
    plan = found.plans[found.opens_at]
    figures = {
        "frontier": frontier_figure(_Curve(found.plans, scored, found.table.calibrated), name),
        "heat-map": type_map(found.model, plan, f"{name}: {human_bytes(plan.file_bytes)}, {plan.bpw:.2f} bpw"),
    }
    paths = []
    for stem, figure in figures.items():
        for kind in _KINDS:
            paths.append(folder / f"{stem}{kind}")
            save(figure, paths[-1])
    return paths


def type_map(model: Model, sized: Sized, title: str) -> Figure:
    """Bits per weight by role and block, tensors outside the blocks in a line below."""
    from matplotlib.figure import Figure

    tensors = [each for each in model.tensors if each.name in sized.types]
    inside = [each for each in tensors if each.block is not None]
    names = roles(tensors)
    blocks = 1 + max((each.block or 0 for each in inside), default=0)
    cell = 0.58 if blocks <= NUMBERS_UP_TO else max(0.16, 0.58 * NUMBERS_UP_TO / blocks)
    figure = Figure(figsize=(max(7.0, 3.2 + cell * blocks), 1.6 + 0.34 * max(len(names), 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    image = _cells(axes, inside, names, blocks, sized)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.05)
    _name_types(bar.ax, sized.types.values())
    outside = ", ".join(f"{each.role} {sized.types[each.name]}" for each in tensors if each.block is None)
    axes.set_xlabel("block" + (f"\noutside the blocks: {outside}" if outside else ""), fontsize=9)
    return figure


def _cells(axes: Axes, tensors: Sequence[Tensor], names: Sequence[str], blocks: int, sized: Sized) -> AxesImage:
    from matplotlib.colors import LogNorm

    bits = np.full((max(len(names), 1), blocks), np.nan)
    for each in tensors:
        bits[names.index(each.role), each.block] = sized.types[each.name].bits
    low = min((kind.bits for kind in sized.types.values()), default=MOST_BITS)
    norm = LogNorm(min(low, MOST_BITS / 2), MOST_BITS, clip=True)
    axes.set_facecolor("#e4e4e4")
    axes.patch.set(hatch="////", edgecolor="#b0b0b0")  # shines through where there is no tensor
    image = axes.imshow(np.ma.masked_invalid(bits), aspect="auto", interpolation="nearest", cmap="viridis", norm=norm)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(0, blocks, next(step for step in (1, 2, 5, 10, 20, 50) if blocks <= 36 * step)))
    axes.tick_params(axis="x", labelsize=8)
    for each in tensors if blocks <= NUMBERS_UP_TO else ():
        kind = sized.types[each.name]
        red, green, blue, _ = image.cmap(image.norm(kind.bits))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        axes.text(each.block, names.index(each.role), kind.name, ha="center", va="center", fontsize=6.5, color=ink)
    return image


def _name_types(axes: Axes, kinds: Sequence[QuantType]) -> None:
    """Types that occur, at their bits on the colour bar; of those with equal bits one line has all names."""
    from matplotlib.ticker import NullLocator

    by_bits: dict[float, list[str]] = {}
    for name, bits in sorted({(kind.name, kind.bits) for kind in kinds}):
        by_bits.setdefault(min(bits, MOST_BITS), []).append(name)
    axes.set_yticks(list(by_bits), [f"{bits:.2f}  {' '.join(names)}" for bits, names in by_bits.items()], fontsize=7)
    axes.yaxis.set_minor_locator(NullLocator())
