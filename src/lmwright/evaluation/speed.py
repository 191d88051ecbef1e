"""Prefill and decode throughput on this machine, and how much memory that takes.

Repeats instead of items: sums (tokens, seconds), so that the metric is tokens a second.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

from lmwright import lm
from lmwright.core.errors import LmwrightError
from lmwright.core.progress import Bar
from lmwright.core.results import MetricSpec, Role, Row
from lmwright.engine.request import Sampling
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.selection import Selection, Suite, starter_lines
from lmwright.lm import LanguageModel


def rows(
    model: LanguageModel, selection: Selection, *, name: str, n_prompt: int, n_written: int
) -> list[Row]:
    """Time one stream: a prompt of so many tokens is read, then so many are written.

    A row is a repeat. It counts the larger number: after a prompt of one token each written token
    is one step of the model, the first included. A short context is filled, but not passed.
    """
    limit = model.info.context_length
    assert limit is not None, "only what runs here is timed"
    n_prompt, n_written = min(n_prompt, limit - 1), min(n_written, limit - 1)
    n_tokens = max(n_prompt, n_written)
    timings = [
        _seconds(model, prompt, n_written) for prompt in _prompts(model, n_prompt, selection)
    ]
    # The first repeat warms up caches and threads, and does not count.
    return [
        Row(f"{name}/{i}", (n_tokens, seconds), detail=f"{n_tokens} tokens in {seconds:.4f} s")
        for i, seconds in enumerate(timings[1:])
    ]


def _seconds(model: LanguageModel, prompt: list[int], n_tokens: int) -> float:
    start = time.perf_counter()
    [completion] = model.generate([prompt], Sampling(max_tokens=n_tokens, ignore_eos=True))
    seconds = time.perf_counter() - start
    if len(completion.token_ids) != n_tokens:
        raise LmwrightError(
            f"{model.name} wrote {len(completion.token_ids)} tokens where {n_tokens} were asked "
            "for with ignore_eos: its speed cannot be measured"
        )
    return seconds


def _prompts(model: LanguageModel, n_tokens: int, selection: Selection) -> Iterator[list[int]]:
    """Yield ordinary text of so many tokens; each starts elsewhere, so no cache helps."""
    texts = [item["text"] for item in starter_lines("neutral-text.jsonl")]
    # One more than counts: the first repeat warms up.
    for repeat in range((selection.n or 0) + 1):
        start = 1 + repeat % (len(texts) - 1)
        ids: list[int] = []
        while len(ids) < n_tokens:
            ids += model.tokenizer.encode("\n".join(texts[start:] + texts[:start]))
        yield ids[:n_tokens]


def _record(
    title: str, *, role: Role | None, name: str, n_prompt: int, n_written: int
) -> Measurement:
    spec = MetricSpec(
        name=f"{name}_tokens_per_s",
        title=title,
        unit="tokens/s",
        higher_is_better=True,
        kind="repeats",
        margin=0.05,
        margin_is_relative=True,
        heading="Speed",
        caveat="One request at a time on this machine, after a warm-up; the interval holds the "
        "noise between repeats, not that between machines.",
        role=role,
    )
    # In each of two turns.
    n_items: dict[Suite, int | None] = {"quick": 3, "full": 8}
    timed = partial(rows, name=name, n_prompt=n_prompt, n_written=n_written)
    return Measurement(spec, task="speed", n_items=n_items, rows=timed, is_speed=True)


PREFILL = _record(
    "Prefill throughput (512 tokens)", role=None, name="prefill", n_prompt=512, n_written=1
)
DECODE = _record(
    "Decode throughput (one stream)", role="speed", name="decode", n_prompt=1, n_written=32
)


@dataclass(frozen=True)
class Timing:
    """The rows of each metric, and what the model is and needs while it works fast."""

    rows: dict[str, list[Row]]
    figures: dict[str, Any]


def measure_in_turns(
    models: Sequence[tuple[str, str]],
    suite: Suite,
    measurements: Sequence[Measurement],
    progress: Bar,
) -> list[Timing]:
    """Time models (where they lie, what they are called), each in a process of its own.

    A fresh process holds nothing but its model, so that its peak memory means something. Twice,
    the second time in reverse order: a machine that slows down meanwhile slows all of them.
    `progress` moves by a unit a measurement of each model.
    """
    order = [*range(len(models)), *reversed(range(len(models)))]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        turns = [
            pool.submit(time_model, *models[i], suite, measurements, turn=place // len(models))
            for place, i in enumerate(order)
        ]
        timings = []
        for i, turn in zip(order, turns, strict=True):
            name = models[i][1]
            progress.advance(0, f"{name}: speed, turn {len(timings) // len(models) + 1} of 2")
            timings.append(turn.result())
            progress.advance(len(measurements) / 2)
    return [_joined(timings[i], timings[-1 - i]) for i in range(len(models))]


def time_model(
    source: str, name: str, suite: Suite, measurements: Sequence[Measurement], *, turn: int = 0
) -> Timing:
    """Load a model in the number format that the device likes best, and time it."""
    with peak_memory() as peak:
        model = lm.load(source, precision="auto", name=name)
        rows = {
            each.spec.name: [
                replace(row, item=f"{row.item}-turn-{turn}")
                for row in each.rows(model, each.selection(suite))
            ]
            for each in measurements
        }
    figures = {**asdict(model.info), "speed_dtype": model.info.dtype}
    return Timing(rows, {**figures, "peak_memory_bytes": peak.size_bytes})


def _joined(first: Timing, second: Timing) -> Timing:
    peak = max(timing.figures["peak_memory_bytes"] for timing in (first, second))
    rows = {metric: first.rows[metric] + second.rows[metric] for metric in first.rows}
    return Timing(rows, {**first.figures, "peak_memory_bytes": peak})


@dataclass
class Peak:
    """The largest resident memory seen, in bytes; still growing inside `peak_memory`."""

    size_bytes: int = 0


@contextmanager
def peak_memory(interval_s: float = 0.05) -> Iterator[Peak]:
    """Watch the resident memory of this process, interpreter and libraries included."""
    import psutil

    process = psutil.Process()
    peak, is_over = Peak(process.memory_info().rss), threading.Event()

    def watch() -> None:
        while not is_over.wait(interval_s):
            peak.size_bytes = max(peak.size_bytes, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()
        peak.size_bytes = max(peak.size_bytes, process.memory_info().rss)
