"""The frontier as a picture: size against expected KLD."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantplan.report.heat_map import check_picture, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Priced(Protocol):
    """A file of some size, made or not."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def bpw(self) -> float: ...
    @property
    def kld(self) -> float: ...
    @property
    def kld_err(self) -> float: ...


class NamedFile(Protocol):
    """A stock quant; ``kld`` None where it is not known."""

    @property
    def name(self) -> str: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def kld(self) -> float | None: ...


class Curve(Protocol):
    """What is drawn: a Frontier, or the plans of a report. ``knee``: index of an entry, or None."""

    @property
    def entries(self) -> Sequence[Priced]: ...
    @property
    def stock_quants(self) -> Sequence[NamedFile]: ...
    @property
    def knee(self) -> int | None: ...
    @property
    def calibrated(self) -> bool: ...


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
    _stock_quants(axes, curve, scale)
    axes.set_yscale("log")
    axes.set_xlabel(f"file size, {unit}")
    axes.set_ylabel("expected KLD, nats per token" + ("" if curve.calibrated else " (not calibrated)"))
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize=8)
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


def _stock_quants(axes: "Axes", curve: Curve, scale: float) -> None:
    lossy = [(file.name, file.file_bytes / scale, file.kld) for file in curve.stock_quants if file.kld]
    if not lossy:
        return
    _, sizes, klds = zip(*lossy, strict=True)
    axes.plot(sizes, klds, "x", markersize=5, color="tab:red", label="stock quants")
    for name, size, kld in lossy:  # away from the curve, which runs below on the left
        axes.annotate(name, (size, kld), textcoords="offset points", fontsize=7, xytext=(5, 3))
