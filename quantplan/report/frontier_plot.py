"""The frontier as a picture: size against expected KLD."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantplan.errors import BadUsage
from quantplan.report.plots import FORMATS, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Priced(Protocol):
    """A file of some size, made or not; mixes have a ``name`` too."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def bpw(self) -> float: ...
    @property
    def kld(self) -> float: ...
    @property
    def kld_err(self) -> float: ...


class Curve(Protocol):
    """What is drawn: an experiment's Frontier, or plans of another kind. ``knee``: index of an entry, or None."""

    @property
    def entries(self) -> Sequence[Priced]: ...
    @property
    def stock_quants(self) -> Sequence[Priced]: ...
    @property
    def knee(self) -> int | None: ...
    @property
    def calibrated(self) -> bool: ...


def check_picture(path: Path) -> None:
    """BadUsage unless the name ends as a picture's does."""
    if path.suffix.lower() not in FORMATS:
        raise BadUsage(f"--plot {path}: the picture's name must end in {', '.join(FORMATS)}")


def frontier_plot(found: Curve, title: str, path: Path) -> None:
    """Draws the curve with its errors, the knee and the mixes into ``path`` (.png, .svg or .pdf)."""
    check_picture(path)
    save(frontier_figure(found, title), path)


def frontier_figure(found: Curve, title: str) -> Figure:
    """On a logarithmic scale; points without any damage have no place on it and are left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    scale, unit = (1e9, "GB") if found.entries[-1].file_bytes >= 1e9 else (1e6, "MB")
    _curve(axes, found, scale)
    _stock_quants(axes, found, scale)
    axes.set_yscale("log")
    axes.set_xlabel(f"file size, {unit}")
    axes.set_ylabel("expected KLD, nats per token" + ("" if found.calibrated else " (not calibrated)"))
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=8)
    return figure


def _curve(axes: Axes, found: Curve, scale: float) -> None:
    lossy = [each for each in found.entries if each.kld > 0]
    sizes, klds = [each.file_bytes / scale for each in lossy], [each.kld for each in lossy]
    low = [max(each.kld - each.kld_err, each.kld / 10) for each in lossy]  # the axis has no 0
    axes.fill_between(sizes, low, [each.kld + each.kld_err for each in lossy], alpha=0.2, linewidth=0)
    axes.plot(sizes, klds, linewidth=1.2, marker=".", markersize=3, label="plans, with standard error")
    if found.knee is not None:
        knee = found.entries[found.knee]
        axes.plot(
            [knee.file_bytes / scale],
            [knee.kld],
            "D",
            markersize=7,
            fillstyle="none",
            color="black",
            label=f"knee: {knee.file_bytes / scale:.2f}, {knee.bpw:.2f} bpw",
        )


def _stock_quants(axes: Axes, found: Curve, scale: float) -> None:
    lossy = [each for each in found.stock_quants if each.kld > 0]
    if not lossy:
        return
    sizes, klds = [each.file_bytes / scale for each in lossy], [each.kld for each in lossy]
    axes.plot(sizes, klds, "x", markersize=5, color="tab:red", label="stock mixes")
    for each, size in zip(lossy, sizes, strict=True):  # away from the curve, which runs below on the left
        axes.annotate(each.name, (size, each.kld), textcoords="offset points", fontsize=7, xytext=(5, 3))
