"""What the verbs print on stdout: JSON, tables, plans, decisions, names and values."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.table import Table

    from lmwright.recipe.plan import Plan


class Tabular(Protocol):
    """A result that is a table: plain as a string, and in colour."""

    def table(self) -> "Table":
        """Return the table for a terminal, in its width."""
        ...


def say(shown: str | Tabular, data: Any, *, as_json: bool) -> None:
    """Print a result: as JSON for another program, in colour on a terminal, or as plain text."""
    if as_json:
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(data, indent=2, ensure_ascii=not is_unicode))
    elif isinstance(shown, str) or not sys.stdout.isatty():
        print(shown)
    else:
        from rich.console import Console

        Console().print(shown.table())


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows into columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def plan(planned: "Plan") -> str:
    """Return the steps of a run with what each of them takes, and the sum."""
    from lmwright.core.figures import duration
    from lmwright.recipe.plan import describe

    rows = [["step", "stage", "state", "time", "memory"]]
    for each in planned.steps:
        state = "to do" if each.will_run else "done" if each.is_done else "not chosen"
        cost = each.estimate
        needs = ["", ""]
        if each.will_run:
            needs = [f"about {duration(cost.seconds)}", f"{cost.memory_bytes / 1e9:.1f} GB"]
        rows.append([each.step.name, each.step.stage.name, state, *needs])
    is_due = any(each.will_run for each in planned.steps)
    total = describe(planned.estimate) if is_due else "all done"
    return f"{columns(rows)}\n\n{planned.folder}: {total}"


def decision(result: Mapping[str, Any], name: str = "gate") -> str:
    """Return the decision in a gate's result.json with the evidence for every rule."""
    word = "yes" if result["passed"] else "NO"
    lines = [f"{name} for {result['model']} against {result['baseline']}: {word}"]
    for rule in result["rules"]:
        mark = "pass" if rule["passed"] else "FAIL"
        lines += [f"  {mark}  {rule['rule']}", f"        {rule['evidence']}"]
    return "\n".join(lines)


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
