"""A step's folder. `result.json` is written last and atomically: it exists exactly when done."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmwright.core.errors import BusyError, LmwrightError, StateError

FORMAT_VERSION = 1
RESULT = "result.json"
STEP = "step.json"
LOCK = ".lock"
# What a run's folder holds besides its steps: the hash of each step as its recipe has it now.
RECIPE_LOCK = "recipe.lock.json"
MAX_STATE_BYTES = 256 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place only if the block succeeds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise LmwrightError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise LmwrightError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write sorted, indented JSON atomically."""
    text = json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def reading(path: Path, *, remedy: str) -> Iterator[None]:
    """Raise a StateError that names `path` and ends with `remedy` for what damage makes readers do.

    For files that lmwright wrote earlier. FileNotFoundError passes.
    """
    try:
        yield
    except (FileNotFoundError, MemoryError, StateError):
        raise
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from None
    # Each library has errors of its own for a file that it cannot make sense of.
    except Exception as error:
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else error
        raise StateError(f"{path}: is damaged ({told}); {remedy}") from None


def read_state(path: Path, *, remedy: str) -> dict[str, Any]:
    """Read a JSON object that lmwright wrote earlier.

    Raises a StateError that names the file and ends with `remedy` ("run its recipe again") if it
    cannot be read, is larger than such files get, or holds anything else. FileNotFoundError passes.
    """
    with reading(path, remedy=remedy):
        with path.open("rb") as file:
            raw = file.read(MAX_STATE_BYTES + 1)
        if len(raw) > MAX_STATE_BYTES:
            raise ValueError(f"it has more than {MAX_STATE_BYTES:,} bytes")
        data = json.loads(raw.decode("utf-8"))
        if not isinstance(data, dict):
            raise ValueError("no JSON object")
        return data


def read_state_lines(path: Path, *, remedy: str) -> list[dict[str, Any]]:
    """Read JSON objects, one a line, that lmwright wrote earlier; errors as of `read_state`."""
    with reading(path, remedy=remedy):
        records = []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(record, dict):
                raise ValueError(f"line {number}: no JSON object")
            records.append(record)
        return records


def hash_json(data: Any) -> str:
    """Return a SHA-256 (hex) of plain data that does not depend on the order of keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_path(path: Path) -> str:
    """Return a SHA-256 (hex) of a file's bytes, or of the names and bytes in a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        return hash_json([[p.relative_to(path).as_posix(), hash_path(p)] for p in files])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """The folder of one step, known by the hash of its configuration and inputs."""

    folder: Path
    hash: str

    @property
    def result(self) -> dict[str, Any] | None:
        """The finished result for this very hash, or None."""
        return self._read(RESULT)

    def begin(self) -> None:
        """Make the folder ready: what a killed run of the same hash left stays, the rest goes."""
        # The old result goes first: a folder that is being rebuilt is not finished.
        (self.folder / RESULT).unlink(missing_ok=True)
        if self._read(STEP) is None:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            write_json(self.folder / STEP, {"format_version": FORMAT_VERSION, "hash": self.hash})

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`: from now on this step counts as done."""
        known_by = {"format_version": FORMAT_VERSION, "hash": self.hash}
        write_json(self.folder / RESULT, {**result, **known_by})

    def _read(self, name: str) -> dict[str, Any] | None:
        """Read a file that was written for this very hash; what else lies there is as nothing."""
        try:
            data = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
            return None
        return data if isinstance(data, dict) and data.get("hash") == self.hash else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the only right to work in `folder`; the system frees it when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"{folder}: another lmwright works here (it holds {folder / LOCK}); "
            "wait for it, or let this one write elsewhere"
        ) from None
    try:
        yield
    finally:
        lock.release()
