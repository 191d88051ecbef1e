"""What a server does for its good clients while it is attacked, and whether its memory stays flat.

    python benchmarks/attack_server.py
    python benchmarks/attack_server.py bodies half-open idle      # without the long part

`lmwright serve` runs in a process of its own that may open 1,024 files. Meanwhile a good client
asks once a second, each time over a connection of its own: it must be answered within a second or
get a 429, and so must /health. Parts:

    half-open   300 connections that send half of their headers
    idle        1,100 connections that send nothing
    bodies      45 bodies of 3.9 MB at once, of several kinds, again and again; some clients leave
    lengths     5,000 requests of all lengths, one after another: the memory held after each (the
                median over a tenth of them) may grow by 5 % at most after the first tenth; here
                the good client waits for the model, and is not timed
"""

import argparse
import contextlib
import http.client
import json
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trial
from first_token import command

SEED = 11
N_FILES = 1024
MAX_WAIT_S = 1.0
MAX_GROWTH = 0.05
MAX_LOG_BYTES = 100_000  # besides a line a request
N_HALF_OPEN, N_IDLE, N_BODIES = 300, 1100, 45
BODY_BYTES = 3_900_000
HEADERS = {"Content-Type": "application/json"}
URL = "/v1/completions"


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    model: str
    pid: int
    log: Path

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def ask(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 120)) as client:
            client.request(method, url, body, HEADERS)
            answer = client.getresponse()
            return answer.status, answer.read()

    def complete(self, prompt: str | Sequence[int], n_tokens: int) -> tuple[int, bytes]:
        """Ask for a few tokens."""
        fields = {"model": self.model, "prompt": prompt, "max_tokens": n_tokens, "temperature": 0}
        return self.ask("POST", URL, json.dumps(fields).encode())

    @property
    def size_mb(self) -> float:
        """How much memory it holds."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    @property
    def context_length(self) -> int:
        """How many tokens it reads, as its refusal of too many says it."""
        _, answer = self.complete("x", 10**9)
        found = re.search(r"takes 1 to (\d+)", answer.decode())
        assert found is not None, answer
        return int(found[1])


@dataclass
class Part:
    """What one attack came to."""

    name: str
    good_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)  # of the good client
    attackers: Counter[str] = field(default_factory=Counter)
    sizes_mb: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def ask(self, server: Server, waits: list[float], *request: Any) -> None:
        """Let a good client ask, and remember how long that took."""
        started = time.perf_counter()
        try:
            status, _ = server.ask(*request)
        except OSError as error:
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[str(status)] += 1
        if status == 200:
            waits.append(time.perf_counter() - started)

    def judge(self, *, is_timed: bool) -> None:
        """Note what was not as it must be."""
        if wrong := set(self.statuses) - {"200", "429"}:
            self.faults.append(f"good clients got {', '.join(sorted(wrong))}")
        if not self.good_s:
            self.faults.append("no good request was answered")
        for name, waits in (("good request", self.good_s if is_timed else []),
                            ("health", self.health_s)):  # fmt: skip
            if max(waits, default=0) > MAX_WAIT_S:
                self.faults.append(f"a {name} took {max(waits):.1f} s")


def main() -> int:
    """Print the table; 1 where a good client was not served, or memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, unless some are named")
    parser.add_argument("--model", default="starter", help="any MODEL that lmwright knows")
    parser.add_argument("--seconds", type=int, default=20, help="of each attack but the last")
    parser.add_argument("--requests", type=int, default=5000, help="of the part lengths")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/attack_server.json"))
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_files = 4 * N_IDLE if hard == resource.RLIM_INFINITY else min(4 * N_IDLE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n_files), hard))
    with served(options.model) as server:
        server.complete("Hi", 1)  # once unmeasured
        done = []
        for name in options.parts or PARTS:
            print(f"{name} ...", file=sys.stderr)
            n_logged = server.log.stat().st_size
            done.append(PARTS[name](server, options))
            check_log(done[-1], server.log.read_text()[n_logged:])
    parts = [vars(part) for part in done]
    trial.write(options.out, {"benchmark": "attack_server", "machine": trial.machine(),
                              "model": options.model, "parts": parts})  # fmt: skip
    print(shown(done))
    return int(any(part.faults for part in done))


