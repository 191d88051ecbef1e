"""Damage tiny models and open each through the real entry points, in a process of its own.

    python tests/fuzz/run.py --cases 3000 --seed 0
    python tests/fuzz/run.py --only 1234 --seed 0

Each case must end in a model that works or in one clear error, within 20 s of processor time and
1 GB of memory. A line of JSON is printed for each that does not; the last line counts all.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT.parent / "src")]

# One thread, said before torch starts: its pool does not survive a fork.
os.environ["OMP_NUM_THREADS"] = "1"

from fuzz import corrupt, models  # noqa: E402
from lmwright import lm  # noqa: E402
from lmwright.cli import main  # noqa: E402
from lmwright.core.errors import LmwrightError  # noqa: E402
from lmwright.engine.request import Sampling, ScoreRequest  # noqa: E402

CPU_S = 20
# A hanging case, one that sleeps or waits for a lock; far above, for a busy machine.
WALL_S = 120
MAX_BYTES = 1_000_000_000
MAX_MESSAGE = 3000
# Convert writes, opens again and verifies: too slow for each case.
CONVERTED = 10
TEXT = "The bank opens at nine."
DIALOGUE = [
    {"role": "user", "content": "Say <|im_end|> and \ufffd."},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "Why?"},
]


def use(path: Path) -> None:
    """Open a model and do all that it can."""
    model = lm.load(path)
    can = model.backend.capabilities  # type: ignore[union-attr]
    if "generate" in can:
        model.generate([TEXT], Sampling(max_tokens=4))
        list(model.stream(TEXT, Sampling(max_tokens=3, temperature=1.0, top_p=0.9)))
        if model.can_chat:
            model.generate([DIALOGUE], Sampling(max_tokens=2))
    if "score" in can:
        model.score([ScoreRequest(context=TEXT, continuation=" A card.")])
    if "embed" in can:
        model.embed([TEXT])
    if "classify" in can:
        model.classify([TEXT], [TEXT])
    if "classify_tokens" in can:
        model.classify_tokens([TEXT])  # type: ignore[union-attr]


def command(*arguments: str) -> str:
    """Run the command line; return its exit code, and the message where it is not 0."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    message = err.getvalue()
    assert code in (0, 1, 2), (code, message)
    assert code == 0 or "error: " in message, (code, message)
    assert "out of memory" not in message, message
    assert len(message) < MAX_MESSAGE + 100, f"{len(message)} characters"
    if code == 0 and "--json" in arguments:
        json.loads(out.getvalue())
    return f"{arguments[0]} {code}"


def attempt(path: Path, *, converts: bool) -> list[str]:
    """Return how each entry point ended; what is neither a model nor an error of ours is raised."""
    message = None
    try:
        use(path)
        ends = ["load 0"]
    except LmwrightError as error:
        ends, message = [f"load {error.exit_code}"], str(error)
    assert message is None or 0 < len(message) < MAX_MESSAGE, message
    ends.append(command("show", str(path), "--json"))
    if converts:
        ends.append(command("convert", str(path), str(path.parent / "out"), "--to", "hf"))
    return ends


def inside(path: Path, pipe: int, *, converts: bool) -> None:
    """Be the process of one case: send what happened through the pipe, and end."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = n_pages * os.sysconf("SC_PAGE_SIZE") + 4 * MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        found: Any = {"ends": attempt(path, converts=converts)}
    except BaseException:
        found = {"traceback": traceback.format_exc()[-3000:]}
    # Surrogates and all, whatever the message holds.
    os.write(pipe, json.dumps(found).encode()[:60_000])
    os._exit(0)


def watched(path: Path, log: Path, *, converts: bool) -> dict[str, Any]:
    """Run a case in a process of its own; return how it ended and what it took."""
    rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        inside(path, writer, converts=converts)
    os.close(writer)
    start = time.monotonic()
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - start > WALL_S:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    with os.fdopen(reader, "rb") as pipe:
        sent = pipe.read()
    found = json.loads(sent) if sent else {"killed": status, "wall_s": time.monotonic() - start}
    found["cpu_s"] = usage.ru_utime + usage.ru_stime
    found["bytes"] = max(0, usage.ru_maxrss * 1024 - rss)
    found["log"] = log.read_text(errors="replace")[-2000:]
    return found


def fault(found: dict[str, Any]) -> str | None:
    """Return what is wrong with the way in which a case ended."""
    if "traceback" in found:
        return "traceback"
    if "killed" in found:
        return f"killed by {found['killed']}"
    if found["cpu_s"] > CPU_S:
        return f"{found['cpu_s']:.0f} s"
    if found["bytes"] > MAX_BYTES:
        return f"{found['bytes'] / 1e9:.1f} GB"
    if "Traceback" in found["log"] or "panicked" in found["log"]:
        return "log"
    return None


def cases(numbers: Sequence[int], seed: int, sources: list[Path]) -> Iterator[dict[str, Any]]:
    """Make and run each case; its number and the seed tell all of it."""
    for number in numbers:
        random = Random(f"{seed}-{number}")
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            source = sources[number % len(sources)]
            path, done = corrupt.damage(Path(folder), source, random)
            converts = number // len(sources) % CONVERTED == 0
            found = watched(path, Path(folder) / "log", converts=converts)
        yield {"case": number, "model": source.name, "done": done, **found}


def work(numbers: Sequence[int], seed: int, sources: list[Path], out: Path) -> None:
    """Be one of several workers: write what each case gave."""
    with out.open("w") as file:
        for found in cases(numbers, seed, sources):
            file.write(json.dumps(found) + "\n")
            file.flush()


def run(numbers: Sequence[int], seed: int, *, n_workers: int) -> list[dict[str, Any]]:
    """Run the cases of these numbers; return what each gave."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    sources = [folder / "models" / name for name in models.MODELS]
    try:
        # In a process of its own, too: only what computes nothing may be forked again.
        joined([forked(models.build, folder / "models")])
        joined(
            [
                forked(work, numbers[i::n_workers], seed, sources, folder / f"{i}.jsonl")
                for i in range(n_workers)
            ]
        )
        lines = [line for file in folder.glob("*.jsonl") for line in file.open()]
        return sorted(map(json.loads, lines), key=lambda found: found["case"])
    finally:
        shutil.rmtree(folder)


def forked(function: Callable[..., object], *arguments: Any) -> int:
    """Run a function in a process of its own; return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return child


def joined(children: list[int]) -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), codes


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Count how the cases ended."""
    faults = Counter(kind for found in results if (kind := fault(found)) is not None)
    return {
        "cases": len(results),
        "faults": dict(faults),
        "ends": dict(Counter(end for found in results for end in found.get("ends", ()))),
        "most_cpu_s": round(max(found["cpu_s"] for found in results), 1),
        "most_bytes": max(found["bytes"] for found in results),
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="Print each case.")
    return parser.parse_args()


if __name__ == "__main__":
    asked = parsed()
    numbers = asked.only or range(asked.cases)
    results = run(numbers, asked.seed, n_workers=asked.workers)
    for found in results:
        kind = fault(found)
        if kind is not None or asked.all or asked.only:
            sys.stdout.write(json.dumps({"fault": kind, **found}) + "\n")
    sys.stdout.write(json.dumps(summary(results)) + "\n")
    sys.exit(any(fault(found) is not None for found in results))
