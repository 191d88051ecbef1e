"""Charts as inline SVG: where everything stands; `charts.svg.jinja` holds the markup.

No script, no file beside the page, colours from the page's style.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lmwright.core import figures
from lmwright.reporting.collect import LossCurve
from lmwright.reporting.environment import template

# The plot's left and right edge in percent; the left strip holds the labels of the y axis.
LEFT, RIGHT = 9.0, 97.0
# The width that labels are placed for, in pixels: where they do not collide, wider is fine.
GUESS = 640


@dataclass(frozen=True)
class Bubble:
    """A model in the quality/size/speed chart."""

    name: str
    # Which colour of the page's palette.
    colour: int
    x: float
    y: float
    low: float
    high: float
    # Decides the area; None where speed was not measured.
    speed: float | None
    note: str


@dataclass(frozen=True)
class Frame:
    """The axes of a chart: ranges of its values, and its place in pixels from top to bottom."""

    label: str
    y_title: str
    y_unit: str
    x_high: float
    y_low: float
    y_high: float
    height: int
    top: int
    bottom: int
    x_unit: str = ""
    n_x_ticks: int = 5
    left: float = LEFT
    right: float = RIGHT

    def x(self, value: float) -> float:
        """Return where a value stands, in percent."""
        return LEFT + (RIGHT - LEFT) * value / self.x_high

    def y(self, value: float) -> float:
        """Return where a value stands, in pixels."""
        height, span = self.bottom - self.top, self.y_high - self.y_low
        return self.bottom - height * (value - self.y_low) / span

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Places and texts below the plot."""
        values = ticks(0, self.x_high, self.n_x_ticks)
        is_size = self.x_unit == "bytes"
        return [(self.x(v), _size(v) if is_size else f"{v:,.0f}") for v in values]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Places and texts beside the plot."""
        is_share = self.y_unit in figures.SHARES
        values = ticks(self.y_low, self.y_high, 4)
        return [(self.y(v), f"{100 * v:.0f} %" if is_share else f"{v:g}") for v in values]


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about `n` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def bubbles(points: Sequence[Bubble], *, y_title: str, y_unit: str) -> Markup:
    """Draw quality over size; the area of a bubble is the speed, the whisker the interval."""
    y_low, y_high = _y_range(points, y_unit)
    frame = Frame(
        label=f"{y_title} against size on disk, one bubble a model",
        y_title=y_title,
        y_unit=y_unit,
        x_high=max(point.x for point in points) * 1.15,
        y_low=y_low,
        y_high=y_high,
        height=340,
        top=30,
        bottom=290,
        x_unit="bytes",
        n_x_ticks=4,
    )
    fastest = max((point.speed or 0.0 for point in points), default=0.0)
    places: list[tuple[float, float, float, float]] = []
    marks = []
    # Large bubbles first, so that a small one is never hidden.
    for point in sorted(points, key=lambda point: -(point.speed or 0.0)):
        radius = 5 + 15 * math.sqrt(point.speed / fastest) if point.speed and fastest else 6
        x, y = frame.x(point.x), frame.y(point.y)
        dx, dy, anchor = _place(point, (x, y, radius), places)
        tip = f"{point.name}: {figures.figure(point.y, y_unit)}, {point.note}"
        ends = {"low": frame.y(point.low) - y, "high": frame.y(point.high) - y}
        label = {"dx": dx, "dy": dy, "anchor": anchor, "tip": tip}
        marks.append({"point": point, "x": x, "y": y, "radius": radius, **ends, **label})
    return _draw("bubbles", frame, marks)


def _place(
    point: Bubble,
    mark: tuple[float, float, float],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, str]:
    """Choose where a label goes: the first place around its bubble that no other label takes.

    Returns its offset from the bubble and its anchor. Widths are guessed, for a chart of about
    a tablet's; on a phone the second line is not shown.
    """
    x, y, radius = mark
    middle, width, gap = x * GUESS / 100, 7.0 * max(len(point.name), len(point.note)), radius + 7
    boxes = {}
    for dx, dy, anchor in (
        (gap, 0.0, "start"),
        (-gap, 0.0, "end"),
        (gap, 34.0, "start"),
        (gap, -34.0, "start"),
    ):
        left = middle + dx - (width if anchor == "end" else 0)
        if left >= LEFT * GUESS / 100 and left + width <= GUESS:
            boxes[dx, dy, anchor] = (left, y + dy - 16, left + width, y + dy + 18)
    free = [
        place for place, box in boxes.items() if not any(_overlap(box, other) for other in taken)
    ]
    place = next(iter([*free, *boxes]), (gap, 0.0, "start"))
    taken.append((middle - radius, y - radius, middle + radius, y + radius))
    taken.extend([boxes[place]] if place in boxes else [])
    return place


def _size(value: float) -> str:
    return figures.figure(value, "bytes") if value else "0"


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _y_range(points: Sequence[Bubble], unit: str) -> tuple[float, float]:
    if unit in figures.SHARES:
        # A little room, so that a bubble at 0 or 100 % does not lie on the frame.
        return -0.08, 1.04
    low, high = min(point.low for point in points), max(point.high for point in points)
    pad = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return low - pad, high + pad


def loss_curve(loss: LossCurve) -> Markup:
    """Draw the training loss (as it was, and smoothed) and the validation loss."""
    values = [value for _, value in (*loss.train, *loss.validation)]
    frame = Frame(
        label=f"Loss of {loss.step} over its training",
        y_title="loss (nats a token)",
        y_unit="",
        x_high=max(step for step, _ in (*loss.train, *loss.validation)) or 1,
        y_low=min(0.0, *values),
        y_high=max(values) * 1.05 or 1.0,
        height=280,
        top=24,
        bottom=230,
    )
    lines = {"raw": loss.train, "train": smooth(loss.train), "validation": loss.validation}
    dots = [
        (frame.x(step), frame.y(value), f"validation loss after step {step:,.0f}: {value:.4f}")
        for step, value in loss.validation
    ]
    paths = [(name, _path(points, frame)) for name, points in lines.items() if points]
    return _draw("losses", frame, paths, dots)


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return an exponential mean over about a twentieth of the points, corrected at its start."""
    keep = 1 - 1 / max(len(points) / 20, 1)
    total = weight = 0.0
    smoothed = []
    for step, value in points:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append((step, total / weight))
    return smoothed


