"""A kill may come between any two changes of files: nothing may count as done without its own."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)
# How many moments a normal run of the tests tries of each command; all of them are slow.
N_SAMPLED = 3
KILLED = -9

RECIPE = """
name = "small"

[data.words]
source = "words.jsonl"

[finetune.tuned]
model = "tiny"
data = "words"
rank = 2
epochs = 2
batch_size = 2
checkpoint_every = 2
precision = "fp32"

[compress.int8]
model = "tuned"
method = "int8"
group_size = 32

[evaluate.card]
models = ["tiny", "tuned", "int8"]
tasks = ["qa_accuracy"]

[gate]
evaluation = "card"
model = "int8"
require = ["size_bytes <= +1000%"]

[report.page]
evaluation = "card"
"""
# What differs between two runs that do the same.
TIMES = {
    "seconds", "training_seconds", "tokens_per_second", "lineage", "time", "peak_memory_bytes"
}  # fmt: skip
# What tells of the time, and the cards that a report puts into the folders of other steps.
UNTOLD = ("report.html", "README.md")
FROM_TUNED = ["run", "small.toml", "--from", "tuned"]
TRIAL = ["run", "small.toml", "--set", "finetune.tuned.rank=4"]
CONVERT = ["convert", "tiny", "out", "--to", "hf", "--dtype", "fp16", "--force"]
TO_GGUF = ["convert", "tiny", "out.gguf", "--to", "gguf", "--type", "f16", "--force"]

Files = dict[str, str]


class Bench:
    """Runs commands in copies of a folder, and kills them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n_copies = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("press.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def copy(self, origin: Path) -> Path:
        self.n_copies += 1
        return Path(shutil.copytree(origin, self.folder / f"copy-{self.n_copies}"))

    def run(
        self, arguments: list[str], folder: Path, kill_at: int | None = None, is_before: bool = True
    ) -> tuple[int, int]:
        """Return how the command ended and how many changes it made."""
        order = {"folder": str(folder), "arguments": arguments, "kill_at": kill_at}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**order, "is_before": is_before}) + "\n")
        self.process.stdin.flush()
        status, n_changes = json.loads(self.process.stdout.readline())
        return status, n_changes

    def done(self, arguments: list[str], folder: Path) -> int:
        """Run a command to its end; return how many changes it made."""
        status, n_changes = self.run(arguments, folder)
        assert status == 0, folder.with_suffix(".log").read_text(encoding="utf-8")
        return n_changes


def untimed(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: untimed(value) for key, value in data.items() if key not in TIMES}
    return [untimed(each) for each in data] if isinstance(data, list) else data


def content(path: Path) -> str:
    """Return what two files have in common that say the same."""
    if path.name in UNTOLD:
        return "there"
    raw = path.read_bytes()
    if path.name in ("result.json", "progress.json", "metrics.jsonl"):
        lines = raw.decode().splitlines() if path.suffix == ".jsonl" else [raw.decode()]
        raw = json.dumps([untimed(json.loads(line)) for line in lines]).encode()
    return hashlib.sha256(raw).hexdigest()


def files_in(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished(run: Path) -> dict[tuple[str, str], Files]:
    """Return the files of each step that counts as done, by its name and hash."""
    return {
        (path.parent.name, json.loads(path.read_bytes())["hash"]): files_in(path.parent)
        for path in sorted(run.glob("[!.]*/result.json"))
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("kills"))
    yield bench
    # Closes its streams, and the end of its input ends it.
    bench.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def ready(bench: Bench, tiny_folder: Path) -> Path:
    """A folder with a finished run and two exports."""
    folder = bench.folder / "ready"
    folder.mkdir()
    shutil.copytree(tiny_folder, folder / "tiny")
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    facts = [
        {"id": f"f{n}", "questions": [f"What is {n}?"], "answers": [f"It is {n}."],
         "heldout": [f"And {n}?"], "accept": [str(n)]}
        for n in range(6)
    ]  # fmt: skip
    (folder / "words.jsonl").write_text("".join(json.dumps(f) + "\n" for f in facts))
    bench.done(["run", "small.toml"], folder)
    for command in (CONVERT, TO_GGUF):
        bench.done([*command[:-1], *(["--type", "q8_0"] if "gguf" in command else [])], folder)
    return folder


def moments(n_changes: int, n_sampled: int | None) -> list[tuple[int, bool]]:
    """Return (change, before or after it) to kill at: all, or the first, the last and some."""
    every = [(n, is_before) for n in range(1, n_changes + 1) for is_before in (True, False)]
    if n_sampled is None:
        return every
    # Not seeded: every run tries others, and says which if it fails.
    return random.sample(every, n_sampled)


def sampled(name: str) -> Any:
    return pytest.mark.parametrize(
        name, [N_SAMPLED, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"]
    )


@sampled("n_sampled")
@pytest.mark.parametrize("command", [FROM_TUNED, TRIAL], ids=["from", "trial"])
def test_a_killed_run_has_no_step_without_its_files(
    bench: Bench, ready: Path, command: list[str], n_sampled: int | None
) -> None:
    whole = bench.copy(ready)
    n_changes = bench.done(command, whole)
    before, after = (finished(folder / "runs" / "small") for folder in (ready, whole))
    right = {**before, **after}
    names = {path.name for path in (whole / "runs" / "small").iterdir()}
    for moment in moments(n_changes, n_sampled):
        folder = bench.copy(ready)
        run = folder / "runs" / "small"
        status, n_made = bench.run(command, folder, *moment)
        assert (status, n_made) == (KILLED, moment[0]), moment
        for step, files in finished(run).items():
            missing = {name: right[step][name] for name in right[step].keys() - files.keys()}
            # A report puts its cards there later.
            assert all(name.endswith("README.md") for name in missing), (moment, step, missing)
            assert {name: files[name] for name in right[step].keys() - missing.keys()} == {
                name: right[step][name] for name in right[step].keys() - missing.keys()
            }, (moment, step)
        # It goes on, too, where it was redone from a step on.
        bench.done(command if command is TRIAL else command[:2], folder)
        assert finished(run) == after, moment
        assert {path.name for path in run.iterdir()} == names, moment
        shutil.rmtree(folder)


@sampled("n_sampled")
@pytest.mark.parametrize("command", [CONVERT, TO_GGUF], ids=["folder", "gguf"])
def test_a_killed_export_is_whole_or_not_there(
    bench: Bench, ready: Path, command: list[str], n_sampled: int | None
) -> None:
    whole = bench.copy(ready)
    n_changes = bench.done(command, whole)
    out = command[2]

    def exported(folder: Path) -> Files:
        path = folder / out
        return {out: content(path)} if path.is_file() else files_in(path)

    expected = [exported(ready), exported(whole)]
    for moment in moments(n_changes, n_sampled):
        folder = bench.copy(ready)
        status, n_made = bench.run(command, folder, *moment)
        assert (status, n_made) == (KILLED, moment[0]), moment
        assert not (folder / out).exists() or exported(folder) in expected, moment
        bench.done(command, folder)
        assert exported(folder) == expected[1], moment
        assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
        shutil.rmtree(folder)
