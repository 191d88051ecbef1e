"""A step's folder. `result.json` is written last and atomically: it exists exactly when done."""

import fnmatch
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmwright.core.errors import BusyError, LmwrightError, ModelError, StateError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
RESULT = "result.json"
STEP = "step.json"
LOCK = ".lock"
PARTS = ".part"
PARTIAL = ".part"
# What a run's folder holds besides its steps: the hash of each step as its recipe has it now.
RECIPE_LOCK = "recipe.lock.json"
MAX_STATE_BYTES = 256 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its place only if the block succeeds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
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
    """The folder of one step, known by the hash of its configuration and inputs.

    It changes as a whole. A step that replaces a finished one is made in `.part/NAME` beside it and
    takes its place when it is done; whatever is removed is first renamed to `.NAME.old-N`. So there
    is no moment at which a `result.json` lies without the files that it tells of.
    """

    folder: Path
    hash: str
    # What the stage writes in its folder (patterns); all else there is the user's, and stays.
    files: tuple[str, ...] = ("*",)

    @property
    def result(self) -> dict[str, Any] | None:
        """The finished result for this very hash, or None."""
        found = _record(self.folder / RESULT)
        return found if found is not None and found["hash"] == self.hash else None

    @property
    def holds_finished(self) -> bool:
        """Whether a finished step lies here, made with these settings or with others."""
        return _record(self.folder / RESULT) is not None

    def recover(self) -> None:
        """Finish what a killed process left between two renames, and remove what it left over."""
        made = _record(self._part / RESULT)
        if made is not None and (made["hash"] == self.hash or not self.folder.exists()):
            self._take_place()
        self._sweep()

    def begin(self) -> Path:
        """Return the folder to work in; what a killed run of the same hash left goes on there."""
        place = self._begun()
        if place is None:
            place = self._part if self.holds_finished else self.folder
            self._remove(place)
            write_json(place / STEP, {"format_version": FORMAT_VERSION, "hash": self.hash})
        elif os.path.lexists(damaged := place / RESULT):
            logger.warning("%s: is damaged; its step is done again", damaged)
            damaged.unlink()
        return place

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`: from now on this step counts as done, and replaces an older one."""
        place = self._begun()
        assert place is not None, "finished, but never begun"
        known_by = {"format_version": FORMAT_VERSION, "hash": self.hash}
        write_json(place / RESULT, {**result, **known_by})
        if place == self._part:
            self._take_place()
            self._sweep()

    def discard(self) -> None:
        """Remove what lies here at one go, but for the user's own files."""
        self._remove(self.folder)

    @property
    def _part(self) -> Path:
        return self.folder.parent / PARTS / self.folder.name

    def _begun(self) -> Path | None:
        """Return where this step was begun and not finished, if it was."""
        for place in (self._part, self.folder):
            step = _record(place / STEP)
            is_mine = step is not None and step["hash"] == self.hash
            if is_mine and (place == self._part or not self.holds_finished):
                return place
        return None

    def _take_place(self) -> None:
        if os.path.lexists(self.folder):
            _rename(self.folder, self._free_old_name())
        _rename(self._part, self.folder)
        with suppress(OSError):  # others are being made there
            self._part.parent.rmdir()

    def _remove(self, place: Path) -> None:
        if os.path.lexists(place):
            _rename(place, self._free_old_name())
        self._sweep()

    def _sweep(self) -> None:
        """Delete what was put aside; the user's own files in it come back."""
        for old in sorted(self.folder.parent.glob(f".{self.folder.name}.old-*")):
            try:
                if old.is_dir() and not old.is_symlink():
                    for path in sorted(old.iterdir()):
                        if not self._is_ours(path.name):
                            self.folder.mkdir(exist_ok=True)
                            path.rename(_free_name(self.folder / path.name))
                    shutil.rmtree(old)
                else:
                    old.unlink()
            except OSError as error:
                why = error.strerror or error
                logger.warning("%s: cannot be removed (%s); remove it by hand", old, why)

    def _is_ours(self, name: str) -> bool:
        known = (RESULT, STEP, *self.files)
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in known)

    def _free_old_name(self) -> Path:
        return _free_name(self.folder.with_name(f".{self.folder.name}.old-1"))


def sweep_partial(folder: Path) -> None:
    """Delete the half-written files below `folder` that killed processes left."""
    for path in folder.rglob(f".*{PARTIAL}"):
        if re.fullmatch(rf"\..+\.\w{{8}}{re.escape(PARTIAL)}", path.name) and path.is_file():
            path.unlink()


def check_finished(folder: Path) -> None:
    """Raise an error if what lies in a step's folder is not what its run's recipe stands for.

    It may not be finished, or have been made with other settings than those of the last run.
    """
    try:
        made = read_state(folder / RESULT, remedy="run its recipe again").get("hash")
        lock = read_state(folder.parent / RECIPE_LOCK, remedy="run its recipe again")
    except FileNotFoundError as missing:
        if missing.filename == str(folder / RESULT):
            told = f"{folder}: this step has not finished; run its recipe again"
            raise ModelError(told) from None
        return
    if _planned_hash(lock, folder.name) not in (None, made):
        raise ModelError(
            f"{folder}: was made with other settings than those of the last run, which did not "
            f"finish it ({folder.parent / RECIPE_LOCK}); run the recipe again, with the settings "
            "that you mean"
        )


def successor(folder: Path) -> Path | None:
    """Return where a finished step is being made anew, if its run's recipe stands for that now."""
    part = folder.parent / PARTS / folder.name
    begun = _record(part / STEP)
    if begun is None:
        return None
    try:
        lock = read_state(folder.parent / RECIPE_LOCK, remedy="run its recipe again")
    except FileNotFoundError:
        return None
    return part if begun["hash"] == _planned_hash(lock, folder.name) else None


def _planned_hash(lock: dict[str, Any], name: str) -> Any:
    steps = lock.get("steps")
    planned = steps.get(name) if isinstance(steps, dict) else None
    return planned.get("hash") if isinstance(planned, dict) else None


def _record(path: Path) -> dict[str, Any] | None:
    """Read a file that says by its hash what it belongs to; a damaged one is as none."""
    try:
        data = read_state(path, remedy="")
    except (OSError, StateError):
        return None
    return data if isinstance(data.get("hash"), str) else None


def _rename(path: Path, to: Path) -> None:
    try:
        path.rename(to)
    except OSError as error:
        raise LmwrightError(f"cannot replace {path}: {error.strerror or error}") from error


def _free_name(path: Path) -> Path:
    """Return this path, or with the first number behind it that is not taken."""
    tail = 2
    free = path
    while os.path.lexists(free):
        free, tail = path.with_name(f"{path.name}-{tail}"), tail + 1
    return free


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
