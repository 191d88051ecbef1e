"""One slow or vanished client must cost the others nothing."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lmwright.engine.request import Chunk, Sampling
from lmwright.serving.errors import ApiError
from lmwright.serving.jobs import Job
from lmwright.serving.worker import Worker


class SteppedModel:
    """Makes a token each time that it is let."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.prompts: list[Sequence[int]] = []
        self.n_closed = 0

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Chunk]:
        self.prompts.append(prompt)
        try:
            for i in range(sampling.max_tokens):
                assert self.steps.acquire(timeout=10)
                yield Chunk(str(i))
        finally:
            self.n_closed += 1


def job(name: int, n: int = 3) -> Job:
    return Job([name], Sampling(max_tokens=n))


def with_worker(model: Any, scenario: Any, *, max_waiting: int = 2) -> None:
    async def run() -> None:
        worker = Worker(model, max_waiting=max_waiting)
        try:
            await asyncio.wait_for(scenario(worker), timeout=20)
        finally:
            model.steps.release(1000)
            worker.close()

    asyncio.run(run())


async def texts(ticket: Any) -> list[tuple[int, str]]:
    return [(index, chunk.text) async for index, chunk in ticket.pieces()]


def test_requests_are_answered_in_order_and_completely() -> None:
    model = SteppedModel()

    async def scenario(worker: Worker) -> None:
        tickets = [worker.submit([job(1, 2), job(2, 1)]), worker.submit([job(3, 1)])]
        model.steps.release(4)
        assert await texts(tickets[0]) == [(0, "0"), (0, "1"), (1, "0")]
        assert await texts(tickets[1]) == [(0, "0")]
        assert model.prompts == [[1], [2], [3]]

    with_worker(model, scenario)


def test_a_full_queue_is_429_and_has_room_again_after_an_answer() -> None:
    model = SteppedModel()

    async def scenario(worker: Worker) -> None:
        tickets = [worker.submit([job(i, 1)]) for i in range(3)]
        for refuse in (worker.check_room, lambda: worker.submit([job(9)])):
            with pytest.raises(ApiError) as caught:
                refuse()
            assert caught.value.status == 429
            assert int(caught.value.headers["Retry-After"]) > 0
        model.steps.release(3)
        for ticket in tickets:
            assert await texts(ticket) == [(0, "0")]
        while worker._tickets:
            await asyncio.sleep(0.001)
        worker.check_room()
        assert [9] not in model.prompts

    with_worker(model, scenario)


def test_cancelling_stops_at_the_next_token_and_closes_the_stream() -> None:
    model = SteppedModel()

    async def scenario(worker: Worker) -> None:
        ticket = worker.submit([job(1, 1000), job(2, 1000)])
        model.steps.release(1)
        pieces = ticket.pieces()
        assert (await anext(pieces))[1].text == "0"
        ticket.cancel()
        assert [piece async for piece in pieces] == []
        model.steps.release(1)
        following = worker.submit([job(3, 1)])
        model.steps.release(1)
        assert await texts(following) == [(0, "0")]
        assert model.prompts == [[1], [3]]
        assert model.n_closed == 2

    with_worker(model, scenario)


def test_a_cancelled_request_in_the_queue_frees_its_place_at_once() -> None:
    model = SteppedModel()

    async def scenario(worker: Worker) -> None:
        running, *waiting = [worker.submit([job(i, 1)]) for i in range(3)]
        waiting[0].cancel()
        last = worker.submit([job(7, 1)])
        model.steps.release(3)
        for ticket in (running, waiting[1], last):
            assert await texts(ticket) == [(0, "0")]
        assert model.prompts == [[0], [2], [7]]

    with_worker(model, scenario)


def test_closing_ends_what_runs_and_drops_what_waits() -> None:
    model = SteppedModel()

    async def scenario(worker: Worker) -> None:
        tickets = [worker.submit([job(i, 1000)]) for i in range(2)]
        model.steps.release(1)
        assert (await anext(tickets[0].pieces()))[1].text == "0"
        # The model is in the middle of a token, and makes no further one after it.
        threading.Timer(0.05, model.steps.release).start()
        worker.close()
        assert all(ticket.is_cancelled for ticket in tickets)
        assert model.n_closed == 1
        assert model.prompts == [[0]]

    with_worker(model, scenario)
