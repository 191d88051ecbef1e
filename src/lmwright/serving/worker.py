"""The thread that runs the model: one engine for all requests, behind a bounded queue."""

import asyncio
import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from queue import SimpleQueue

from lmwright.core.errors import RequestError
from lmwright.engine.scheduler import Engine, EngineLimits
from lmwright.lm import LocalModel
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, internal_error, refusal
from lmwright.serving.route import Generation, Piece, Submission

# What a client gets must not depend on what others ask for at the same time.
LIMITS = EngineLimits(is_isolated=True)

# For each length of a prompt torch compiles kernels of attention, which it keeps as long as the
# thread lives (cpublas::brgemm; about 1 MB a length): threads must end for memory to stay flat.
REQUESTS_A_THREAD = 16

Call = Callable[[], Iterable[object]]
# An error or None is the last that a request gets.
Posted = Piece | ApiError | None


class Ticket:
    """One request, from before its body is read, to the worker's thread and back."""

    def __init__(self, on_end: Callable[["Ticket"], None], *, is_large: bool) -> None:
        self._on_end, self._loop = on_end, asyncio.get_running_loop()
        # Not bounded: it holds at most the tokens that the request was allowed, and a client that
        # reads slowly must not hold up the model for the others.
        self._pieces: asyncio.Queue[Posted] = asyncio.Queue()
        self.is_cancelled = False
        # Whether it is still to be read and encoded, and has a large body then.
        self.is_unread, self.is_large = True, is_large
        # The rest is the thread's: whether the engine has begun an answer, and what is left to do.
        self.is_running = False
        self.calls: deque[tuple[int, Call]] = deque()
        self.generations: Sequence[Generation] = ()
        self.answers: dict[int, int] = {}  # the engine's id of each: its number in the reply

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield (number of the answer, piece) until all are complete; raise what went wrong."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, ApiError):
                raise piece
            yield piece

    def leave(self) -> None:
        """Note that the client has gone; what it sent keeps its place until it is put away."""
        self.is_cancelled = True
        if not self.is_unread:
            self.cancel()

    def cancel(self) -> None:
        """Give the place in the queue back; the thread drops the answers before its next step."""
        self.is_cancelled = True
        self._take(ApiError("the answer was given up", 503, code="cancelled"))

    def post(self, piece: Posted) -> None:
        """Hand over a piece, from the thread."""
        # The loop is closed when the server has gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, piece)

    def _take(self, piece: Posted) -> None:
        self._pieces.put_nowait(piece)
        if not isinstance(piece, tuple):
            self._on_end(self)


class Worker:
    """Runs requests together, so that none waits for another and the event loop for none."""

    def __init__(self, model: LocalModel, *, max_waiting: int) -> None:
        self._model, self._max_waiting = model, max_waiting
        self._tickets: set[Ticket] = set()  # of the event loop: all that wait or run
        self._inbox: SimpleQueue[Ticket | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Of the thread.
        self._n_taken = 0
        self._is_closed = False
        self._active: list[Ticket] = []
        self._engine: Engine | None = None

    def admit(self, *, is_large: bool = False) -> Ticket:
        """Give a request a place in the queue before its body is read, or raise a 429."""
        waiting = [ticket for ticket in self._tickets if not ticket.is_running]
        n_large = sum(ticket.is_unread and ticket.is_large for ticket in waiting)
        if len(waiting) >= self._max_waiting or (is_large and n_large >= limits.MAX_LARGE):
            what = "large requests are being read" if is_large else "requests wait for the model"
            n = n_large if len(waiting) < self._max_waiting else len(waiting)
            reason = f"{n} {what}; try again later"
            headers = limits.retry_later()
            raise ApiError(reason, 429, code="rate_limit_exceeded", headers=headers)
        ticket = Ticket(self._tickets.discard, is_large=is_large)
        self._tickets.add(ticket)
        return ticket

    def start(self, ticket: Ticket, submission: Submission) -> None:
        """Queue what a request asks of the model; call it in the event loop."""
        ticket.is_unread = False
        if ticket.is_cancelled:
            ticket.cancel()
            return
        ticket.calls.extend(enumerate(submission.calls))
        ticket.generations = submission.generations
        self._inbox.put(ticket)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lmwright-model", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Cancel what runs and what waits, and end the thread."""
        for ticket in list(self._tickets):
            ticket.cancel()
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()

    def _run(self) -> None:
        """Let one thread after another do the work, until the server closes."""
        while not self._is_closed:
            thread = threading.Thread(target=self._work, name="lmwright-step", daemon=True)
            thread.start()
            thread.join()
            _return_memory()

    def _work(self) -> None:
        """Take in requests, then do a call and a step of the engine, for so many requests."""
        end = self._n_taken + REQUESTS_A_THREAD
        while self._n_taken < end and self._receive():
            for ticket in [ticket for ticket in self._active if ticket.is_cancelled]:
                self._drop(ticket)
            calling = next((ticket for ticket in self._active if ticket.calls), None)
            if calling is not None:
                self._advance(calling)
            if self._engine is not None and not self._engine.is_idle:
                self._step(self._engine)

    def _receive(self) -> bool:
        """Take in what has come, and wait for it if nothing else is to do; False: the end."""
        while not self._active or not self._inbox.empty():
            ticket = self._inbox.get()
            if ticket is None:
                self._is_closed = True
                return False
            self._n_taken += 1
            self._active.append(ticket)
            if not ticket.calls:
                self._advance(ticket)
        return True

    def _advance(self, ticket: Ticket) -> None:
        """Do a request's next call; behind the last one, give its prompts to the engine."""
        try:
            if ticket.calls:
                number, call = ticket.calls.popleft()
                for piece in call():
                    ticket.post((number, piece))
            if ticket.calls:
                return
            for generation in ticket.generations:
                if self._engine is None:
                    self._engine = self._model.engine(LIMITS)
                for id_ in self._engine.add(generation.prompt_ids, generation.samplings):
                    ticket.answers[id_] = len(ticket.answers)
        except Exception as error:
            self._fail(ticket, error)
        else:
            self._end_if_done(ticket)

    def _step(self, engine: Engine) -> None:
        """Let the engine take a step, and hand its pieces to whom they belong."""
        owners = {id_: ticket for ticket in self._active for id_ in ticket.answers}
        try:
            pieces = engine.step()
        except Exception as error:
            # What it holds now is not known: what it was writing fails, and a new one goes on.
            self._engine = None
            for ticket in set(owners.values()):
                self._fail(ticket, error)
            return
        for id_, chunk in pieces:
            ticket = owners[id_]
            ticket.is_running = True
            ticket.post((ticket.answers[id_], chunk))
            if chunk.completion is not None:
                del ticket.answers[id_]
                self._end_if_done(ticket)

    def _end_if_done(self, ticket: Ticket) -> None:
        if not ticket.answers:
            ticket.post(None)
            self._active.remove(ticket)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        """End one request with an error; the others and the thread live on."""
        is_refused = isinstance(error, RequestError)
        ticket.post(refusal(error) if is_refused else internal_error(error))
        self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        self._active.remove(ticket)
        if self._engine is not None:
            for id_ in ticket.answers:
                self._engine.cancel(id_)


def _return_memory() -> None:
    """Give freed memory back to the system: glibc keeps what lies between blocks in use."""
    # Other C libraries have no such function, and Windows has no library of no name.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
