"""What a model's files say of it, with types: the JSON beside its weights, GGUF metadata.

These files come from outside, and each of their values may be anything. Whoever reads one says here
what it must be, so that all faults end in the same words.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lmwright.core.errors import ModelError

T = TypeVar("T")
MAX_SHOWN = 60


@dataclass(frozen=True)
class Settings:
    """Values by key; null, and a key that is not there, give the default."""

    values: Mapping[str, Any]
    # The file, for the messages; "" where the caller names it.
    source: Path | str = ""
    # What stands before each key there, for the messages.
    prefix: str = ""

    def text(self, key: str, default: T = None) -> str | T:
        """Return a text."""
        return self._read(key, default, lambda value: isinstance(value, str), "a text")

    def flag(self, key: str, default: T = None) -> bool | T:
        """Return true or false."""
        return self._read(key, default, lambda value: isinstance(value, bool), "true or false")

    def number(self, key: str, default: T = None) -> float | T:
        """Return a finite number."""
        return self._read(key, default, is_number, "a number")

    def whole(self, key: str, default: T = None, *, bounds: range | None = None) -> int | T:
        """Return a whole number, which lies in `bounds` if they are given."""
        expected = "a whole number"
        if bounds is not None:
            expected += f" {bounds[0]} to {bounds[-1]}"
        return self._read(
            key,
            default,
            lambda value: type(value) is int and (bounds is None or value in bounds),
            expected,
        )

    def texts(self, key: str, default: T = None) -> list[str] | T:
        """Return a list of texts."""
        return self._read(key, default, lambda value: is_list(value, str), "a list of texts")

    def numbers(self, key: str, default: T = None) -> list[float] | T:
        """Return a list of numbers."""
        return self._read(
            key,
            default,
            lambda value: isinstance(value, list) and all(map(is_number, value)),
            "a list of numbers",
        )

    def items(self, key: str) -> list[Any]:
        """Return a list of anything, an empty one by default."""
        return self._read(key, [], lambda value: isinstance(value, list), "a list")

    def table(self, key: str) -> "Settings":
        """Return an object, an empty one by default."""
        found = self._read(key, {}, lambda value: isinstance(value, Mapping), "an object")
        return Settings(found, self.source, f"{self.prefix}{key}.")

    def token(self, key: str) -> int | None:
        """Return the id of a token."""
        return self._read(key, None, is_token, "the id of a token")

    def tokens(self, key: str) -> tuple[int, ...]:
        """Return the ids of the tokens of a role that one or several may have."""
        found = self._read(
            key,
            [],
            lambda value: (
                is_token(value) or (isinstance(value, list) and all(map(is_token, value)))
            ),
            "the id of a token, or a list of ids",
        )
        return tuple(found) if isinstance(found, list) else (found,)

    def fault(self, key: str, expected: str) -> ModelError:
        """Return the error that says what a key has and what was expected."""
        where = f"{self.source}: " if str(self.source) else ""
        return ModelError(f"{where}{self.prefix}{key} = {shown(self.values[key])}: {expected}")

    def _read(
        self, key: str, default: object, is_right: Callable[[Any], bool], expected: str
    ) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        if not is_right(value):
            raise self.fault(key, f"expected {expected}")
        return value


def shown(value: Any) -> str:
    """Return a value as a message shows it: a file may hold one of any length."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def is_number(value: Any) -> bool:
    """Tell whether a value is a number that can be computed with."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def is_token(value: Any) -> bool:
    """Tell whether a value can be the id of a token."""
    return type(value) is int and value >= 0


def is_list(value: Any, kind: type) -> bool:
    """Tell whether a value is a list of this kind."""
    return isinstance(value, list) and all(type(item) is kind for item in value)
