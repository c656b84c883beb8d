"""Pictures. matplotlib is imported where it is used: it costs a quarter of a second."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantplan.analyze.statistics import FIELDS, TensorStatistics, check_field
from quantplan.errors import BadUsage
from quantplan.records.files import replacing
from quantplan.report.imatrix_table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Sizes of inputs differ between roles by orders of magnitude and are comparable within a role only.
RELATIVE = ("sum", "min", "max", "mean", "std", "n", "entropy")
FORMATS = (".png", ".svg", ".pdf")
NUMBERS_UP_TO = 20  # blocks: beyond, figures in the cells would be too small to read
_MISSING = "#e4e4e4"


def heat_map(tensors: Sequence[TensorStatistics], field: str, path: Path | str) -> None:
    """Draws a statistic by role and block into ``path`` (.png, .svg or .pdf), other tensors below.

    Sizes are drawn relative to the median of their role on a logarithmic scale, percentages and cosines as
    they are. A cell without a value, or with a size of zero, is hatched. BadUsage for an unknown field or
    kind of picture, or without any block.
    """
    path = Path(path)
    check_field(field)
    if path.suffix.lower() not in FORMATS:
        raise BadUsage(f"--plot {path}: the picture's name must end in {', '.join(FORMATS)}")
    save(_heat_map(tensors, field), path)


def save(figure: Figure, path: Path) -> None:
    """Writes the picture; an .svg is the same bytes for the same figure."""
    from matplotlib import rc_context

    kind = path.suffix.lower()[1:]
    with replacing(path, "wb") as file, rc_context({"svg.hashsalt": "quantplan"}):
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def grid(tensors: Sequence[TensorStatistics], field: str) -> tuple[list[str], np.ndarray]:
    """(roles, float [roles, blocks]): the values of a statistic, NaN where there is none.

    The tool's cosine of 0 for a tensor without an earlier block is no value either: it would look like the
    outlier.
    """
    inside = [each for each in tensors if each.layer is not None]
    if not inside:
        raise BadUsage("no tensor of this imatrix belongs to a block: there is no heat map to draw")
    roles = sorted({each.role for each in inside})
    values = np.full((len(roles), 1 + max(each.layer for each in inside)), np.nan)
    for each in inside:
        values[roles.index(each.role), each.layer] = getattr(each, field)
    return roles, np.where(values == 0, np.nan, values) if field == "cossim" else values


def _heat_map(tensors: Sequence[TensorStatistics], field: str) -> Figure:
    from matplotlib.figure import Figure

    roles, values = grid(tensors, field)
    blocks = values.shape[1]
    cell = 0.52 if blocks <= NUMBERS_UP_TO else max(0.15, 0.52 * NUMBERS_UP_TO / blocks)
    width = max(7.5, 3.4 + cell * blocks)
    below = _outside([each for each in tensors if each.layer is None], field, characters=int(width * 11))
    figure = Figure(figsize=(width, 1.5 + 0.38 * len(roles) + 0.18 * below.count("\n")), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{FIELDS[field].title}: {FIELDS[field].meaning}", fontsize=11)
    _colour_bar(figure, axes, _cells(axes, roles, values, field), field)
    axes.set_xlabel("block" + below, fontsize=9)
    return figure


def _colour_bar(figure: Figure, axes: Axes, image: AxesImage, field: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    about = FIELDS[field]
    label = f"{about.title} / median of the role" if field in RELATIVE else f"{about.title} {about.unit}".strip()
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.04)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if field in RELATIVE:
        wide = image.norm.vmax > 40
        bar.locator = LogLocator(10 if wide else 2, numticks=12)
        bar.minorlocator = NullLocator()
        bar.formatter = FuncFormatter(lambda value, _: f"×{value:g}")
        bar.update_ticks()


def _cells(axes: Axes, roles: list[str], values: np.ndarray, field: str) -> AxesImage:
    shown = _relative(values) if field in RELATIVE else values
    axes.set_facecolor(_MISSING)
    axes.patch.set(hatch="////", edgecolor="#b0b0b0")  # shines through where there is no value
    image = axes.imshow(np.ma.masked_invalid(shown), aspect="auto", interpolation="nearest", **_colours(shown, field))
    axes.set_yticks(range(len(roles)), roles, fontsize=8)
    step = next(step for step in (1, 2, 5, 10, 20, 50) if values.shape[1] <= 36 * step)
    axes.set_xticks(range(0, values.shape[1], step))
    axes.tick_params(axis="x", labelsize=8)
    if values.shape[1] <= NUMBERS_UP_TO:
        _write_numbers(axes, image, values, shown)
    return image


def _relative(values: np.ndarray) -> np.ndarray:
    """Each row over its median; NaN where that is no positive number."""
    medians = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values / np.where(medians > 0, medians, np.nan)[:, None]
    return np.where(ratio > 0, ratio, np.nan)


def _colours(shown: np.ndarray, field: str) -> dict[str, object]:
    """Diverging around the role's median on a log scale, or one colour rising with the value."""
    from matplotlib.colors import LogNorm, Normalize

    present = shown[np.isfinite(shown)]
    if field not in RELATIVE:
        return {"cmap": "viridis", "norm": Normalize(present.min(), present.max()) if present.size else None}
    reach = max(1.25, np.exp(np.abs(np.log(present)).max())) if present.size else 2.0
    return {"cmap": "RdBu_r", "norm": LogNorm(1 / reach, reach)}


def _write_numbers(axes: Axes, image: AxesImage, values: np.ndarray, shown: np.ndarray) -> None:
    for row, column in np.argwhere(np.isfinite(values)):
        red, green, blue, _ = (
            image.cmap(image.norm(shown[row, column])) if np.isfinite(shown[row, column]) else (1, 1, 1, 1)
        )
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(
            column,
            row,
            short(values[row, column]),
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if dark else "black",
        )


def short(value: float) -> str:
    """Three significant digits in at most five characters: ``0.76 12.3 1.5e4``."""
    if value == 0 or 0.01 <= abs(value) < 9999.5:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _outside(tensors: Sequence[TensorStatistics], field: str, characters: int) -> str:
    """Lines below the map: these tensors have no neighbours to compare with and get their value in words."""
    about = FIELDS[field]
    words = [f"{each.role} {number(getattr(each, field), about.decimals)} {about.unit}".strip() for each in tensors]
    text = "outside the blocks: " + ", ".join(words)
    return "\n\n" + textwrap.fill(text, characters) if words else ""
