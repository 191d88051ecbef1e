"""How many tokens a second a server writes for one client, and for eight at once.

    python benchmarks/serve.py

`lmwright serve` runs in a process of its own; the clients stream chats of it, greedily. One client
asks all prompts one after another, then as many clients ask one each at the same time, in turns.
An answer should not depend on what else the server does, so those of both are compared.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trial
from first_token import command

PROMPTS = (
    "Write a long story about a lighthouse keeper.",
    "Explain in detail how a bicycle works.",
    "List the planets of the solar system and describe each of them.",
    "Describe how bread is baked, step by step.",
    "What should a visitor know about the history of Rome?",
    "Explain how a computer stores pictures.",
    "Write a long letter from a sailor to his family.",
    "Describe the four seasons in a forest.",
)
ONE, ALL = "one client", f"{len(PROMPTS)} clients at once"


@dataclass(frozen=True)
class Answer:
    """What one request got, and when."""

    text: str
    n_tokens: int
    first_token_s: float


def main() -> int:
    """Print the table; 1 where an answer depended on the other requests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of 16 tokens")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each")
    parser.add_argument("--tokens", type=int, default=96, help="of an answer, at most")
    parser.add_argument("--model", default="starter", help="any MODEL that lmwright knows")
    parser.add_argument("--json", action="store_true", help="print all numbers, not the table")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/serve.json"))
    options = parser.parse_args()
    n_repeats, n_tokens = (1, 16) if options.quick else (options.repeats, options.tokens)
    numbers = {"benchmark": "serve", "machine": trial.machine(), "model": options.model}
    with served(options.model) as port:
        ask(port, options.model, PROMPTS[0], 4)  # once unmeasured
        turns: dict[str, list[tuple[float, list[Answer]]]] = {ONE: [], ALL: []}
        for _ in range(n_repeats):
            for name, n_clients in ((ONE, 1), (ALL, len(PROMPTS))):
                turns[name].append(run(port, options.model, n_tokens, n_clients))
    numbers |= summary(turns)
    trial.write(options.out, numbers)
    print(json.dumps(numbers, indent=2) if options.json else shown(numbers))
    return 0 if numbers["n_equal"] == numbers["n_compared"] else 1


@contextmanager
def served(model: str) -> Iterator[int]:
    """Serve a model in a process on a free port of this machine; give the port."""
    words = [command(), "serve", model, "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"http://[^/]+:(\d+)/v1", line):
                    yield int(found[1])
                    return
            raise SystemExit(f"{' '.join(words)}: exit code {process.wait()}")
        finally:
            process.terminate()


def run(port: int, model: str, n_tokens: int, n_clients: int) -> tuple[float, list[Answer]]:
    """Ask all prompts with so many clients; return the seconds that took and the answers."""
    with ThreadPoolExecutor(n_clients) as pool:
        started = time.perf_counter()
        asked = [pool.submit(ask, port, model, prompt, n_tokens) for prompt in PROMPTS]
        answers = [future.result() for future in asked]
        return time.perf_counter() - started, answers


def ask(port: int, model: str, prompt: str, n_tokens: int) -> Answer:
    """Stream one chat."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": n_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    text, first_token_s, n_written = "", 0.0, 0
    for event in events(connection.getresponse()):
        if event["usage"] is not None:
            n_written = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            if not text:
                first_token_s = time.perf_counter() - started
            text += choice["delta"].get("content", "")
    connection.close()
    return Answer(text, n_written, first_token_s)


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    if response.status != 200:
        raise SystemExit(f"{response.status}: {response.read().decode()}")
    for line in response:
        if line.startswith(b"data: {"):
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise SystemExit(event["error"]["message"])
            yield event


def summary(turns: dict[str, list[tuple[float, list[Answer]]]]) -> dict[str, Any]:
    """Return the spreads of all turns, and how many answers were those of a request alone."""
    rates = {name: [rate(*turn) for turn in each] for name, each in turns.items()}
    first_s = {
        name: [answer.first_token_s for _, answers in each for answer in answers]
        for name, each in turns.items()
    }
    alone = [answer.text for answer in turns[ONE][0][1]]
    is_equal = [
        answer.text == text
        for _, answers in turns[ALL]
        for answer, text in zip(answers, alone, strict=True)
    ]
    ratios = [together / one for one, together in zip(rates[ONE], rates[ALL], strict=True)]
    return {
        "tokens_per_s": {name: trial.spread(values) for name, values in rates.items()},
        "first_token_s": {name: trial.spread(values) for name, values in first_s.items()},
        "ratio": trial.spread(ratios),
        "n_equal": sum(is_equal),
        "n_compared": len(is_equal),
        "turns": {
            name: [{"seconds": s, "answers": [asdict(a) for a in answers]} for s, answers in each]
            for name, each in turns.items()
        },
    }


def rate(seconds: float, answers: Sequence[Answer]) -> float:
    """Return tokens a second of a turn."""
    return sum(answer.n_tokens for answer in answers) / seconds


def shown(numbers: dict[str, Any]) -> str:
    """Return the numbers as a table, with what they come to below it."""
    rows = [["", "tokens/s", "first token, s"]]
    for name in (ONE, ALL):
        speed, first = (numbers[key][name] for key in ("tokens_per_s", "first_token_s"))
        rows.append([name, trial.shown(speed, 1), trial.shown(first, 2)])
    return (
        f"{trial.table(rows)}\n\n{trial.shown(numbers['ratio'], 2)} times the tokens per second; "
        f"{numbers['n_equal']} of {numbers['n_compared']} answers are those of the request alone"
    )


if __name__ == "__main__":
    sys.exit(main())
