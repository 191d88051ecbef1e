"""How numbers are written for people: one rule a unit, the same on the page, card and gate."""

from dataclasses import dataclass, replace

# Units whose values are fractions and are shown as percent.
SHARES = ("%", "share")


@dataclass(frozen=True)
class Scale:
    """What a value is multiplied by to be shown, how many digits it keeps, and its unit."""

    factor: float
    digits: int
    unit: str
    # Whether it is a difference.
    is_signed: bool = False

    def number(self, value: float) -> str:
        """Write a value without the unit, with thousands parted by a comma."""
        text = f"{value * self.factor:{'+' if self.is_signed else ''},.{self.digits}f}"
        # Minus zero is a rounding artefact, not news.
        return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text

    def figure(self, value: float) -> str:
        """Write a value with the unit."""
        return f"{self.number(value)} {self.unit}".strip()

    def span(self, low: float, high: float) -> str:
        """Write an interval."""
        return f"{self.number(low)} to {self.number(high)} {self.unit}".strip()


# A relative change, given as a fraction: `+2.0 %`.
RELATIVE = Scale(100.0, 1, "%", is_signed=True)


def scale(unit: str, size: float) -> Scale:
    """Choose how values of about `size` in `unit` are shown."""
    if unit in SHARES:
        return Scale(100.0, 1, "%")
    if unit == "bytes":
        for power, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(size) >= power:
                return Scale(1 / power, 2 if abs(size) < 10 * power else 0, name)
        return Scale(1.0, 0, "bytes")
    steps = ((100, 0), (10, 1), (5, 2))
    return Scale(1.0, next((n for least, n in steps if abs(size) >= least), 3), unit)


def difference(unit: str, size: float) -> Scale:
    """Choose how differences are shown beside values of about `size`; of shares they are points."""
    how = scale(unit, size)
    return replace(how, unit="points" if unit in SHARES else how.unit, is_signed=True)


def figure(value: float, unit: str) -> str:
    """Write one value with its unit: `85.3 %`, `1.073 bits/byte`, `143 MB`."""
    return scale(unit, value).figure(value)


def short(value: float, unit: str) -> str:
    """Write one value without its unit, which stands beside it already; percent stays."""
    how = scale(unit, value)
    return how.figure(value) if how.unit == "%" else how.number(value)


def exact(value: float, unit: str) -> str:
    """Write a figure that has no interval: bytes with their unit, counts, else two digits."""
    if unit == "bytes":
        return figure(value, unit)
    return Scale(1.0, 2, unit).number(value) if unit else count(value)


def span(low: float, high: float, unit: str) -> str:
    """Write an interval in the scale of its larger end: `79.1 to 90.2 %`."""
    return scale(unit, max(abs(low), abs(high))).span(low, high)


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


def duration(seconds: float) -> str:
    """Write a time as people say it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
