"""Repositories of the Hugging Face Hub: what a reference names, and how it comes here.

hub:ORG/NAME[@REVISION] is the folder of a model (or of a data set). hub:ORG/NAME:TYPE[@REVISION] is
one of its GGUF files, named by its type (Q4_K_M) or by its whole name (model-Q4_K_M.gguf).
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lmwright.core.errors import DataError, LmwrightError, ModelError

RepositoryKind = Literal["model", "dataset"]
# No pickle (it runs code when opened) and no code; and no second copy of the same weights.
PATTERNS: dict[RepositoryKind, tuple[str, ...]] = {
    "model": ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.spm"),
    "dataset": ("*.jsonl", "*.json", "*.txt", "*.csv", "*.tsv", "*.parquet"),
}
NEVER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.py")
DUPLICATES: dict[RepositoryKind, tuple[str, ...]] = {
    "model": ("*/*.safetensors", "onnx/*", "openvino/*", "consolidated*.safetensors"),
    "dataset": (),
}
REFERENCE = re.compile(r"hub:([\w.-]+/[\w.-]+)(?::([^@:\s]+))?(?:@([^@\s]+))?")
# What ends the name of a GGUF file: Q4_K_M, IQ3_XXS, UD-Q4_K_XL, BF16.
GGUF_TYPE = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|BF16|F16|F32))$", re.I)
# A model in several files, or the part of one that sees pictures.
NO_WHOLE_MODEL = re.compile(r"-\d{5}-of-\d{5}\.gguf$|^mmproj|^imatrix", re.I)
N_LISTED = 40


@dataclass(frozen=True)
class Repository:
    """What a reference names."""

    reference: str
    name: str
    # Which of the GGUF files; None: the folder.
    choice: str | None
    revision: str | None

    @classmethod
    def parse(cls, reference: str, kind: RepositoryKind = "model") -> "Repository":
        """Read hub:ORG/NAME, with :TYPE for a GGUF file and @REVISION."""
        match = REFERENCE.fullmatch(reference)
        if match and not (kind == "dataset" and match[2]):
            return cls(reference, *match.groups())
        if kind == "dataset":
            raise DataError(f"{reference}: expected hub:ORG/NAME or hub:ORG/NAME@REVISION")
        raise ModelError(
            f"{reference}: expected hub:ORG/NAME, hub:ORG/NAME@REVISION, or hub:ORG/NAME:Q4_K_M "
            "for a GGUF file"
        )


def fetch(reference: str, kind: RepositoryKind = "model") -> Path:
    """Return the local folder, or the GGUF file, of a reference; only what is missing is loaded.

    Cache, endpoint and token are those of huggingface_hub (HF_HOME, HF_ENDPOINT, HF_TOKEN).
    """
    wanted = Repository.parse(reference, kind)
    from huggingface_hub import errors

    # Of httpx or of httpx2, whichever the installed version is built on.
    http_error = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
    try:
        return _file(wanted, wanted.choice) if wanted.choice else _folder(wanted, kind)
    except LmwrightError:
        raise
    except (http_error, OSError, ValueError) as error:
        error_class = ModelError if kind == "model" else DataError
        raise error_class(f"{reference}: {explain(error, wanted.revision)}") from error


def _folder(wanted: Repository, kind: RepositoryKind) -> Path:
    from huggingface_hub import errors, snapshot_download

    what: dict[str, Any] = {
        "repo_type": kind,
        "revision": wanted.revision,
        "allow_patterns": list(PATTERNS[kind]),
        "ignore_patterns": [*NEVER, *DUPLICATES[kind]],
    }
    try:
        planned = snapshot_download(wanted.name, **what, dry_run=True)
    # The Hub cannot be asked: either all is here already, or the next call says what is wrong.
    except errors.DryRunError:
        planned = []
    else:
        _check_weights([file.filename for file in planned], wanted, kind)
        _check_space(planned, wanted)
    folder = Path(snapshot_download(wanted.name, **what))
    _check_weights([file.name for file in folder.rglob("*")], wanted, kind)
    return folder


def _check_weights(names: Iterable[str], wanted: Repository, kind: RepositoryKind) -> None:
    """Raise unless there are weights (or data) among the files; GGUF files are listed."""
    if any(kind == "dataset" or name.endswith(".safetensors") for name in names):
        return
    if kind == "dataset":
        raise DataError(
            f"{wanted.reference}: the repository has no files that lmwright reads; choose "
            "another, or download its file by hand and give its path"
        )
    if files := whole_models(_listing(wanted)):
        raise ModelError(
            f"{wanted.reference}: the repository has GGUF files only; name one:\n"
            f"{_listed(files, wanted)}"
        )
    raise ModelError(
        f"{wanted.reference}: the repository has no weights as .safetensors or .gguf; choose "
        "another, or download its file by hand and give its path"
    )


def _file(wanted: Repository, choice: str) -> Path:
    """Return one GGUF file of a repository; one in the cache if the Hub cannot be asked."""
    from huggingface_hub import errors, hf_hub_download

    http_error = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
    try:
        files = _listing(wanted)
    except errors.RevisionNotFoundError:
        raise
    except (http_error, OSError):
        if cached := _cached(wanted, choice):
            return cached
        raise
    where: dict[str, Any] = {"revision": wanted.revision}
    path = pick(whole_models(files), choice, wanted)
    _check_space([hf_hub_download(wanted.name, path, **where, dry_run=True)], wanted)
    return Path(hf_hub_download(wanted.name, path, **where))


def pick(files: Mapping[str, int], choice: str, wanted: Repository) -> str:
    """Return the GGUF file of a repository that `choice` names, by its type or whole name."""
    is_name = choice.lower().endswith(".gguf")
    fitting = [path for path in files if path == choice] if is_name else []
    if not is_name:
        tag = re.compile(rf"(?:.*[-._])?{re.escape(choice)}", re.I)
        fitting = [path for path in files if tag.fullmatch(PurePosixPath(path).stem)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ModelError(
            f"{wanted.reference}: {choice!r} fits several files; name one:\n"
            f"{_listed({path: files[path] for path in fitting}, wanted)}"
        )
    if not files:
        raise ModelError(f"{wanted.reference}: the repository has no .gguf file of a whole model")
    raise ModelError(
        f"{wanted.reference}: the repository has no {choice!r}; it has:\n{_listed(files, wanted)}"
    )


def whole_models(files: Mapping[str, int]) -> dict[str, int]:
    """Return the GGUF files that are a model by themselves, with their sizes in bytes."""
    return {
        path: size
        for path, size in sorted(files.items())
        if path.lower().endswith(".gguf") and not NO_WHOLE_MODEL.search(PurePosixPath(path).name)
    }


def spellings(files: Iterable[str]) -> dict[str, str]:
    """Return how each GGUF file is named behind the colon: by its type where that is enough."""
    types = {path: GGUF_TYPE.search(PurePosixPath(path).stem) for path in files}
    tags = {path: found[1] if found else path for path, found in types.items()}
    known = [tag.upper() for tag in tags.values()]
    return {path: tag if known.count(tag.upper()) == 1 else path for path, tag in tags.items()}


def _listed(files: Mapping[str, int], wanted: Repository) -> str:
    revision = f"@{wanted.revision}" if wanted.revision else ""
    names = spellings(files)
    lines = [
        f"  hub:{wanted.name}:{names[path]}{revision}  {size / 1e9:.2f} GB"
        for path, size in sorted(files.items(), key=lambda item: item[1])
    ]
    more = [f"  and {len(lines) - N_LISTED} more"] if len(lines) > N_LISTED else []
    return "\n".join([*lines[:N_LISTED], *more])


def _listing(wanted: Repository) -> dict[str, int]:
    """Return a repository's files with their sizes in bytes."""
    from huggingface_hub import HfApi

    # Not its list_repo_tree, which tries for half a minute where there is no network.
    revision = wanted.revision or "main"
    found = HfApi().model_info(wanted.name, revision=revision, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in found.siblings or ()}


