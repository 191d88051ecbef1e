"""Speed must be that of the model: a warm-up or a cache may not leak into it."""

import pytest

from lmwright.core.errors import LmwrightError
from lmwright.core.progress import Bar
from lmwright.core.results import Row
from lmwright.evaluation import speed
from lmwright.evaluation.selection import Selection
from lmwright.evaluation.statistics import estimate


class Clock:
    """Time that passes only when the model works."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def timed(make_model, monkeypatch):
    """A model that reads 1000 and writes 50 tokens a second, and is slow at its first call."""
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    model = make_model(seconds_per_token=0.0)
    model.prompts = []
    plain = model.generate

    def generate(prompts, sampling):
        clock.now += 5.0 if not model.prompts else 0.0
        model.prompts += prompts
        clock.now += (len(prompts[0]) - 1) / 1000 + sampling.max_tokens / 50
        return plain(prompts, sampling)

    model.generate = generate
    return model


def test_prefill_throughput_leaves_the_warm_up_out(timed):
    rows = speed.PREFILL.rows(timed, Selection(3))
    assert [row.item for row in rows] == [f"prefill/{i}" for i in range(3)]
    metric = estimate(rows, speed.PREFILL.spec)
    assert (metric.value, metric.n) == (pytest.approx(512 / (511 / 1000 + 1 / 50)), 3)
    assert {len(prompt) for prompt in timed.prompts} == {512}


def test_no_two_prompts_begin_alike(timed):
    speed.PREFILL.rows(timed, Selection(8))
    beginnings = {tuple(prompt[:16]) for prompt in timed.prompts}
    assert len(beginnings) == len(timed.prompts) == 9


def test_decode_throughput_is_that_of_single_steps(timed):
    rows = speed.DECODE.rows(timed, Selection(3))
    assert len(rows) == 3
    assert all(row.sums[0] == 32 for row in rows)
    assert estimate(rows, speed.DECODE.spec).value == pytest.approx(50)


def test_short_contexts_are_filled_but_not_passed(make_model):
    model = make_model(context_length=20)
    [row, *_] = speed.PREFILL.rows(model, Selection(3))
    assert row.sums[0] == 19
    [row, *_] = speed.DECODE.rows(model, Selection(3))
    assert row.sums[0] == 19


def test_a_model_that_stops_early_is_an_error(make_model):
    model = make_model()
    plain = model._complete

    def stops(prompt, sampling):
        completion = plain(prompt, sampling)
        return type(completion)("a", completion.token_ids[:1], "stop", len(prompt))

    model._complete = stops
    with pytest.raises(LmwrightError, match="wrote 1 tokens where 32"):
        speed.DECODE.rows(model, Selection(3))


def test_noise_between_repeats_is_in_the_interval():
    rows = [
        Row(f"decode/{i}", (64, seconds)) for i, seconds in enumerate([1.0, 1.1, 0.9, 1.0, 1.0])
    ]
    metric = estimate(rows, speed.DECODE.spec)
    assert metric.value == pytest.approx(64)
    assert metric.low < 62
    assert metric.high > 66


def test_peak_memory_sees_what_was_freed_again():
    with speed.peak_memory(interval_s=0.001) as peak:
        before = peak.size_bytes
        block = bytearray(b"x" * 50_000_000)
        speed.time.sleep(0.05)
        del block
    assert peak.size_bytes - before > 40_000_000


def test_models_are_timed_in_turns_in_processes_of_their_own(tiny_folder, monkeypatch):
    models = [(str(tiny_folder), "a"), (str(tiny_folder), "b")]
    progress = Bar("evaluate", 4)
    told = []
    monkeypatch.setattr(progress, "advance", lambda n=1, note="": told.append((n, note)))
    timings = speed.measure_in_turns(models, "quick", [speed.PREFILL, speed.DECODE], progress)
    # Two metrics of each model, half of them a turn; what runs is named before it is done.
    assert [note for n, note in told if not n] == [
        "a: speed, turn 1 of 2", "b: speed, turn 1 of 2",
        "b: speed, turn 2 of 2", "a: speed, turn 2 of 2",
    ]  # fmt: skip
    assert sum(n for n, _ in told) == 4
    for timing in timings:
        rows = timing.rows[speed.DECODE.spec.name]
        # The same names for every model: rows are compared by item.
        assert [row.item for row in rows] == [
            f"decode/{i}-turn-{turn}" for turn in (0, 1) for i in range(3)
        ]
        assert all(row.sums[0] == 32 and row.sums[1] > 0 for row in rows)
        # Python with torch, and nothing of this process's fixtures.
        assert timing.figures["peak_memory_bytes"] > 50_000_000
        assert timing.figures["n_params"] > 0
