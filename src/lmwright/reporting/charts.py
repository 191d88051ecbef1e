"""Charts as inline SVG: no script, no file beside the page, colours from the page's style.

Horizontal positions are percentages and vertical ones pixels, so that a chart fills any width
while its text and line widths stay as they are. Marks sit in nested `svg` elements, whose
contents are in pixels around the mark.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lmwright.core import figures
from lmwright.reporting.collect import LossCurve

# The plot's left and right edge in percent; the left strip holds the labels of the y axis.
LEFT, RIGHT = 9.0, 97.0
# The width that labels are placed for, in pixels: where they do not collide, wider is fine.
GUESS = 800


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
    height, top, bottom = 340, 30, 290
    x_high = max(point.x for point in points) * 1.15
    y_low, y_high = _y_range(points, y_unit)
    fastest = max((point.speed or 0.0 for point in points), default=0.0)

    def x_at(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * value / x_high

    def y_at(value: float) -> float:
        return bottom - (bottom - top) * (value - y_low) / (y_high - y_low)

    parts = [
        *_y_axis(ticks(y_low, y_high, 4), y_at, y_unit, title=y_title),
        *_x_axis(ticks(0, x_high, 4), x_at, bottom, label=_size),
    ]
    places: list[tuple[float, float, float, float]] = []
    # Large bubbles first, so that a small one is never hidden.
    for point in sorted(points, key=lambda point: -(point.speed or 0.0)):
        radius = 5 + 15 * math.sqrt(point.speed / fastest) if point.speed and fastest else 6
        x, y = x_at(point.x), y_at(point.y)
        dx, dy, anchor = _place(point, (x, y, radius), places)
        tip = f"{point.name}: {figures.figure(point.y, y_unit)}, {point.note}"
        parts.append(
            _at(x, y)
            + Markup('<g class="m{}"><title>{}</title>').format(point.colour, tip)
            + _whisker(y_at(point.low) - y, y_at(point.high) - y)
            + Markup('<circle class="bubble" r="{:.1f}"/><circle class="dot" r="3.5"/>').format(
                radius
            )
            + Markup(
                '<text class="name" x="{0:.1f}" y="{1:.1f}" text-anchor="{2}">{3}</text>'
                '<text class="note" x="{0:.1f}" y="{4:.1f}" text-anchor="{2}">{5}</text></g></svg>'
            ).format(dx, dy - 1, anchor, point.name, dy + 14, point.note)
        )
    label = f"{y_title} against size on disk, one bubble a model"
    return _svg(parts, height, label)


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
    height, top, bottom = 280, 24, 230
    last = max(step for step, _ in (*loss.train, *loss.validation))
    values = [value for _, value in (*loss.train, *loss.validation)]
    low = min(0.0, *values)
    high = max(values) * 1.05 or 1.0

    def x_at(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / (last or 1)

    def y_at(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = [
        *_y_axis(ticks(low, high, 4), y_at, "", title="loss (nats a token)"),
        *_x_axis(ticks(0, last, 5), x_at, bottom, label=lambda v: f"{v:,.0f}"),
        Markup('<text class="tick" x="{}%" y="{}" text-anchor="end">optimiser step</text>').format(
            RIGHT, height - 6
        ),
        # Its own coordinates, stretched to the plot: a path cannot be drawn in percentages.
        Markup(
            '<svg x="{}%" y="{}" width="{}%" height="{}" viewBox="0 0 1000 1000" '
            'preserveAspectRatio="none" overflow="visible">'
        ).format(LEFT, top, RIGHT - LEFT, bottom - top),
    ]
    scale = (last or 1, low, high)
    for name, points in (
        ("raw", loss.train),
        ("train", smooth(loss.train)),
        ("validation", loss.validation),
    ):
        if points:
            parts.append(Markup('<path class="{}" d="{}"/>').format(name, _path(points, scale)))
    parts.append(Markup("</svg>"))
    for step, value in loss.validation:
        tip = f"validation loss after step {step:,.0f}: {value:.4f}"
        parts.append(
            _at(x_at(step), y_at(value))
            + Markup(
                '<circle class="validation-dot" r="4"><title>{}</title></circle></svg>'
            ).format(tip)
        )
    return _svg(parts, height, f"Loss of {loss.step} over its training")


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return an exponential mean over about a twentieth of the points, corrected at its start."""
    keep = 1 - 1 / max(len(points) / 20, 1)
    total = weight = 0.0
    smoothed = []
    for step, value in points:
        total, weight = keep * total + value, keep * weight + 1
        smoothed.append((step, total / weight))
    return smoothed


