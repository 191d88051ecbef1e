"""A chart that draws a number in the wrong place lies more convincingly than a table."""

import re
from xml.etree import ElementTree

from lmwright.reporting.charts import Bubble, bubbles, interval_bar, loss_curve, smooth, ticks
from lmwright.reporting.collect import LossCurve


def centre(svg: str) -> float:
    found = re.search(r'<circle class="dot" cx="([\d.]+)%"', svg)
    assert found is not None
    return float(found[1])


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0, 4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0, 180, 5) == [0, 50, 100, 150]
    assert ticks(3.0, 3.0) == [3.0]


def test_a_bar_puts_the_value_where_it_is() -> None:
    assert centre(interval_bar(0.0, -1.0, 1.0, extent=(-4.0, 4.0))) == 50.0
    assert centre(interval_bar(4.0, 3.0, 5.0, extent=(-4.0, 4.0))) == 98.0


def test_a_value_beyond_the_edge_becomes_an_arrow() -> None:
    right = interval_bar(9.0, 8.0, 10.0, extent=(-4.0, 4.0))
    left = interval_bar(-9.0, -10.0, -8.0, extent=(-4.0, 4.0))
    assert "<circle" not in right
    assert "M-5 -5L5 0L-5 5Z" in right
    assert "M5 -5L-5 0L5 5Z" in left


def test_smoothing_keeps_a_constant_and_starts_with_the_first_value() -> None:
    assert smooth([(step, 2.0) for step in range(40)]) == [(step, 2.0) for step in range(40)]
    assert smooth([(1, 5.0), (2, 1.0)])[0] == (1, 5.0)


def test_charts_are_well_formed_whatever_the_names_are() -> None:
    name = '<b>&"x'
    points = [Bubble(name, i, 1e6 * (i + 1), 0.1 * i, 0.0, 0.5, None, name) for i in range(5)]
    chart = bubbles(points, y_title=name, y_unit="share")
    root = ElementTree.fromstring(str(chart))
    titles = [element.text for element in root.iter("title")]
    assert len(titles) == 5
    assert all(title is not None and title.startswith(name) for title in titles)


def test_a_loss_curve_of_one_step_can_be_drawn() -> None:
    curve = loss_curve(LossCurve("tuned", ((1.0, 2.5),), ((1.0, 2.4),)))
    ElementTree.fromstring(str(curve))
    assert "validation loss after step 1: 2.4000" in curve
