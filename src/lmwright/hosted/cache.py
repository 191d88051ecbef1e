"""Answers on disk: the same deterministic request is paid for once, also after a kill."""

import json
import logging
from pathlib import Path
from typing import Any

from lmwright.core.artifact import hash_json, replacing

log = logging.getLogger(__name__)


class Cache:
    """A folder with a small JSON file for each request: the request, and what came back.

    Neither the key nor any other header is in it; the texts are, so only its owner may look.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, url: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to just this request; a damaged file is as none."""
        path = self.path(url, body)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be read (%s); asking again", path, type(error).__name__)
            return None
        is_whole = isinstance(entry, dict) and isinstance(entry.get("answer"), dict)
        if not is_whole or (entry.get("url"), entry.get("body")) != (url, body):
            log.warning("%s: is not what was kept there; asking again", path)
            return None
        return entry["answer"]

    def write(self, url: str, body: dict[str, Any], *, answer: dict[str, Any]) -> None:
        """Keep an answer, atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        entry = {"url": url, "body": body, "answer": answer}
        with replacing(self.path(url, body)) as temporary:
            temporary.write_text(json.dumps(entry, sort_keys=True), encoding="utf-8")

    def path(self, url: str, body: dict[str, Any]) -> Path:
        """Return the file of a request: SHA-256 of its URL and body (the model is in it)."""
        return self._folder / f"{hash_json([url, body])}.json"
