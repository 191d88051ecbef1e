"""The models in the caches: the starter, and what came from the Hugging Face Hub."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lmwright.core.errors import LmwrightError, ModelError, suggestion
from lmwright.hub import STARTER_FILE, STARTER_WHEEL, cache_folder
from lmwright.hub.repository import spellings, whole_models

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredModel:
    """A model in a cache, under the name by which every verb knows it."""

    reference: str
    # The commit, or the wheel of the starter.
    revision: str
    size_bytes: int
    # When its files were read, in seconds since 1970; most systems keep no more than the day.
    used_s: float
    path: Path
    # The entries of huggingface_hub's cache that make it up; the starter has none.
    files: tuple[Any, ...] = ()
    # Whether the revision holds nothing else, so that it goes as a whole.
    is_all: bool = True


def stored_models() -> list[StoredModel]:
    """Return the models in the caches, the starter first."""
    return [*_starter(), *sorted(_of_hub(), key=lambda each: each.reference)]


def find(name: str) -> StoredModel:
    """Return the model in the caches of exactly this name; a guess could be the wrong one."""
    models = {each.reference: each for each in stored_models()}
    if name in models:
        return models[name]
    bare = name.removeprefix("hub:").partition("@")[0].partition(":")[0].lower()
    near = [each for each in models if bare and bare in each.lower()]
    if near:
        raise ModelError(f"{name}: no stored model has just this name; name one: {', '.join(near)}")
    known = suggestion(name, models) or "; they are empty"
    raise ModelError(f"{name}: no such model in the caches{known}")


@dataclass(frozen=True)
class Removal:
    """What goes with a model, and how much of the disk that frees; nothing is gone yet."""

    model: StoredModel
    paths: tuple[Path, ...]
    size_bytes: int
    # Of huggingface_hub; None for the starter, which is ours.
    strategy: Any = None

    def execute(self) -> None:
        """Remove the model; what others share with it stays."""
        if self.strategy is not None:
            self.strategy.execute()
        else:
            with FileLock(self.model.path.parent / ".lock"):
                for path in self.paths:
                    path.unlink(missing_ok=True)
        # huggingface_hub only logs what it could not remove.
        if left := [str(path) for path in self.paths if path.exists() or path.is_symlink()]:
            raise LmwrightError(
                f"{self.model.reference}: cannot remove {left[0]}; remove it by hand"
            )


def removal(model: StoredModel) -> Removal:
    """Return what removing a model would do."""
    if not model.files:
        names = (STARTER_FILE, f"{STARTER_FILE}.verified.json")
        paths = tuple(path for name in names if (path := model.path.parent / name).exists())
        return Removal(model, paths, model.size_bytes)
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir()
    if model.is_all:
        strategy = cache.delete_revisions(model.revision)
        gone = [*strategy.repos, *strategy.snapshots, *strategy.refs, *strategy.blobs]
    elif hasattr(cache, "delete_files"):
        strategy = cache.delete_files(*model.files)
        gone = [*strategy.files, *strategy.blobs]
    else:
        raise LmwrightError(
            f"{model.reference}: the installed huggingface_hub removes whole revisions only; "
            "upgrade it (pip install -U huggingface_hub)"
        )
    return Removal(model, tuple(sorted(gone)), strategy.expected_freed_size, strategy)


def _starter() -> Iterator[StoredModel]:
    path = cache_folder() / "starter" / STARTER_FILE
    if path.is_file():
        status = path.stat()
        yield StoredModel("starter", STARTER_WHEEL, status.st_size, status.st_atime, path)


def _of_hub() -> Iterator[StoredModel]:
    from huggingface_hub import errors, scan_cache_dir

    try:
        cache = scan_cache_dir()
    except errors.CacheNotFound:
        return
    for warning in cache.warnings:
        log.warning("a damaged entry of the Hub's cache: %s", warning)
    for repository in cache.repos:
        if repository.repo_type == "model":
            for revision in repository.revisions:
                yield from _of_revision(repository.repo_id, revision)


def _of_revision(name: str, revision: Any) -> Iterator[StoredModel]:
    """Give the models in one revision: its folder if there are weights in it, each GGUF file."""
    files = {
        each.file_path.relative_to(revision.snapshot_path).as_posix(): each
        for each in revision.files
    }
    ggufs = whole_models({path: each.size_on_disk for path, each in files.items()})
    rest = [each for path, each in files.items() if path not in ggufs]
    has_folder = not ggufs or any(each.file_name.endswith(".safetensors") for each in rest)
    refs = sorted(revision.refs, key=lambda ref: (ref != "main", ref))
    ref = refs[0] if refs else revision.commit_hash
    behind = "" if ref == "main" else f"@{ref}"
    made = {f"hub:{name}{behind}": (revision.snapshot_path, rest)} if has_folder else {}
    for file, word in spellings(ggufs).items():
        made[f"hub:{name}:{word}{behind}"] = (files[file].file_path, [files[file]])
    for reference, (path, parts) in made.items():
        yield StoredModel(
            reference,
            revision.commit_hash,
            sum(each.size_on_disk for each in parts),
            max((each.blob_last_accessed for each in parts), default=revision.last_modified),
            path,
            files=tuple(parts),
            is_all=len(made) == 1,
        )
