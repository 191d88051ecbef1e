"""What was asked of an endpoint, and what that costs at the prices that the user gave."""

import threading
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

# More than any model reads or writes at once.
MAX_TOKENS = 2_000_000


@dataclass(frozen=True)
class Usage:
    """Counts of what was sent; an answer from the cache was neither sent nor paid for."""

    n_requests: int = 0
    n_cached: int = 0
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    # Answers that did not say how many tokens they took.
    n_uncounted: int = 0
    # In the money of the prices; None without prices, or where tokens were not counted.
    cost: float | None = None

    def plus(self, other: "Usage") -> "Usage":
        """Add up two counts; the sum has a cost where both have one."""
        *counts, costs = zip(astuple(self), astuple(other), strict=True)
        return Usage(*map(sum, counts), cost=None if None in costs else sum(costs))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `Usage(**data)` reads it back."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.n_requests:,} requests sent and {self.n_cached:,} answered from the cache, "
            f"{self.n_prompt_tokens:,} tokens in and {self.n_completion_tokens:,} out"
        )
        if self.n_uncounted:
            text += f", {self.n_uncounted:,} answers without a count of tokens"
        price = "unknown" if self.cost is None else f"{self.cost:,.4f}"
        return f"{text}, cost {price}"


class Meter:
    """Counts while requests are made, in any thread."""

    def __init__(self, prices: tuple[float, float] | None) -> None:
        """`prices` are for a million tokens in and for a million out."""
        self._prices = prices
        self._lock = threading.Lock()
        self._n = Usage()

    @property
    def usage(self) -> Usage:
        """What was counted so far."""
        n = self._n
        if self._prices is None or n.n_uncounted:
            return n
        price_in, price_out = self._prices
        cost = (n.n_prompt_tokens * price_in + n.n_completion_tokens * price_out) / 1_000_000
        return replace(n, cost=cost)

    def count(self, answer: dict[str, Any] | None) -> None:
        """Count a request that was answered."""
        counts = tokens((answer or {}).get("usage"))
        self._add(Usage(1, 0, *counts) if counts else Usage(n_requests=1, n_uncounted=1))

    def count_cached(self) -> None:
        """Count a request that was not needed."""
        self._add(Usage(n_cached=1))

    def _add(self, more: Usage) -> None:
        with self._lock:
            self._n = self._n.plus(more)


def tokens(usage: Any) -> tuple[int, int] | None:
    """Return the tokens in and out that an answer's `usage` tells, or None."""
    if not isinstance(usage, dict):
        return None
    # Embeddings take tokens in only.
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts):
        return counts  # pyright: ignore[reportReturnType]
    return None
