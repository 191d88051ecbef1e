"""The errors a user can cause or meet; each carries the exit code of the command line."""

import copyreg
import difflib
import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_MESSAGE = 2000


class LmwrightError(Exception):
    """Something failed while working: exit code 1."""

    exit_code = 1


class RequestError(LmwrightError, ValueError):
    """What was asked for is wrong (flag, recipe, data, model): exit code 2."""

    exit_code = 2


class RecipeError(RequestError):
    """The recipe contradicts itself or names something that does not exist."""


class DataError(RequestError):
    """A data file cannot be used; the message names the file and the line."""


class ModelError(RequestError):
    """A model or tokenizer file is missing, damaged or of an unknown kind."""

    def __init__(self, message: str) -> None:
        """Keep beginning and end of a long message: what it quotes from a file has any length."""
        is_long = len(message) > MAX_MESSAGE
        half = MAX_MESSAGE // 2
        super().__init__(f"{message[:half]} ... {message[-half:]}" if is_long else message)


class UnsupportedError(RequestError):
    """The model cannot do this at all (it gives no log-probabilities, has no embeddings, ...)."""

    def __init__(self, message: str, *, reason: str) -> None:
        """`reason` is the shortest form of the message, for a cell of a table."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Get out of another process as it is: `__init__` would ask for the reason."""
        new = copyreg.__newobj__  # pyright: ignore[reportAttributeAccessIssue]
        return new, (type(self), *self.args), self.__dict__


class ContextLengthError(RequestError):
    """What was asked for does not fit into the model's context."""


class BusyError(LmwrightError):
    """Another process works in the same run folder."""


class StateError(LmwrightError):
    """A file that lmwright wrote is damaged; the message names it and says what to do."""


class InterruptError(LmwrightError):
    """The user ended the work (Ctrl-C): exit code 130, as a shell reports it."""

    exit_code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory has run out; torch has no one class for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def located(place: str) -> Iterator[None]:
    """Start each line of a `RecipeError` from the block with the place that it is about.

    Indented lines belong to the one before and stay as they are.
    """
    try:
        yield
    except RecipeError as error:
        told = re.sub(r"^(?! )", lambda _: place, str(error), flags=re.MULTILINE)
        raise RecipeError(told) from None


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or the list of all of them."""
    names = sorted(set(known))
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""
