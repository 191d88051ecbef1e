"""What a chat template may spend while it is rendered: steps, and characters made on the way.

Both are counted, not timed: a template and a dialogue give the same answer on every machine, in
every thread and however busy it is.
"""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from typing import Any

from jinja2.runtime import LoopContext

from lmwright.core.errors import RequestError

# A dialogue of 10,000 messages takes about 600,000 steps, a second's work is about two million.
MAX_STEPS = 2_000_000
# Of one text, the whole dialogue included.
MAX_CHARACTERS = 20_000_000
# So many characters made or read count as a step, and so many items of a list.
STEP_CHARACTERS = 32
STEP_ITEMS = 8

_Nested = list | tuple | set | frozenset | KeysView | ValuesView | ItemsView


class StepMeter:
    """Counts down what is left for a rendering; there is one for each."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def step(self, n: int = 1) -> None:
        """Take steps; raise a RequestError if there are none left."""
        self.left -= n
        if self.left < 0:
            raise RequestError(
                f"the chat template takes more than {MAX_STEPS:,} steps for this dialogue; "
                "shorten the dialogue, or mend the template"
            )

    def text(self, n_characters: int) -> None:
        """Count characters that are about to be made or read."""
        if n_characters > MAX_CHARACTERS:
            raise OverflowError(f"a text of more than {MAX_CHARACTERS:,} characters")
        self.step(1 + n_characters // STEP_CHARACTERS)

    def size(self, value: Any) -> Any:
        """Count a value that is handed on as it is, and return it."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self._items(value)
        else:
            self.step(1 + len(value) // STEP_ITEMS if isinstance(value, Sized) else 1)
        return value

    def whole(self, value: Any) -> Any:
        """Count a value of which all that is inside will be read, and return it.

        Lists that hold the same list several times over may be endless to read, though short.
        """
        if isinstance(value, str):
            self.text(len(value))
            return value
        if not isinstance(value, _Nested | Mapping):
            return self.size(value)
        stack: list[Iterable[Any]] = [(value,)]
        while stack:
            for item in stack.pop():
                if isinstance(item, str):
                    self.step(1 + len(item) // STEP_CHARACTERS)
                    continue
                self.step()
                if isinstance(item, Mapping):
                    stack += [item.keys(), item.values()]
                elif isinstance(item, _Nested):
                    stack.append(item)
        return value

    def _items(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            yield self.size(value)
