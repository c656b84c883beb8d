"""Pictures of one value for each role and block of a model. matplotlib is imported where it is used: it takes long to load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantplan.errors import BadUsage
from quantplan.records.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PICTURES = (".png", ".svg", ".pdf")
WORDS_UP_TO = 20  # blocks: beyond, words in the cells would be too small to read
_CELL = 0.55  # inches that a cell with words is wide


@dataclass(frozen=True)
class HeatMap:
    """``colours``: float [roles, blocks], NaN where there is no tensor. ``words``: text of each cell, empty for none.

    ``below``: lines that follow the axis.
    """

    title: str
    roles: Sequence[str]
    colours: np.ndarray
    words: Sequence[Sequence[str]]
    colour_map: str
    norm: "Normalize | None"
    below: str = ""


def width(blocks: int) -> float:
    """Inches of the picture of that many blocks."""
    cell = _CELL if blocks <= WORDS_UP_TO else max(0.15, _CELL * WORDS_UP_TO / blocks)
    return max(7.5, 3.4 + cell * blocks)


def draw(heat_map: HeatMap) -> "tuple[Figure, Axes, AxesImage]":
    """The figure, with its axes and image for a colour bar. Cells without a value are hatched."""
    from matplotlib.figure import Figure

    rows, blocks = heat_map.colours.shape
    height = 1.5 + 0.36 * rows + 0.18 * heat_map.below.count("\n")
    figure = Figure(figsize=(width(blocks), height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(heat_map.title, fontsize=11)
    axes.set_xlabel("block" + heat_map.below, fontsize=9)
    axes.set_facecolor("#e4e4e4")
    axes.patch.set(hatch="////", edgecolor="#b0b0b0")  # shines through where there is no value
    image = axes.imshow(
        np.ma.masked_invalid(heat_map.colours),
        aspect="auto",
        interpolation="nearest",
        cmap=heat_map.colour_map,
        norm=heat_map.norm,
    )
    axes.set_yticks(range(len(heat_map.roles)), heat_map.roles, fontsize=8)
    axes.set_xticks(range(0, blocks, next(step for step in (1, 2, 5, 10, 20, 50) if blocks <= 36 * step)))
    axes.tick_params(axis="x", labelsize=8)
    if blocks <= WORDS_UP_TO:
        _write_words(axes, image, heat_map)
    return figure, axes, image


def _write_words(axes: "Axes", image: "AxesImage", heat_map: HeatMap) -> None:
    colour_map: Colormap = image.cmap
    for (row, block), value in np.ndenumerate(heat_map.colours):
        red, green, blue, _ = colour_map(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        axes.text(block, row, heat_map.words[row][block], ha="center", va="center", fontsize=6.5, color=ink)


def check_picture(path: Path) -> None:
    """BadUsage unless the name ends as a picture's does."""
    if path.suffix.lower() not in PICTURES:
        raise BadUsage(f"--plot {path}: the picture's name must end in {', '.join(PICTURES)}")


def save(figure: "Figure", path: Path) -> None:
    """Writes the picture; an .svg is the same bytes for the same figure."""
    from matplotlib import rc_context

    kind = path.suffix.lower()[1:]
    with replacing(path, "wb") as file, rc_context({"svg.hashsalt": "quantplan"}):
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
