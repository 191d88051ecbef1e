"""Requests to one endpoint: paced, in parallel, tried again, counted, and kept on disk."""

import itertools
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from lmwright.core import extras
from lmwright.core.errors import ModelError, RequestError
from lmwright.hosted.address import Address
from lmwright.hosted.cache import Cache
from lmwright.hosted.config import Hosted
from lmwright.hosted.errors import HostedError, PassingError, translated
from lmwright.hosted.replies import check_stream, checked, secret
from lmwright.hosted.transport import Bounds, open_client
from lmwright.hosted.usage import Meter, Usage
from lmwright.hub import cache_folder

log = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"
# What is sent where no key is needed: a server on this machine ignores it.
NO_KEY = "none"
# Between two tries, unless the endpoint asks for another wait.
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 8.0

T = TypeVar("T")
# A request, and what makes a value of its answer.
Inquiry = tuple[dict[str, Any], Callable[[dict[str, Any]], T]]


class Client:
    """One endpoint; its methods may be called from several threads."""

    def __init__(self, name: str, address: Address, *, config: Hosted) -> None:
        """`name` is what the user calls the model; prices go by it, and errors begin with it."""
        self._name, self._address = name, address
        self._n_parallel = config.n_parallel
        self._key = _key(name, address, config)
        self._pace = Pace(config.requests_per_minute)
        self._cache = Cache(cache_folder() / "hosted") if config.cache else None
        self._meter = Meter(config.prices.get(name))
        self._n_retries = config.n_retries
        extras.need(name, "openai")
        import openai

        # What the library would read from the environment is for OpenAI only.
        strangers = ["OpenAI-Organization", "OpenAI-Project"]
        dropped: dict[str, Any] = (
            {} if address.is_openai else dict.fromkeys(strangers, openai.Omit())
        )
        self._openai = openai.OpenAI(
            base_url=address.url,
            api_key=self._key or NO_KEY,
            timeout=config.timeout_s,
            # What is tried again, and when, is decided here.
            max_retries=0,
            default_headers=dropped,
            http_client=open_client(
                openai, Bounds(name, address.url, config.deadline_s, secret(self._key))
            ),
        )
        # The library's client is part of a cycle: its sockets would stay open until that is found.
        weakref.finalize(self, self._openai.close)

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._meter.usage

    def ask(self, path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Post one request and return what `read` makes of its answer.

        An answer that `read` refuses is not kept.
        """
        body = {"model": self._address.model, **body}
        url, cache = self._address.url + path, self._cache if is_repeatable(body) else None
        _check_text(body)
        if cache is not None and (known := cache.read(url, body)) is not None:
            try:
                value = read(self._checked(known))
            except HostedError as error:
                log.warning("%s: %s; asking again", cache.path(url, body), error)
            else:
                self._meter.count_cached()
                return value
        answer = self._checked(self._post(path, body))
        self._meter.count(answer)
        value = read(answer)
        if cache is not None:
            cache.write(url, body, answer=answer)
        return value

    def ask_all(self, path: str, inquiries: Sequence[Inquiry[T]]) -> list[T]:
        """Post requests, some at the same time; order is kept, and the first failure ends all."""
        return list(self.ask_each(path, inquiries))

    def ask_each(self, path: str, inquiries: Sequence[Inquiry[T]]) -> Iterator[T]:
        """Post requests as `ask_all` does, and yield the answers in order, each when it is here."""
        if not inquiries:
            return
        # The first one alone: if the endpoint cannot do it at all, nothing else is sent.
        yield self.ask(path, *inquiries[0])
        pool = ThreadPoolExecutor(self._n_parallel, "lmwright-hosted")
        try:
            asked = [pool.submit(self.ask, path, *inquiry) for inquiry in inquiries[1:]]
            for answer in asked:
                yield answer.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Post one request and yield the events of its answer; it is counted, but not kept."""
        import openai

        options = {"stream": True, "stream_options": {"include_usage": True}}
        body = {"model": self._address.model, **body, **options}
        _check_text(body)
        last: dict[str, Any] | None = None
        events = self._post(path, body, stream=True, stream_cls=openai.Stream[object])
        with events, self._told_in_our_words(path):
            check_stream(events.response.headers.get("content-type"), self._name)
            for event in events:
                answer = self._checked(event)
                last = answer if answer.get("usage") else last
                yield answer
        self._meter.count(last)

    def _post(self, path: str, body: dict[str, Any], **how: Any) -> Any:
        """Send a request, again while the failure may pass; each wait is longer than the last."""
        for n_tries in itertools.count(1):
            try:
                with self._asking(path):
                    return self._openai.post(path, cast_to=object, body=body, **how)
            except PassingError as error:
                if n_tries > self._n_retries:
                    raise
                backoff_s = min(FIRST_WAIT_S * 2 ** (n_tries - 1), LAST_WAIT_S)
                time.sleep(backoff_s if error.wait_s is None else error.wait_s)
        raise AssertionError("unreachable: the loop returns or raises")

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        """Wait until a request may begin; what goes wrong with it is told in our words."""
        self._pace.wait()
        with self._told_in_our_words(path):
            yield

    @contextmanager
    def _told_in_our_words(self, path: str) -> Iterator[None]:
        try:
            yield
        # Not each version of the library turns what its transport raises into an error of its own.
        except Exception as error:
            url = self._address.url
            raise translated(error, self._name, url=url, path=path, key=self._key) from None

    def _checked(self, answer: object) -> dict[str, Any]:
        return checked(answer, self._name, url=self._address.url, key=self._key)


class Pace:
    """Lets no more than so many requests a minute begin, evenly spread."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next_s = 0.0

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            start_s = max(time.monotonic(), self._next_s)
            self._next_s = start_s + self._interval_s
        time.sleep(max(0.0, start_s - time.monotonic()))


def is_repeatable(body: dict[str, Any]) -> bool:
    """Tell whether the same request has the same answer: greedy, seeded, or no text is made."""
    return body.get("temperature") == 0 or "seed" in body or "input" in body


def _key(name: str, address: Address, config: Hosted) -> str | None:
    key = os.environ.get(KEY, "").strip() or None
    if key is None and address.is_openai:
        raise ModelError(f"{name}: {address.host} needs an API key; put it into {KEY}")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ModelError(f"{name}: the key in {KEY} has characters that no key has")
    if key is not None and not address.is_secret and not config.plain_http:
        raise ModelError(
            f"{name}: {KEY} is set and would be sent over plain http, readable on the way; use "
            f"https://, unset {KEY}, or allow it with plain_http = true (hosted table)"
        )
    return key


def _check_text(body: dict[str, Any]) -> None:
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestError(
            "a text holds half a surrogate pair, which is no character; remove it"
        ) from None
