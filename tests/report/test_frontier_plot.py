from itertools import combinations

import pytest
from matplotlib.text import Text

from quantplan.errors import BadUsage
from quantplan.planning.frontier import Frontier, FrontierEntry
from quantplan.planning.stock_quants import StockQuant
from quantplan.report.frontier_plot import Curve, frontier_figure, frontier_plot
from quantplan.report.frontier_table import frontier_fields
from quantplan.solver.frontier import Point


def made(*klds, knee=None, stock_quants=()):
    entries = tuple(
        FrontierEntry(Point(at, at, kld, kld, 0.0, 1e-9, ()), 100 * at, 100 * at, 2.0 + at, kld, 2 * kld, 0.0, 1)
        for at, kld in enumerate(klds, 1)
    )
    return Frontier(entries, 10, knee, stock_quants, (), True)


def curve(*klds, **settings):
    frontier = made(*klds, **settings)
    return Curve(frontier.entries, frontier.stock_quants, frontier.calibrated, frontier.knee)


def test_the_curve_leaves_out_what_has_no_logarithm(tmp_path):
    stock_quants = (
        StockQuant("Q4_K_M", 150, 4.5, 0.02, 0.001, {}, plan_kld=0.01),
        StockQuant("F16", 300, 16.0, 0.0, 0.0, {}, plan_kld=0.0),
    )
    found = curve(0.1, 0.01, 0.0, knee=1, stock_quants=stock_quants)
    axes = frontier_figure(found, "a model").axes[0]
    line, knee, stock = axes.get_lines()
    assert list(line.get_ydata()) == [0.1, 0.01] and list(knee.get_ydata()) == [0.01]
    assert list(stock.get_ydata()) == [0.02] and [text.get_text() for text in axes.texts] == ["Q4_K_M"]
    assert axes.get_yscale() == "log"
    for kind in ("png", "svg"):
        frontier_plot(found, "a model", tmp_path / f"curve.{kind}")
        assert (tmp_path / f"curve.{kind}").stat().st_size > 1000


def test_names_of_stock_quants_do_not_cover_each_other():
    alike = tuple(StockQuant(f"Q{at}_K", 150 + at, 4.5, 0.02 - 1e-4 * at, 0.001, {}) for at in range(8))
    figure = frontier_figure(curve(0.1, 0.01, 0.001, stock_quants=alike), "a model")
    labels = figure.axes[0].texts
    boxes = [Text.get_window_extent(label) for label in labels]
    assert len(boxes) == 8 and not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_without_knee_and_mixes():
    assert len(frontier_figure(curve(0.1, 0.01), "a model").axes[0].get_lines()) == 1


def test_other_kinds_of_pictures(tmp_path):
    with pytest.raises(BadUsage, match="must end in"):
        frontier_plot(curve(0.1), "a model", tmp_path / "curve.gif")


def test_fields():
    stock_quants = (
        StockQuant("Q4_K_M", 150, 4.5, 0.02, 0.001, {}, plan_kld=0.01),
        StockQuant("Q2_K", 50, 2.5, 0.2, 0.001, {}),
    )
    fields = frontier_fields(made(0.1, 0.01, knee=1, stock_quants=stock_quants))
    assert [each["knee"] for each in fields["points"]] == [False, True]
    assert [each["price_per_100_mb"] for each in fields["points"]] == pytest.approx([0.1, 0.1])
    assert [each["ratio"] for each in fields["mixes"]] == [0.5, None]
