"""One thread that runs the model, one request after another, behind a short queue."""

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lmwright.core.errors import RequestError
from lmwright.lm import LanguageModel
from lmwright.serving import limits
from lmwright.serving.errors import ApiError
from lmwright.serving.jobs import EmbeddingJob, Job, Piece

log = logging.getLogger(__name__)


class Ticket:
    """The answers to one request, on their way from the worker's thread to the event loop."""

    def __init__(self, jobs: Sequence[Job | EmbeddingJob]) -> None:
        self.jobs = jobs
        self.future: Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        # Not bounded: it holds at most the tokens that the request was allowed, and a client that
        # reads slowly must not hold up the model for the others.
        self._pieces: asyncio.Queue[tuple[int, Piece] | ApiError | None] = asyncio.Queue()
        self._is_cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answers any more; safe in any thread."""
        return self._is_cancelled.is_set()

    def cancel(self) -> None:
        """Give the place in the queue back, or stop the model at its next token."""
        if self.is_cancelled:
            return
        self._is_cancelled.set()
        self._pieces.put_nowait(None)
        self.jobs = ()
        if self.future is not None:
            self.future.cancel()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield (index of the answer, piece) until all answers are complete or cancelled."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, ApiError):
                raise piece
            yield piece

    def put(self, piece: tuple[int, Piece] | ApiError | None) -> None:
        """Hand a piece over, from the worker's thread; None ends the answers."""
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:
            # The loop is closed: the server has gone.
            self._is_cancelled.set()


class Worker:
    """Runs jobs in the order of their arrival, so that the event loop never waits for the model."""

    def __init__(self, model: LanguageModel, *, max_waiting: int) -> None:
        self._model = model
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(1, "lmwright-model")
        self._lock = threading.Lock()
        self._tickets: set[Ticket] = set()

    def check_room(self) -> None:
        """Raise the 429 that `submit` would raise, before a body is read in vain."""
        if len(self._tickets) > self._max_waiting:
            raise ApiError(
                f"{self._max_waiting} requests are waiting for the model; try again later",
                429,
                code="rate_limit_exceeded",
                headers={"Retry-After": str(limits.RETRY_AFTER_S)},
            )

    def submit(self, jobs: Sequence[Job | EmbeddingJob]) -> Ticket:
        """Queue jobs, or raise a 429 when the queue is full; call it in the event loop."""
        ticket = Ticket(jobs)
        with self._lock:
            self.check_room()
            self._tickets.add(ticket)
        ticket.future = self._executor.submit(self._work, ticket)
        # Also called when the future is cancelled while it waits.
        ticket.future.add_done_callback(lambda _: self._forget(ticket))
        return ticket

    def close(self) -> None:
        """Stop what runs at its next token, drop what waits, and end the thread."""
        with self._lock:
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _forget(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.discard(ticket)

    def _work(self, ticket: Ticket) -> None:
        try:
            for index, job in enumerate(ticket.jobs):
                for piece in job.pieces(self._model):
                    if ticket.is_cancelled:
                        return
                    ticket.put((index, piece))
            ticket.put(None)
        except RequestError as error:
            ticket.put(ApiError(str(error), code="invalid_value"))
        # Whatever it is, only this request fails: the thread lives on.
        except Exception as error:
            log_failure(error)
            ticket.put(internal_error())


def log_failure(error: Exception) -> None:
    """Log where an unexpected error came from, but not its text, which may quote a prompt."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s\n%s", type(error).__name__, frames)


def internal_error() -> ApiError:
    """Return the 500 that tells a client nothing about our insides."""
    return ApiError("the server failed to answer; its log says where", 500, code="internal_error")
