"""Plans, verdicts and facts as plain text for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from lmwright.core.decision import GateResult
from lmwright.core.results import Scores
from lmwright.recipe.estimate import duration
from lmwright.recipe.run import Plan


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows into columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def plan(planned: Plan) -> str:
    """Return the steps of a run with what each of them takes, and the sum."""
    rows = [["step", "stage", "state", "time", "memory"]]
    for each in planned.steps:
        state = "to do" if each.will_run else "done" if each.is_done else "not chosen"
        cost = each.estimate
        needs = ["", ""]
        if each.will_run:
            needs = [f"about {duration(cost.seconds)}", f"{cost.memory_bytes / 1e9:.1f} GB"]
        rows.append([each.step.name, each.step.stage, state, *needs])
    total = f"{planned.estimate}" if any(each.will_run for each in planned.steps) else "all done"
    return f"{table(rows)}\n\n{planned.folder}: {total}"


def scores(evaluation: dict[str, Any], *, is_terminal: bool) -> str:
    """Return the side-by-side table: for a terminal in colour and in its width."""
    found = Scores.from_json(evaluation)
    if not is_terminal:
        return str(found)
    console = Console()
    with console.capture() as capture:
        console.print(found.table())
    return capture.get()


def gate(result: GateResult) -> str:
    """Return the gate's decision with the evidence for every rule."""
    word = "yes" if result.passed else "NO"
    lines = [f"gate for {result.model} against {result.baseline}: {word}"]
    for rule in result.rules:
        mark = "pass" if rule.passed else "FAIL"
        lines += [f"  {mark}  {rule.rule}", f"        {rule.evidence}"]
    return "\n".join(lines)


def fields(values: dict[str, Any]) -> str:
    """Return names and values, aligned; nested values are indented below their name."""
    return "\n".join(_fields(values, ""))


def _fields(values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _fields(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            yield f"{indent}{name}"
            for each in value:
                yield from _fields(each, indent + "  ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{name:<{max(2, 22 - len(indent))}} {shown}"