def _path(points: Iterable[tuple[float, float]], scale: tuple[float, float, float]) -> str:
    last, low, high = scale
    corners = (
        f"{1000 * step / last:.1f} {1000 * (high - value) / (high - low):.1f}"
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

    parts = [Markup("<title>{}</title>").format(tip)]
    if band:
        left, right = at(band[0]), at(band[1])
        parts.append(
            Markup(
                '<rect class="band" x="{:.2f}%" y="2" width="{:.2f}%" height="22" rx="3"/>'
            ).format(left, right - left)
        )
    if mark is not None:
        parts.append(
            Markup('<line class="mark" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="26"/>').format(
                at(mark)
            )
        )
    line = Markup('<line class="interval" x1="{:.2f}%" x2="{:.2f}%" y1="13" y2="13"/>')
    parts.append(
        Markup('<g class="{}">').format(style)
        + line.format(at(low), at(high))
        + _point(value, at(value), extent)
        + Markup("</g>")
    )
    return Markup('<svg class="bar" height="26" role="img" aria-label="{}">{}</svg>').format(
        tip, Markup("").join(parts)
    )


def _point(value: float, x: float, extent: tuple[float, float]) -> Markup:
    """Draw a dot, or an arrow where the value lies beyond the edge."""
    if extent[0] <= value <= extent[1]:
        return Markup('<circle class="dot" cx="{:.2f}%" cy="13" r="4.5"/>').format(x)
    shape = "M-5 -5L5 0L-5 5Z" if value > extent[1] else "M5 -5L-5 0L5 5Z"
    return _at(x, 13) + Markup('<path class="dot" d="{}"/></svg>').format(shape)


def _svg(parts: Iterable[Markup], height: int, label: str) -> Markup:
    body = Markup("\n").join(parts)
    return Markup('<svg class="chart" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, label, body
    )


def _at(x: float, y: float) -> Markup:
    return Markup('<svg x="{:.2f}%" y="{:.1f}" overflow="visible">').format(x, y)


def _whisker(low: float, high: float) -> Markup:
    return Markup(
        '<path class="whisker" d="M0 {0:.1f}V{1:.1f}M-4 {0:.1f}H4M-4 {1:.1f}H4"/>'
    ).format(low, high)


def _y_axis(
    values: Iterable[float], y_at: Callable[[float], float], unit: str, *, title: str
) -> list[Markup]:
    parts = [Markup('<text class="axis" x="0" y="12">{}</text>').format(title)]
    for value in values:
        y = y_at(value)
        text = f"{100 * value:.0f} %" if unit in figures.SHARES else f"{value:g}"
        parts.append(
            Markup(
                '<line class="grid" x1="{}%" x2="{}%" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}%" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, RIGHT, y, y, LEFT - 1.2, y + 4, text)
        )
    return parts


def _x_axis(
    values: Iterable[float],
    x_at: Callable[[float], float],
    bottom: float,
    *,
    label: Callable[[float], str],
) -> list[Markup]:
    return [
        Markup('<text class="tick" x="{:.2f}%" y="{}" text-anchor="middle">{}</text>').format(
            x_at(value), bottom + 20, label(value)
        )
        for value in values
    ]
