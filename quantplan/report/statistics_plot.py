"""A statistic of an imatrix as a heat map by role and block."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantplan.analyze.statistics import FIELDS, TensorStatistics, check_field
from quantplan.errors import BadUsage
from quantplan.report.cells import fixed
from quantplan.report.heat_map import HeatMap, check_picture, draw, save, width

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Sizes of inputs differ between roles by orders of magnitude and are comparable within a role only.
RELATIVE = ("sum", "min", "max", "mean", "std", "n", "entropy")


def statistics_plot(tensors: Sequence[TensorStatistics], field: str, path: Path | str) -> None:
    """Draws a statistic by role and block into ``path`` (.png, .svg or .pdf), other tensors below.

    Sizes are drawn relative to the median of their role on a logarithmic scale, percentages and cosines as they are. A cell
    without a value, or with a size of zero, is hatched. BadUsage for an unknown field or kind of picture, or without any block.
    """
    path = Path(path)
    check_field(field)
    check_picture(path)
    roles, values = by_block(tensors, field)
    colours = _relative(values) if field in RELATIVE else values
    words = [["" if np.isnan(value) else short(value) for value in row] for row in values]
    below = _outside([tensor for tensor in tensors if tensor.layer is None], field, int(width(values.shape[1]) * 11))
    title = f"{FIELDS[field].title}: {FIELDS[field].meaning}"
    figure, axes, image = draw(HeatMap(title, roles, colours, words, *_colours(colours, field), below))
    _colour_bar(figure, axes, image, field)
    save(figure, path)


def by_block(tensors: Sequence[TensorStatistics], field: str) -> tuple[list[str], np.ndarray]:
    """(roles, float [roles, blocks]): the values of a statistic, NaN where there is none.

    The tool's cosine of 0 for a tensor without an earlier block counts as no value: it would look like the outlier.
    """
    inside = [(tensor.layer, tensor) for tensor in tensors if tensor.layer is not None]
    if not inside:
        raise BadUsage("no tensor of this imatrix belongs to a block: there is no heat map to draw")
    roles = sorted({tensor.role for _, tensor in inside})
    values = np.full((len(roles), 1 + max(layer for layer, _ in inside)), np.nan)
    for layer, tensor in inside:
        values[roles.index(tensor.role), layer] = getattr(tensor, field)
    return roles, np.where(values == 0, np.nan, values) if field == "cossim" else values


def _colour_bar(figure: "Figure", axes: Any, image: "AxesImage", field: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    about = FIELDS[field]
    label = f"{about.title} / median of the role" if field in RELATIVE else f"{about.title} {about.unit}".strip()
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.04)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if field in RELATIVE:
        norm: Any = image.norm
        wide = norm.vmax > 40
        bar.locator = LogLocator(10 if wide else 2, numticks=12)
        bar.minorlocator = NullLocator()
        bar.formatter = FuncFormatter(lambda value, _: f"×{value:g}")
        bar.update_ticks()


def _relative(values: np.ndarray) -> np.ndarray:
    """Each row over its median; NaN where that is not a positive number."""
    medians = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values / np.where(medians > 0, medians, np.nan)[:, None]
    return np.where(ratio > 0, ratio, np.nan)


def _colours(shown: np.ndarray, field: str) -> tuple[str, Any]:
    """Colour map and norm: diverging around the role's median on a log scale, or one colour rising with the value."""
    from matplotlib.colors import LogNorm, Normalize

    present = shown[np.isfinite(shown)]
    if field not in RELATIVE:
        return "viridis", Normalize(present.min(), present.max()) if present.size else None
    reach = max(1.25, np.exp(np.abs(np.log(present)).max())) if present.size else 2.0
    return "RdBu_r", LogNorm(1 / reach, reach)


def short(value: float) -> str:
    """Three significant digits in at most five characters: ``0.76 12.3 1.5e4``."""
    if value == 0 or 0.01 <= abs(value) < 9999.5:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _outside(tensors: Sequence[TensorStatistics], field: str, characters: int) -> str:
    """Lines below the map with the values of tensors outside the blocks."""
    about = FIELDS[field]
    words = [
        f"{tensor.role} {fixed(getattr(tensor, field), about.decimals)} {about.unit}".strip() for tensor in tensors
    ]
    text = "outside the blocks: " + ", ".join(words)
    return "\n\n" + textwrap.fill(text, characters) if words else ""
