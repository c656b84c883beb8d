"""The frontier as a picture: size against expected KLD."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantplan.planning.frontier import FrontierEntry
from quantplan.planning.size_range import Planned
from quantplan.planning.stock_quants import StockQuant
from quantplan.report.heat_map import check_picture, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# of a label from its point, in points: the first place that is free is taken, near ones and those above the curve first
_PLACES = [
    place for k in range(12) for place in ((5 + 4 * k, 3 + 9 * k), (5 + 9 * k, 3 + 3 * k), (-5 - 4 * k, -9 - 9 * k))
]
_MARK = 4  # half the width of a stock quant's mark with some space around it, in points


@dataclass(frozen=True)
class Curve:
    """What is drawn. ``knee``: index of an entry, or None."""

    entries: Sequence[FrontierEntry | Planned]
    stock_quants: Sequence[StockQuant]
    calibrated: bool
    knee: int | None = None


def frontier_plot(curve: Curve, title: str, path: Path) -> None:
    """Draws the curve with its errors, the knee and the stock quants into ``path`` (.png, .svg or .pdf)."""
    check_picture(path)
    save(frontier_figure(curve, title), path)


def frontier_figure(curve: Curve, title: str) -> "Figure":
    """On a logarithmic scale; points without any damage have no place on it and are left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    scale, unit = (1e9, "GB") if curve.entries[-1].file_bytes >= 1e9 else (1e6, "MB")
    _curve(axes, curve, scale)
    points = {stock.name: (stock.file_bytes / scale, stock.kld) for stock in curve.stock_quants if stock.kld}
    if points:
        axes.plot(*zip(*points.values(), strict=True), "x", markersize=5, color="tab:red", label="stock quants")
    axes.set_yscale("log")
    axes.set_xlabel(f"file size, {unit}")
    axes.set_ylabel("expected KLD, nats per token" + ("" if curve.calibrated else " (not calibrated)"))
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=8)
    figure.draw_without_rendering()  # from here on it is known where things lie
    _name(figure, axes, points)
    return figure


def _curve(axes: "Axes", curve: Curve, scale: float) -> None:
    lossy = [file for file in curve.entries if file.kld > 0]
    sizes, klds = [file.file_bytes / scale for file in lossy], [file.kld for file in lossy]
    low = [max(file.kld - file.kld_err, file.kld / 10) for file in lossy]  # the axis has no 0
    axes.fill_between(sizes, low, [file.kld + file.kld_err for file in lossy], alpha=0.2, linewidth=0)
    axes.plot(sizes, klds, linewidth=1.2, marker=".", markersize=3, label="plans, with standard error")
    if curve.knee is not None:
        knee = curve.entries[curve.knee]
        axes.plot(
            [knee.file_bytes / scale],
            [knee.kld],
            "D",
            markersize=7,
            fillstyle="none",
            color="black",
            label=f"knee: {knee.file_bytes / scale:.2f}, {knee.bpw:.2f} bpw",
        )


def _name(figure: "Figure", axes: "Axes", points: dict[str, tuple[float, float]]) -> None:
    """A label for each point, where it covers no mark, no label before it and not the legend."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    half = _MARK * figure.dpi / 72
    marks = [axes.transData.transform(point) for point in points.values()]
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in marks]
    taken += [legend.get_window_extent()] if (legend := axes.get_legend()) else []
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "tab:red", "shrinkA": 0, "shrinkB": 2}
    for name, point in points.items():
        for place in _PLACES:
            aligned = "left" if place[0] > 0 else "right"
            label = axes.annotate(
                name, point, place, textcoords="offset points", arrowprops=line, ha=aligned, fontsize=7
            )
            label.get_window_extent()  # places it
            box = Text.get_window_extent(label)  # without the line to its point
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if inside and not any(box.overlaps(other) for other in taken):
                break
            if place != _PLACES[-1]:
                label.remove()
        taken.append(box)
