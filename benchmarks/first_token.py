"""How long a user waits: for `lmwright --help`, for the first token, for a whole answer.

    python benchmarks/first_token.py

All times are from the start of the command, with Python, torch and the loading of the model.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import trial

PROMPT = "What is the capital of France?"
EXPECTED = "Paris"


def main() -> int:
    """Print the table; 1 where the answer is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each command")
    parser.add_argument("--model", default="starter", help="any MODEL that lmwright knows")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/first-token.json"))
    options = parser.parse_args()
    machine = trial.machine()
    generate = [command(), "generate", options.model, "--prompt", PROMPT]
    commands = {
        "lmwright --help": [command(), "--help"],
        "first token (streamed)": generate,
        "whole answer (--json)": [*generate, "--json"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    answer = ""
    for name, words in commands.items():
        first_output(words)  # once unmeasured: files into the system's cache
        for _ in range(1 if options.quick else options.repeats):
            first_s, whole_s, output = first_output(words)
            seconds[name].append(first_s if "first" in name else whole_s)
            if "--json" in words:
                answer = json.loads(output)["completions"][0]["text"]
    spreads = {name: trial.spread(values) for name, values in seconds.items()}
    is_right = EXPECTED in answer
    numbers = {"seconds": seconds, "spreads": spreads, "answer": answer, "is_right": is_right}
    trial.write(options.out, {"benchmark": "first token", "machine": machine, **numbers})
    rows = [["", "seconds"], *([name, trial.shown(each, 2)] for name, each in spreads.items())]
    print(f"{trial.table(rows)}\n\n{PROMPT} {answer}")
    return 0 if is_right else 1


def command() -> str:
    """Return the `lmwright` that belongs to this Python, or the one on the path."""
    beside = Path(sys.executable).parent / "lmwright"
    found = str(beside) if beside.exists() else shutil.which("lmwright")
    if found is None:
        raise SystemExit("no `lmwright` command found; install it: pip install 'lmwright[bench]'")
    return found


def first_output(words: list[str]) -> tuple[float, float, str]:
    """Run a command; return the seconds to its first byte of output and to its end, and all."""
    started = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        first_s = time.perf_counter() - started
        rest = process.stdout.read()
        process.wait()
    whole_s = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return first_s, whole_s, (first + rest).decode()


if __name__ == "__main__":
    sys.exit(main())
