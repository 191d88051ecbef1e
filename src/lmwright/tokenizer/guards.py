"""What a call in a chat template may make of little text, counted before it is done.

Methods and filters of the same name share a guard. Each raises an OverflowError.
"""

import re
from collections.abc import Callable, Sized
from typing import Any

from lmwright.tokenizer.meter import MAX_CHARACTERS, STEP_CHARACTERS, StepMeter

# Of a field that is filled up with spaces, an indentation, the digits of a number.
MAX_WIDTH = 1000


def check_width(width: Any) -> None:
    """Refuse a width that no text needs."""
    if isinstance(width, int) and abs(width) > MAX_WIDTH:
        raise OverflowError(f"a width of {width:,}; at most {MAX_WIDTH:,}")


def check_widths(form: str) -> None:
    """Refuse a number of more digits than a width has, or one that is given elsewhere."""
    if "*" in form or re.search(r"\d{4}", form):
        raise OverflowError(f"a width of 1,000 or more in {form[:40]!r}")


def bound_percent(meter: StepMeter, form: str, values: Any) -> None:
    """Count `form % values` before it is computed."""
    # What stands between a % and its letter; a name in brackets comes first.
    for field in re.finditer(r"%(?:\([^)]*\))?([-+ #0-9.*]*)", form):
        check_widths(field[1])
    before = meter.left
    meter.whole(values)
    n_longest = MAX_WIDTH + (before - meter.left) * STEP_CHARACTERS
    meter.text(len(form) + form.count("%") * n_longest)


def _bound_replace(meter: StepMeter, text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    meter.text(len(text) + text.count(old) * len(new))


def _bound_join(meter: StepMeter, values: Any, separator: Any = "", *_: Any, **__: Any) -> None:
    # How many come out of a generator is not known before; they are counted one by one.
    n = len(values) if isinstance(values, Sized) else MAX_CHARACTERS // MAX_WIDTH
    meter.text(max(0, n - 1) * len(str(separator)) if separator != "" else 0)


def _bound_split(meter: StepMeter, text: str, separator: Any = None, *_: Any, **__: Any) -> None:
    n = text.count(separator) if isinstance(separator, str) and separator else len(text)
    meter.text(4 * n)


def _bound_tabs(meter: StepMeter, text: str, tabsize: Any = 8) -> None:
    check_width(tabsize)
    meter.text(len(text) + text.count("\t") * tabsize)


def _bound_indent(meter: StepMeter, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    check_width(width)
    n = len(width) if isinstance(width, str) else width
    meter.text((1 + len(str(text).splitlines())) * n)


def _bound_sum(meter: StepMeter, values: Any, attribute: Any = None, start: Any = 0) -> None:  # noqa: ARG001
    if not isinstance(start, int | float):
        raise OverflowError("a sum of anything but numbers; join makes one text of several")


def _bound_second(meter: StepMeter, value: Any, width: Any = 0, *_: Any, **__: Any) -> None:  # noqa: ARG001
    check_width(width)


METHOD_GUARDS: dict[str, Callable[..., None]] = {
    "replace": _bound_replace,
    "join": lambda meter, separator, values: _bound_join(meter, values, separator),
    "split": _bound_split,
    "rsplit": _bound_split,
    "splitlines": lambda meter, text, *_: _bound_split(meter, text),
    "expandtabs": _bound_tabs,
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _bound_second),
}
FILTER_GUARDS: dict[str, Callable[..., None]] = {
    "replace": _bound_replace,
    "join": _bound_join,
    "indent": _bound_indent,
    "sum": _bound_sum,
    "format": lambda meter, form, *args, **kwargs: bound_percent(meter, str(form), args or kwargs),
    **dict.fromkeys(("batch", "center", "round"), _bound_second),
}
