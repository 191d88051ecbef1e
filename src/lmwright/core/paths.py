"""Paths as people write them."""

from pathlib import Path


def expanded(text: str) -> Path:
    """Return the path of a text, with ~ and ~USER replaced where there is such a home."""
    try:
        return Path(text).expanduser()
    # Nobody of that name: then it is a path like any other.
    except RuntimeError:
        return Path(text)