def _path(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    """Return a path in thousandths of the plot."""
    corners = (
        f"{1000 * step / frame.x_high:.1f} "
        f"{1000 * (frame.y_high - value) / (frame.y_high - frame.y_low):.1f}"
        for step, value in points
    )
    return "M" + "L".join(corners)


def interval_bar(
    value: float,
    low: float,
    high: float,
    *,
    extent: tuple[float, float],
    band: tuple[float, float] | None = None,
    mark: float | None = None,
    style: str = "",
    tip: str = "",
) -> Markup:
    """Draw a point with its interval on a line from `extent[0]` to `extent[1]`.

    `band` is shaded (the margin, or what a rule allows), `mark` is an upright line (zero or the
    limit). What lies outside the extent is cut there, and an arrow points to it.
    """
    start, end = extent
    width = (end - start) or 1.0

    def at(x: float) -> float:
        return 2 + 96 * min(max((x - start) / width, 0.0), 1.0)

    return _draw(
        "bar",
        at(value),
        at(low),
        at(high),
        band=(at(band[0]), at(band[1])) if band else None,
        mark=None if mark is None else at(mark),
        beyond=(value > end) - (value < start),
        style=style,
        tip=tip,
    )


def _draw(macro: str, *values: Any, **named: Any) -> Markup:
    """Fill in one of the template's charts; what comes from data is escaped."""
    return getattr(template("charts.svg.jinja").module, macro)(*values, **named)
