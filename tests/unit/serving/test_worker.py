"""One slow, failing or vanished client must cost the others nothing."""

import asyncio
import platform
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fakes import fake_model
from lmwright.engine.request import Sampling
from lmwright.serving.errors import ApiError
from lmwright.serving.route import Generation, Submission
from lmwright.serving.worker import Ticket, Worker


class Steps:
    """The steps of a model that takes each of them when it is let."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.model: Any = fake_model(steps=self.gate)

    def let(self, n: int = 1) -> None:
        self.gate.release(n)

    async def begun(self, n: int) -> None:
        """Wait until the n-th step waits to be let."""
        while len(self.model.backend.steps) < n:
            await asyncio.sleep(0.001)

    @property
    def n_tokens(self) -> list[list[int]]:
        """How many tokens of each row each step read."""
        return [[len(row.token_ids) for row in step] for step in self.model.backend.steps]


Scenario = Callable[[Worker, Steps], Awaitable[None]]


def asking(*prompts: str, n_tokens: int = 3, n: int = 1, calls: Sequence[Any] = ()) -> Submission:
    samplings = [Sampling(max_tokens=n_tokens)] * n
    generations = [Generation(list(prompt.encode()), samplings) for prompt in prompts]
    return Submission(lambda _: {}, calls, generations)


def with_worker(scenario: Scenario, *, max_waiting: int = 2, **limits: int) -> Steps:
    """Run a scenario; return the steps that the model took."""
    steps = Steps()
    make = steps.model.engine
    steps.model.engine = lambda given: make(replace(given, **limits))

    async def run() -> None:
        worker = Worker(steps.model, max_waiting=max_waiting)
        try:
            await asyncio.wait_for(scenario(worker, steps), timeout=20)
        finally:
            steps.let(1000)
            worker.close()

    asyncio.run(run())
    return steps


def submit(worker: Worker, submission: Submission) -> Ticket:
    ticket = worker.admit()
    worker.start(ticket, submission)
    return ticket


async def texts(ticket: Ticket) -> list[tuple[int, str]]:
    return [(number, chunk.text) async for number, chunk in ticket.pieces()]  # type: ignore


async def first(ticket: Ticket) -> Any:
    return await anext(ticket.pieces())


def test_requests_are_answered_together_and_completely() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        early = submit(worker, asking("1", n_tokens=3))
        await steps.begun(1)
        late = submit(worker, asking("2", "3", n_tokens=2))
        steps.let(3)
        assert await texts(early) == [(0, "a"), (0, "b"), (0, "c")]
        assert await texts(late) == [(0, "a"), (1, "a"), (0, "b"), (1, "b")]

    assert with_worker(scenario).n_tokens == [[1], [1, 1, 1], [1, 1, 1]]


def test_a_short_request_ends_while_a_long_one_runs() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        long = submit(worker, asking("1", n_tokens=500))
        await steps.begun(1)
        short = submit(worker, asking("2", n_tokens=2))
        steps.let(3)
        assert await texts(short) == [(0, "a"), (0, "b")]
        assert long in worker._tickets

    with_worker(scenario)


def test_answers_to_one_prompt_read_it_once() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        steps.let(1000)
        ticket = submit(worker, asking("x" * 100, n=8, n_tokens=4))
        assert len(await texts(ticket)) == 32

    assert with_worker(scenario).n_tokens == [[100], *[[1] * 8] * 3]


def test_a_prompt_is_read_as_if_there_were_no_other() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        early = submit(worker, asking("x" * 80 + "1", n_tokens=2))
        await steps.begun(1)
        late = submit(worker, asking("x" * 80 + "2", n_tokens=1))
        steps.let(3)
        assert (await texts(early), await texts(late)) == ([(0, "a"), (0, "b")], [(0, "a")])

    # Otherwise what both begin with would be read once, and the rest along with the other's token:
    # other products, other last bits.
    assert with_worker(scenario).n_tokens == [[81], [1], [81]]


def test_a_long_prompt_holds_up_nobody() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        long = submit(worker, asking("x" * 160, n_tokens=1))
        await steps.begun(1)
        short = submit(worker, asking("2", n_tokens=5))
        steps.let(11)
        # It reads its prompt and answers while the long prompt is read in chunks.
        assert "".join(text for _, text in await texts(short)) == "abcde"
        assert not long.is_running
        steps.let(4)
        assert await texts(long) == [(0, "a")]

    assert with_worker(scenario, chunk=16).n_tokens == [[16], *[[1], [16]] * 5, *[[16]] * 4]


def test_a_full_queue_is_429_and_has_room_again_after_an_answer() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        tickets = [submit(worker, asking("0"))]
        steps.let()
        await first(tickets[0])
        # One runs, two wait: there is one row only.
        tickets += [submit(worker, asking(str(i), n_tokens=1)) for i in (1, 2)]
        with pytest.raises(ApiError) as caught:
            worker.admit()
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) > 0
        steps.let(4)
        assert await texts(tickets[0]) == [(0, "b"), (0, "c")]
        for ticket in tickets[1:]:
            assert await texts(ticket) == [(0, "a")]
        assert not worker._tickets
        worker.admit()

    with_worker(scenario, n_rows=1)


def test_cancelling_frees_the_row_before_the_next_step() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        ticket = submit(worker, asking("1", "2", n_tokens=1000))
        steps.let()
        assert (await first(ticket))[1].text == "a"
        await steps.begun(2)
        ticket.cancel()
        with pytest.raises(ApiError) as caught:
            await texts(ticket)
        assert caught.value.status == 503
        # The model is in the middle of a step, which is the last of that request.
        following = submit(worker, asking("3", n_tokens=1))
        steps.let(2)
        assert await texts(following) == [(0, "a")]

    assert with_worker(scenario, n_rows=1).n_tokens == [[1], [1], [1]]


def test_a_cancelled_request_in_the_queue_frees_its_place_at_once() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        running = submit(worker, asking("0", n_tokens=2))
        steps.let()
        await first(running)
        waiting = [submit(worker, asking(str(i), n_tokens=1)) for i in (1, 2)]
        waiting[0].cancel()
        last = submit(worker, asking("7", n_tokens=1))
        steps.let(1000)
        assert await texts(running) == [(0, "b")]
        for ticket in (waiting[1], last):
            assert await texts(ticket) == [(0, "a")]

    with_worker(scenario, n_rows=1)


def test_closing_ends_what_runs_and_drops_what_waits() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        tickets = [submit(worker, asking(str(i), n_tokens=1000)) for i in range(2)]
        steps.let()
        assert (await first(tickets[0]))[1].text == "a"
        # The model is in the middle of a step, and takes no further one after it.
        threading.Timer(0.05, steps.let).start()
        worker.close()
        assert all(ticket.is_cancelled for ticket in tickets)

    assert len(with_worker(scenario, n_rows=1).n_tokens) <= 2


def test_calls_take_turns_with_the_steps_of_others() -> None:
    done: list[str] = []

    async def scenario(worker: Worker, steps: Steps) -> None:
        running = submit(worker, asking("1", n_tokens=100))
        await steps.begun(1)
        calls = [lambda i=i: done.append(str(i)) or [i] for i in range(3)]
        ticket = submit(worker, asking("2", n_tokens=1, calls=calls))
        for n_called in (1, 2, 3):
            assert len(done) == n_called - 1
            steps.let()
            await steps.begun(n_called + 1)
            assert len(done) == n_called
        steps.let()
        assert [number async for number, _ in ticket.pieces()] == [0, 1, 2, 0]
        assert running in worker._tickets

    with_worker(scenario)
    assert done == ["0", "1", "2"]


def fail() -> Any:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("submission", "status"),
    [
        (asking("2", calls=[fail]), 500),
        (asking("2" * 3000), 400),
        (asking("2", n=9), 400),
    ],
)
def test_a_request_that_fails_fails_alone(submission: Submission, status: int) -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        running = submit(worker, asking("1", n_tokens=3))
        steps.let()
        await first(running)
        failing = submit(worker, submission)
        steps.let(1000)
        with pytest.raises(ApiError) as caught:
            await texts(failing)
        assert caught.value.status == status
        assert await texts(running) == [(0, "b"), (0, "c")]

    with_worker(scenario, n_rows=8)


def test_after_a_crash_of_the_model_the_next_request_is_answered() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        steps.let(1000)
        with pytest.raises(ApiError) as caught:
            await texts(submit(worker, asking("explode")))
        assert caught.value.status == 500
        assert await texts(submit(worker, asking("1", n_tokens=1))) == [(0, "a")]

    with_worker(scenario)


def test_a_request_is_counted_before_its_body_is_read() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        tickets = [worker.admit(), worker.admit()]
        with pytest.raises(ApiError) as caught:
            worker.admit()
        assert caught.value.status == 429
        tickets[0].cancel()
        worker.admit()

    with_worker(scenario)


def test_large_bodies_leave_room_for_small_ones() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        steps.let(1000)
        large = [worker.admit(is_large=True) for _ in range(8)]
        with pytest.raises(ApiError, match="8 large requests") as caught:
            worker.admit(is_large=True)
        assert caught.value.status == 429
        small = submit(worker, asking("1", n_tokens=1))
        assert await texts(small) == [(0, "a")]
        # One that has been read is as all others.
        worker.start(large[0], asking("2", n_tokens=1))
        worker.admit(is_large=True)
        assert await texts(large[0]) == [(0, "a")]

    with_worker(scenario, max_waiting=32)


def test_who_leaves_while_it_is_read_keeps_its_place_until_it_is_put_away() -> None:
    async def scenario(worker: Worker, steps: Steps) -> None:
        tickets = [worker.admit(), worker.admit()]
        tickets[0].leave()
        with pytest.raises(ApiError):
            worker.admit()
        worker.start(tickets[0], asking("1"))
        worker.admit()
        with pytest.raises(ApiError) as caught:
            await first(tickets[0])
        assert caught.value.status == 503

    assert with_worker(scenario).n_tokens == []


def test_threads_are_renewed_and_requests_that_run_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmwright.serving.worker.REQUESTS_A_THREAD", 3)
    threads: set[int | None] = set()

    def call() -> list[int]:
        threads.add(threading.get_native_id())
        return []

    async def scenario(worker: Worker, steps: Steps) -> None:
        long = submit(worker, asking("0", n_tokens=100))
        steps.let(1000)
        for _ in range(10):
            assert await texts(submit(worker, asking("1", n_tokens=1, calls=[call]))) == [(0, "a")]
        assert len(await texts(long)) == 100

    with_worker(scenario)
    assert len(threads) >= 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is asked")
def test_freed_memory_goes_back_to_the_system() -> None:
    code = """
import psutil
from lmwright.serving.worker import _return_memory
blocks = [bytearray(4000) for _ in range(50_000)]
blocks[:] = blocks[::500]
before = psutil.Process().memory_info().rss
_return_memory()
print(before - psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000_000
