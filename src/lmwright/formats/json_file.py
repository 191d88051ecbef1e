"""The JSON files beside a model's weights; `Settings` reads the values in them."""

import json
import re
from pathlib import Path
from typing import TypeVar

from lmwright.core.errors import ModelError

T = TypeVar("T", dict, list)
HALVES = re.compile(r"\\u[dD][89a-fA-F]")
EXPECTED = {dict: "an object", list: "an array"}


def read_json(path: Path, kind: type[T]) -> T | None:
    """Return the object or the array in a file, None where there is no file.

    Raises a ModelError that names the file if it cannot be read or holds anything else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        if HALVES.search(text):  # of characters, which may have found each other
            json.dumps(found, ensure_ascii=False).encode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    # ValueError: not UTF-8, half a character, not JSON, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, kind):
        raise ModelError(f"{path}: expected {EXPECTED[kind]}, found {type(found).__name__}")
    return found
