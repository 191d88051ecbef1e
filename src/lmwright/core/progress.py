"""Progress with time left, on stderr only, so that stdout stays machine-readable.

A terminal gets a bar. Elsewhere (a pipe, a log file, CI) plain lines say how far it is: one at the
start, one every half minute, one at the end.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lmwright.core.figures import duration

# Between two lines where there is no terminal.
EVERY_S = 30.0


class Bar:
    """How far a piece of work is; whoever does the work moves it, `bar` shows it."""

    def __init__(self, description: str, total: float) -> None:
        """`total` is in the units that `advance` counts."""
        self.description, self.total, self.note = description, total, ""
        self._whole = self._part = 0.0
        self._started = time.monotonic()
        # Units that were done before this process began say nothing about its speed.
        self._n_before: float | None = None

    @property
    def completed(self) -> float:
        """Units done, the part of the one that is being worked on included."""
        return self._whole + self._part

    def advance(self, n: float = 1, note: str = "") -> None:
        """Move by `n` whole units, and replace the note at the end of the line."""
        self._whole, self._part, self.note = self._whole + n, 0.0, note
        self._changed()

    def skip(self, n: float) -> None:
        """Move over units that were done before."""
        self._n_before = n
        self.advance(n)

    def within(self, n_done: int, n: int, note: str) -> None:
        """Show how far the unit is that is being worked on: `n_done` of its `n` parts."""
        self._part, self.note = n_done / n, f"{note} {n_done}/{n}".strip()
        self._changed()

    @property
    def line(self) -> str:
        """The state as one line: `training: 24/180, loss 1.25, about 40 s left`."""
        done = self.completed
        parts = [f"{self.description}: {int(done)}/{self.total:.0f}", self.note]
        new, seconds = done - (self._n_before or 0.0), time.monotonic() - self._started
        if new > 0 and done < self.total:
            left = seconds / new * (self.total - done)
            parts.append(f"about {duration(left)} left")
        return ", ".join(filter(None, parts))

    def _changed(self) -> None:
        """Nothing is drawn here; a terminal's bar looks again."""


class _Drawn(Bar):
    """A bar on a terminal."""

    def __init__(self, description: str, total: float, progress: Progress) -> None:
        super().__init__(description, total)
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="", whole=0)

    def _changed(self) -> None:
        whole = int(self.completed)
        self._progress.update(self._task, completed=self.completed, note=self.note, whole=whole)


@contextmanager
def bar(description: str, total: float) -> Iterator[Bar]:
    """Show how far the block is: as a bar on a terminal, else as a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with _lines(Bar(description, total)) as shown:
            yield shown
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[whole]}/{task.total:.0f}"),
        TimeRemainingColumn(),
        # As it is: brackets are no markup here.
        TextColumn("{task.fields[note]}", markup=False),
    )
    # What is printed meanwhile stays above the bar, unless it goes to a file: rich would send that
    # to the terminal, too.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as progress:
        yield _Drawn(description, total, progress)


@contextmanager
def _lines(shown: Bar) -> Iterator[Bar]:
    """Print the state at the start, every half minute and at the end, with the time it took."""
    started, is_over = time.monotonic(), threading.Event()

    def watch() -> None:
        # A thread, as one call of a library may take minutes.
        while not is_over.wait(EVERY_S):
            _print(shown.line)

    _print(f"{shown.description}: 0/{shown.total:.0f}")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    word = "stopped after"
    try:
        yield shown
        word = "done in"
    finally:
        is_over.set()
        watcher.join()
        _print(f"{shown.line}, {word} {duration(time.monotonic() - started)}")


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