def _cached(wanted: Repository, choice: str) -> Path | None:
    """Return the GGUF file that is meant, if it was fetched before."""
    from huggingface_hub import errors, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except errors.CacheNotFound:
        return None
    revision = wanted.revision or "main"
    for repository in repositories:
        if (repository.repo_type, repository.repo_id) == ("model", wanted.name):
            for each in repository.revisions:
                paths = [file.file_path for file in each.files]
                names = {path.relative_to(each.snapshot_path).as_posix(): 0 for path in paths}
                if revision in (*each.refs, each.commit_hash):
                    with suppress(ModelError):
                        return each.snapshot_path / pick(whole_models(names), choice, wanted)
    return None


def _check_space(planned: Iterable[Any], wanted: Repository) -> None:
    """Raise if what is about to be downloaded does not fit on the disk."""
    from huggingface_hub import constants

    needed = sum(file.file_size or 0 for file in planned if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    disk = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise ModelError(
            f"{wanted.reference}: needs {needed / 1e9:.2f} GB, and {cache} has {free / 1e9:.2f} "
            "GB left; free some (`lmwright models list`, `lmwright models rm`), or set HF_HOME to "
            "a folder on another disk"
        )


def explain(error: Exception, revision: str | None) -> str:
    """Say what a failed download means and what to do about it."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return (
            "access is restricted; accept the terms on its page, then log in "
            "(`hf auth login`, or set HF_TOKEN)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {revision!r}; see its branches, tags and commits"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return (
            "no such repository, or a private one; check the name, and log in for a private one "
            "(`hf auth login`, or set HF_TOKEN)"
        )
    # OfflineModeIsEnabled, ConnectError, ConnectTimeout: of whichever library it is built on.
    is_away = isinstance(error, ConnectionError) or type(error).__name__.startswith("Connect")
    if is_away or isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "the Hub cannot be reached and the local cache does not have all of it; check the "
            "network (HF_ENDPOINT, HF_HUB_OFFLINE), or give the path of a model's folder"
        )
    if isinstance(error, errors.HFValidationError):
        return f"is no name of a repository ({error})"
    return f"the download failed ({type(error).__name__}: {error}); run again: it resumes"
