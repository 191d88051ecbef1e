"""Tables for a terminal: one place that fits columns into a width and keeps numbers whole.

Cells break between words only; a no-break space (`GLUE`) keeps together what must not be parted,
such as an interval. What does not fit even so is shown as one block a row instead of columns.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GLUE = "\u00a0"
GAP = 2


@dataclass(frozen=True)
class Styled:
    """A line of a cell in a style of rich's ("bold red")."""

    text: str
    style: str = ""


# A text of one or several lines, or lines with styles.
CellText = str | Sequence[Styled]


@dataclass(frozen=True)
class TextTable:
    """Rows under headings; the first column names the row."""

    headings: Sequence[str]
    rows: Sequence[Sequence[CellText]]
    title: str = ""
    footer: str = ""

    def text(self, width: int | None = None, *, is_coloured: bool = False) -> str:
        """Return the table in at most `width` characters a line; None: as wide as it is."""
        cells = [[_lines(cell) for cell in row] for row in self.rows]
        heads = [_lines(heading) for heading in self.headings]
        widths = _widths([heads, *cells], width)
        if widths is None:
            assert width is not None
            body = _stacked(self.headings, cells, width)
        else:
            body = _columns(heads, cells, widths)
        parts = [
            *([[Styled(self.title, "bold")]] if self.title else []),
            *body,
            *([[Styled(line)] for line in _wrapped(self.footer, width)] if self.footer else []),
        ]
        return "\n".join(_painted(line, is_coloured=is_coloured) for line in parts)


def glued(text: str) -> str:
    """Return a text that no table breaks."""
    return text.replace(" ", GLUE)


def _lines(cell: CellText) -> list[Styled]:
    return [Styled(line) for line in cell.split("\n")] if isinstance(cell, str) else list(cell)


def _widths(rows: Sequence[Sequence[Sequence[Styled]]], width: int | None) -> list[int] | None:
    """Return a width for each column, the widest ones narrowed first; None if they do not fit."""
    columns = list(zip(*rows, strict=True))
    widest = [max(len(line.text) for cell in column for line in cell) for column in columns]
    least = [max(_longest_word(line.text) for c in column for line in c) for column in columns]
    room = None if width is None else width - GAP * (len(columns) - 1)
    if room is None or sum(widest) <= room:
        return widest
    if sum(least) > room:
        return None
    while sum(widest) > room:
        # Of those that can shrink, the one that is widest now.
        i = max((i for i, w in enumerate(widest) if w > least[i]), key=lambda i: widest[i])
        widest[i] -= 1
    return widest


def _longest_word(text: str) -> int:
    return max(map(len, text.split(" ")))


def _columns(
    heads: Sequence[Sequence[Styled]],
    rows: Sequence[Sequence[Sequence[Styled]]],
    widths: Sequence[int],
) -> Iterator[list[Styled]]:
    fitted = [[_fit(cell, w) for cell, w in zip(row, widths, strict=True)] for row in rows]
    yield from _side_by_side([_fit(cell, w) for cell, w in zip(heads, widths, strict=True)], widths)
    yield [Styled("-" * (sum(widths) + GAP * (len(widths) - 1)))]
    # Where rows have several lines, a blank one shows where the next begins.
    has_blocks = any(len(cell) > 1 for row in fitted for cell in row)
    for number, row in enumerate(fitted):
        if number and has_blocks:
            yield []
        yield from _side_by_side(row, widths)


def _fit(cell: Sequence[Styled], width: int) -> list[Styled]:
    return [Styled(part, line.style) for line in cell for part in _wrapped(line.text, width)]


def _side_by_side(
    cells: Sequence[Sequence[Styled]], widths: Sequence[int]
) -> Iterator[list[Styled]]:
    for i in range(max(map(len, cells))):
        line = []
        for cell, width in zip(cells, widths, strict=True):
            part = cell[i] if i < len(cell) else Styled("")
            gap = width - len(part.text) + GAP
            line += [part, Styled(" " * gap)]
        yield line


def _stacked(
    headings: Sequence[str], rows: Sequence[Sequence[Sequence[Styled]]], width: int
) -> Iterator[list[Styled]]:
    """Yield a block a row: what names it, then each cell behind its heading."""
    names = [heading.replace("\n", " ") for heading in headings[1:]]
    indent = 2 + max(map(len, names), default=0) + GAP
    room = max(width - indent, 1)
    for number, (first, *others) in enumerate(rows):
        if number:
            yield []
        title = ", ".join(line.text for line in first)
        yield from ([Styled(part, "bold")] for part in _wrapped(title, width))
        for name, cell in zip(names, others, strict=True):
            label = f"  {name}"
            for line in _joined(cell, room):
                yield [Styled(label.ljust(indent)), *line]
                label = ""


def _joined(cell: Sequence[Styled], room: int) -> Iterator[list[Styled]]:
    """Yield the lines of a cell: in one where they fit, else broken."""
    told = [line for line in cell if line.text]
    if sum(len(line.text) + GAP for line in told) - GAP <= room:
        yield [part for line in told for part in (line, Styled(" " * GAP))]
        return
    yield from ([line] for line in _fit(told, room))


def _wrapped(text: str, width: int | None) -> list[str]:
    """Break a text between words, where it is longer; its own line breaks stay."""
    lines = []
    for line in text.split("\n"):
        room = len(line) if width is None else width
        # The library keeps a no-break space; a word wider than the room sticks out rather than
        # being cut.
        lines += textwrap.wrap(
            line, max(room, 1), break_long_words=False, break_on_hyphens=False
        ) or [""]
    return lines


def _painted(line: Sequence[Styled], *, is_coloured: bool) -> str:
    from rich.style import Style

    text = "".join(
        Style.parse(part.style).render(part.text) if is_coloured and part.style else part.text
        for part in line
    )
    return text.replace(GLUE, " ").rstrip()