@contextmanager
def served(model: str) -> Iterator[Server]:
    """Serve a model in a process that may open so many files only."""
    words = ["bash", "-c", f'ulimit -n {N_FILES}; exec "$@"', "bash",
             command(), "serve", model, "--port", "0"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream, subprocess.Popen(words, stderr=stream) as process:
            try:
                while not (found := re.search(r"http://[^/]+:(\d+)/v1", log.read_text())):
                    if process.poll() is not None:
                        raise SystemExit(log.read_text())
                    time.sleep(0.1)
                yield Server(int(found[1]), model, process.pid, log)
            finally:
                process.kill()


@contextmanager
def good_client(server: Server, part: Part) -> Iterator[None]:
    """Ask once a second for a word and for the server's health, until the block ends."""
    body = json.dumps({"model": server.model, "prompt": "Hi", "max_tokens": 1}).encode()
    is_done = threading.Event()

    def ask() -> None:
        while not is_done.is_set():
            part.ask(server, part.good_s, "POST", URL, body)
            part.ask(server, part.health_s, "GET", "/health")
            is_done.wait(1)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        is_done.set()
        asking.join()


def connections(name: str, n: int, sent: bytes) -> Callable[[Server, Any], Part]:
    """Return the attack of so many connections; those that are closed are opened again."""

    def attack(server: Server, options: Any) -> Part:
        part, open_ = Part(name), []
        with good_client(server, part):
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                for _ in range(n):
                    open_.append(server.connect())
                    part.attackers["opened"] += 1
                    with contextlib.suppress(OSError):
                        open_[-1].sendall(sent)
                for connection in open_[:-n]:
                    connection.close()
                open_ = open_[-n:]
                time.sleep(min(5.0, max(0.0, end - time.monotonic())))
        for connection in open_:
            connection.close()
        part.judge(is_timed=True)
        return part

    return attack


def bodies(server: Server, options: Any) -> Part:
    """Send large bodies of several kinds at once; a third of the clients wait for no answer."""
    part, kinds = Part("bodies"), large_bodies(server.model)

    def send(i: int) -> None:
        body = kinds[i // 3 % len(kinds)]
        try:
            if i % 3:
                status, _ = server.ask("POST", URL, body)
                part.attackers[str(status)] += 1
                return
            head = (f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n")  # fmt: skip
            with server.connect() as connection:
                connection.sendall(head.encode() + body)
            part.attackers["left"] += 1
        except OSError as error:
            part.attackers[type(error).__name__] += 1

    with ThreadPoolExecutor(N_BODIES) as pool, good_client(server, part):
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            list(pool.map(send, range(N_BODIES)))
    part.judge(is_timed=True)
    return part


def large_bodies(model: str) -> list[bytes]:
    """Return bodies of 3.9 MB: words, one word, token ids, escapes, and too many lists."""
    n, escape = BODY_BYTES, r"\u00e4"

    def completion(prompt: str) -> bytes:
        return f'{{"model": {json.dumps(model)}, "prompt": {prompt}}}'.encode()

    return [
        completion(f'"{"a bank " * (n // 7)}"'),
        completion(f'"{"x" * n}"'),
        completion(f"[{'1,' * (n // 2)}1]"),
        completion(f'"{escape * (n // 6)}"'),
        completion(f"[{'[1],' * (n // 4)}[1]]"),
    ]


def lengths(server: Server, options: Any) -> Part:
    """Ask with prompts of all lengths; the longest come first, so that they are not the growth."""
    part, random_ = Part("lengths"), random.Random(SEED)
    longest = server.context_length - 4
    n_tenth, held = max(1, options.requests // 10), list[float]()
    with good_client(server, part):
        for i in range(options.requests):
            n = random_.randint(1, 640)
            if i % 50 == 0:
                n = longest if i == 0 else round(longest ** random_.random())
            ids = [random_.randrange(10, 200) for _ in range(min(n, longest))]
            status, _ = server.complete(ids, random_.randint(1, 4))
            part.attackers[str(status)] += 1
            held.append(server.size_mb)
            if len(held) == n_tenth:
                part.sizes_mb.append(statistics.median(held))
                told = f"{part.sizes_mb[-1]:.0f} MB, at most {max(held):.0f} MB"
                print(f"{i + 1} requests: {told}", file=sys.stderr)
                held.clear()
    part.judge(is_timed=False)
    if set(part.attackers) != {"200"}:
        part.faults.append(f"requests got {dict(part.attackers)}")
    growth = max(part.sizes_mb) / part.sizes_mb[0] - 1
    if growth > MAX_GROWTH:
        part.faults.append(f"memory grew by {growth:.0%}")
    return part


def check_log(part: Part, logged: str) -> None:
    """Note a log with tracebacks, or with more than a line a request."""
    n_extra = sum(len(line) for line in logged.splitlines() if " -> " not in line)
    if "Traceback" in logged:
        part.faults.append("tracebacks in the log")
    if n_extra > MAX_LOG_BYTES:
        part.faults.append(f"{n_extra:,} bytes in the log")


PARTS: dict[str, Callable[[Server, Any], Part]] = {
    "half-open": connections(
        "half-open", N_HALF_OPEN, b"POST /v1/completions HTTP/1.1\r\nHost: loc"
    ),
    "idle": connections("idle", N_IDLE, b""),
    "bodies": bodies,
    "lengths": lengths,
}


def shown(parts: Sequence[Part]) -> str:
    """Return the table, and the faults below it."""
    rows = [["attack", "attackers", "good client", "longest, s", "health, s", "memory, MB"]]
    for part in parts:
        sizes = f"{part.sizes_mb[0]:.0f} to {max(part.sizes_mb):.0f}" if part.sizes_mb else "-"
        rows.append([
            part.name,
            counted(part.attackers),
            counted(part.statuses),
            f"{max(part.good_s, default=float('nan')):.2f}",
            f"{max(part.health_s, default=float('nan')):.2f}",
            sizes,
        ])  # fmt: skip
    faults = [f"{part.name}: {fault}" for part in parts for fault in part.faults]
    return "\n".join([trial.table(rows), "", *(faults or ["all good clients were served"])])


def counted(statuses: Counter[str]) -> str:
    """Return how often each came."""
    return ", ".join(f"{n:,} x {name}" for name, n in sorted(statuses.items()))


if __name__ == "__main__":
    sys.exit(main())
