"""Which items are asked: all of them, or a fixed sub-sample that never changes with the seed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, TypeVar

from lmwright.data.samples import Question

Suite = Literal["quick", "full"]
T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """What one measurement asks of every model alike."""

    # How many items (of speed: repeats); None: all.
    n: int | None = None
    # Held-out questions about the recipe's own data.
    questions: tuple[Question, ...] = ()


def stratified(
    items: Sequence[T],
    n: int | None,
    *,
    name: Callable[[T], str],
    stratum: Callable[[T], str],
) -> list[T]:
    """Return about equally many items of every stratum, n in all, in their given order.

    Drawn by a hash of the name: an item keeps its place when others are added.
    """
    if n is None or n >= len(items):
        return list(items)
    places: dict[str, int] = {}
    ranked = []
    for item in sorted(items, key=lambda item: _lot(name(item))):
        place = places.get(stratum(item), 0)
        places[stratum(item)] = place + 1
        ranked.append((place, _lot(stratum(item)), name(item)))
    chosen = {item_name for _, _, item_name in sorted(ranked)[:n]}
    return [item for item in items if name(item) in chosen]


def _lot(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def starter_text(file: str) -> str:
    """Return a data file that comes with lmwright."""
    return (files("lmwright.data") / "starter" / file).read_text(encoding="utf-8")


def starter_lines(file: str) -> list[dict[str, Any]]:
    """Return the objects of a .jsonl file that comes with lmwright."""
    return [json.loads(line) for line in starter_text(file).splitlines() if line.strip()]


def starter_items(file: str, n: int | None, *, stratum: str, **only: str) -> list[dict[str, Any]]:
    """Return items with an id, balanced by a field; `only` keeps those with these values."""
    items = [item for item in starter_lines(file) if only.items() <= item.items()]
    return stratified(items, n, name=lambda item: item["id"], stratum=lambda item: item[stratum])
