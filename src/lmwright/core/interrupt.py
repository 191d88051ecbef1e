"""Ctrl-C while something must not be left half-done: it waits for the end of a piece of work."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

logger = logging.getLogger(__name__)


@dataclass
class Interruption:
    """Whether Ctrl-C was pressed; changes inside `deferred_interrupt`."""

    is_asked: bool = False


@contextmanager
def deferred_interrupt(note: str) -> Iterator[Interruption]:
    """Let the first Ctrl-C of the block only be noted, and say `note`; a second acts at once."""
    stop, before = Interruption(), signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.is_asked = True
        signal.signal(signal.SIGINT, before)
        # Python refuses to write in the middle of another write to the same stream.
        with contextlib.suppress(RuntimeError):
            logger.info("%s", note)

    # Python handles signals in the main thread alone; a program may ignore this one (nohup).
    is_ours = threading.current_thread() is threading.main_thread() and callable(before)
    if is_ours:
        signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)
