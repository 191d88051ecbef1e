"""How numbers are written for people: one rule a unit, the same on the page, card and gate."""

from dataclasses import dataclass

# Units whose values are fractions and are shown as percent.
SHARES = ("%", "share")


@dataclass(frozen=True)
class Scale:
    """What a value is multiplied by to be shown, how many digits it keeps, and its unit."""

    factor: float
    digits: int
    unit: str


def scale(unit: str, size: float) -> Scale:
    """Choose how values of about `size` in `unit` are shown."""
    if unit in SHARES:
        return Scale(100.0, 1, "%")
    if unit == "bytes":
        for power, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(size) >= power:
                return Scale(1 / power, 2 if abs(size) < 10 * power else 0, name)
        return Scale(1.0, 0, "bytes")
    if abs(size) >= 100:
        return Scale(1.0, 0, unit)
    if abs(size) >= 10:
        return Scale(1.0, 1, unit)
    return Scale(1.0, 3 if abs(size) < 5 else 2, unit)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number with a fixed count of digits and thousands parted by a comma."""
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    # Minus zero is a rounding artefact, not news.
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text


def figure(value: float, unit: str) -> str:
    """Write one value with its unit: `85.3 %`, `1.073 bits/byte`, `143 MB`."""
    how = scale(unit, value)
    return f"{number(value * how.factor, how.digits)} {how.unit}".strip()


def short(value: float, unit: str) -> str:
    """Write one value without its unit, which stands beside it already; percent stays."""
    how = scale(unit, value)
    text = number(value * how.factor, how.digits)
    return f"{text} %" if how.unit == "%" else text


def exact(value: float, unit: str) -> str:
    """Write a figure that has no interval: bytes with their unit, counts, else two digits."""
    if unit == "bytes":
        return figure(value, unit)
    return number(value, 2) if unit else count(value)


def span(low: float, high: float, unit: str) -> str:
    """Write an interval in the scale of its larger end: `79.1 to 90.2 %`."""
    how = scale(unit, max(abs(low), abs(high)))
    ends = (number(end * how.factor, how.digits) for end in (low, high))
    return f"{' to '.join(ends)} {how.unit}".strip()


def change(value: float, unit: str, *, like: float | None = None) -> str:
    """Write a difference with its sign; differences of shares are points, not percent.

    `like` is a value that it stands beside: both then have as many digits.
    """
    how = scale(unit, value if like is None else like)
    return f"{number(value * how.factor, how.digits, signed=True)} {_points(how, unit)}".strip()


def change_span(low: float, high: float, unit: str, *, like: float | None = None) -> str:
    """Write the interval of a difference: `-2.1 to +0.4 points`."""
    how = scale(unit, max(abs(low), abs(high)) if like is None else like)
    ends = (number(end * how.factor, how.digits, signed=True) for end in (low, high))
    return f"{' to '.join(ends)} {_points(how, unit)}".strip()


def _points(how: Scale, unit: str) -> str:
    return "points" if unit in SHARES else how.unit


def percent(fraction: float, *, signed: bool = True) -> str:
    """Write a fraction as percent, signed as a relative change is: `+2.0 %`."""
    return f"{number(100 * fraction, 1, signed=signed)} %"


def percent_span(low: float, high: float) -> str:
    """Write the interval of a relative change: `-1.0 to +2.0 %`."""
    return f"{number(100 * low, 1, signed=True)} to {number(100 * high, 1, signed=True)} %"


def count(n: float) -> str:
    """Write a number of items or parameters: `136`, `4,300`, `135 M`."""
    for power, name in ((1e9, "B"), (1e6, "M")):
        if n >= power:
            return f"{n / power:.3g} {name}"
    return f"{n:,.0f}"


def about(n: float) -> str:
    """Write a guessed number of items, rounded up to two figures: it claims no more."""
    digits = max(len(str(int(n))) - 2, 0)
    return f"{-(-int(n) // 10**digits) * 10**digits:,}"
