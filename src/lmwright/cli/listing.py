"""What the verbs print on stdout: JSON, tables, plans, decisions, names and values."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lmwright.core import figures

if TYPE_CHECKING:
    from lmwright.core.decision import GateResult
    from lmwright.core.text_table import TextTable
    from lmwright.recipe.plan import Plan


class Tabular(Protocol):
    """A result that is a table: plain as a string, and in colour."""

    def table(self) -> "TextTable":
        """Return what a terminal shows in its own width."""
        ...


def say(shown: str | Tabular, data: Any, *, as_json: bool) -> None:
    """Print a result: as JSON for another program, in colour on a terminal, or as plain text."""
    if as_json:
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(data, indent=2, ensure_ascii=not is_unicode))
    elif isinstance(shown, str):
        print(shown)
    elif sys.stdout.isatty():
        print(table(shown.table()))
    else:
        print(shown)


def table(shown: "TextTable") -> str:
    """Return a table in the width and colours of the terminal; elsewhere nothing is cut."""
    if not sys.stdout.isatty():
        return shown.text()
    from rich.console import Console

    console = Console()
    is_coloured = console.color_system is not None and not console.no_color
    return shown.text(console.width, is_coloured=is_coloured)


def plan(planned: "Plan") -> str:
    """Return the steps of a run with what each of them takes, and the sum."""
    from lmwright.core.text_table import TextTable
    from lmwright.recipe.plan import describe

    rows = []
    for each in planned.steps:
        cost = each.estimate
        needs = ["", ""]
        if each.will_run:
            needs = [f"about {figures.duration(cost.seconds)}", f"{cost.memory_bytes / 1e9:.1f} GB"]
        rows.append([each.step.name, each.step.stage.name, each.state, *needs])
    is_due = any(each.will_run for each in planned.steps)
    total = describe(planned.estimate) if is_due else "all done"
    steps = TextTable(["step", "stage", "state", "time", "memory"], rows)
    lines = [table(steps), "", f"{planned.folder}: {total}"]
    for each in planned.steps:
        if each.will_run:
            lines += [wrapped(f"{each.step.table}: {text}") for text in each.remarks]
    return "\n".join(lines)


def decision(result: "GateResult", name: str = "gate") -> str:
    """Return a gate's decision, and the evidence for every rule in a line."""
    word = "yes" if result.passed else "NO"
    lines = [f"{name} for {result.model} against {result.baseline}: {word}"]
    for rule in result.rules:
        mark = "pass" if rule.passed else "FAIL"
        lines.append(wrapped(f"{rule.rule}: {rule.evidence}", first=f"  {mark}  ", rest=" " * 8))
    return "\n".join(lines)


def wrapped(text: str, *, first: str = "", rest: str = "") -> str:
    """Break a text to the width of the terminal; elsewhere it stays one line.

    `first` stands before its first line, `rest` before the others.
    """
    if not sys.stdout.isatty():
        return first + text
    width = max(shutil.get_terminal_size().columns, len(rest) + 20)
    broken = textwrap.fill(
        figures.tight(text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return broken.replace("\u00a0", " ")


def fields(values: dict[str, Any]) -> str:
    """Return names and values, aligned; nested values are indented below their name."""
    return "\n".join(_fields(values, ""))


def _fields(values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, value in values.items():
        nested = value if isinstance(value, list) else [value]
        if any(isinstance(each, dict) for each in nested):
            yield f"{indent}{name}"
            for each in nested:
                yield from _fields(each, indent + "  ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{name:<{max(2, 22 - len(indent))}} {shown}"
