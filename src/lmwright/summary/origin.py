"""Where a model comes from: its files, the steps that made it, what it says about its licence."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.core.artifact import RESULT, STEP
from lmwright.hub import STARTER_FILE, STARTER_SHA256, cache_folder, is_marked

log = logging.getLogger(__name__)

MODEL_FOLDER = "model"
# What is stated as this says that it is stated elsewhere.
NO_LICENCES = ("other", "unknown")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*")


@dataclass(frozen=True)
class Made:
    """A step of a run that made a model out of another."""

    name: str
    stage: str
    # Its table of the recipe.
    config: dict[str, Any]
    # Of the table and of everything that the model was made from.
    hash: str
    time: str | None
    version: str | None


@dataclass(frozen=True)
class Origin:
    """Where a model comes from; what is not stated is None or empty."""

    path: str
    # The model that the steps began with, then the steps in order.
    base: str | None
    steps: tuple[Made, ...]
    title: str | None
    licence: str | None
    # The file, or the key in it, that says so.
    licence_source: str | None
    languages: tuple[str, ...]
    tags: tuple[str, ...]
    # Only if it was computed before.
    sha256: str | None


def origin(path: Path, metadata: Mapping[str, Any]) -> Origin:
    """Return where the model at `path` comes from; `metadata` is that of a .gguf, or empty."""
    base, steps = history(path)
    folder = path if path.is_dir() else path.parent
    card = read_card(folder / "README.md")
    licence, source = stated_licence(folder, metadata, card)
    if licence is None and base == "starter":
        licence, source = "apache-2.0", "of the starter, which it was made from"
    return Origin(
        path=str(path),
        base=base,
        steps=steps,
        title=_text(metadata.get("general.name")),
        licence=licence,
        licence_source=source,
        languages=_texts(metadata.get("general.languages")) or _texts(card.get("language")),
        tags=_texts(metadata.get("general.tags")) or _texts(card.get("tags")),
        sha256=STARTER_SHA256 if is_starter_file(path) else None,
    )


def history(path: Path) -> tuple[str | None, tuple[Made, ...]]:
    """Return the base and the steps that led to `path`, which may be a step's `model/`."""
    steps: list[Made] = []
    base, folder = None, path.parent
    seen = set()
    while path.name == MODEL_FOLDER and folder not in seen and (made := read_made(folder)):
        seen.add(folder)
        steps.insert(0, made)
        base = _text(made.config.get("model"))
        folder = folder.parent / (base or "")
    return base, tuple(steps)


def read_made(folder: Path) -> Made | None:
    """Read the result of the step in this folder, or None if there is none (left)."""
    if not (folder / STEP).is_file():
        return None
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        step, lineage = result["step"], result.get("lineage") or {}
        return Made(
            name=str(step["name"]),
            stage=str(step["stage"]),
            config=dict(step["config"]),
            hash=str(step["hash"]),
            time=_text(lineage.get("time")),
            version=_text((lineage.get("versions") or {}).get("lmwright")),
        )
    # Another program's files may have these names.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def stated_licence(
    folder: Path, metadata: Mapping[str, Any], card: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """Return the licence and what states it: the .gguf, the model card, or a licence's own text."""
    for key in ("general.license", "general.license.name"):
        if text := _text(metadata.get(key)):
            return text, key
    for key in ("license", "license_name"):
        if (text := _text(card.get(key))) and text not in NO_LICENCES:
            return text, "README.md"
    for path in (path for pattern in LICENCE_FILES for path in sorted(folder.glob(pattern))):
        if path.is_file() and (text := _first_lines(path)):
            return text, path.name
    return None, None


def read_card(path: Path) -> dict[str, Any]:
    """Return the front matter of a model card; an empty one where there is none to read."""
    if not path.is_file():
        return {}
    # Slow to import, and most folders that are made here have no card.
    from huggingface_hub import metadata_load

    try:
        return metadata_load(path) or {}
    except Exception as error:  # what the YAML reader raises has no common kind
        log.warning("%s: its front matter cannot be read: %s", path, error)
        return {}


def is_starter_file(path: Path) -> bool:
    """Tell whether this is the starter in the cache, whose hash was checked when it came."""
    return path == cache_folder() / "starter" / STARTER_FILE and is_marked(path)


def _first_lines(path: Path) -> str:
    """Return the title of a licence, with its version if that is the next line."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = [line.strip()[:80] for line in file.read(2000).splitlines() if line.strip()]
    has_version = len(lines) > 1 and lines[1].lower().startswith("version")
    return ", ".join(lines[: 1 + has_version])


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if (text := _text(each)))
