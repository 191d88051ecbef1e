"""How hosted models are asked: the table `[evaluate.NAME.hosted]`, and an argument of `load`."""

from typing import Annotated

from pydantic import Field

from lmwright.core.config import Config

Price = Annotated[float, Field(ge=0, le=1_000_000)]


class Hosted(Config):
    """Patience, pace, prices and the cache of requests to hosted models."""

    # Requests on their way at the same time.
    n_parallel: int = Field(default=4, ge=1, le=64)
    # Start no more requests a minute than this (default: as fast as answers come).
    requests_per_minute: float | None = Field(default=None, gt=0, le=1_000_000)
    # How long to wait for the next byte of an answer.
    timeout_s: float = Field(default=120.0, gt=0, le=86_400)
    # After a 429, a 5xx, a timeout or a lost connection; each wait is longer, or as asked for.
    n_retries: int = Field(default=5, ge=0, le=20)
    # How long a whole answer may take, however busily it comes; it is not asked for again.
    deadline_s: float = Field(default=600.0, gt=0, le=86_400)
    # Keep answers that cannot change (LMWRIGHT_HOME/hosted), so that the same request is free.
    cache: bool = True
    # Send the key, and what is asked, over http:// to another machine, readable on the way.
    plain_http: bool = False
    # For each model, as it is named: money for a million tokens in, and for a million out.
    prices: dict[str, tuple[Price, Price]] = Field(default={})
