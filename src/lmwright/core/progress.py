"""Progress bars with time left, on stderr only, so that stdout stays machine-readable."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Bar:
    """One running bar; `advance` moves it and may show a note such as the loss."""

    progress: Progress
    task: TaskID

    def advance(self, n: float = 1, note: str = "") -> None:
        """Move by `n` units and replace the note at the end of the line."""
        self.progress.update(self.task, advance=n, note=note)


@contextmanager
def bar(description: str, total: float) -> Iterator[Bar]:
    """Show a bar while the block runs; without a terminal on stderr nothing is drawn."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # What is printed meanwhile stays above the bar, unless it goes to a file: rich would send that
    # to the terminal, too.
    with Progress(
        *columns,
        console=console,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    ) as progress:
        yield Bar(progress, progress.add_task(description, total=total, note=""))
