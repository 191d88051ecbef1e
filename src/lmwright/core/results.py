"""Rows and metrics: what an evaluation stores and what it concludes. No torch here.

A row is one item under one model. Every metric of lmwright is a ratio of sums over rows,
sum(value) / sum(weight): accuracy (0 or 1 over 1), bits per byte (bits over bytes), a mean.
One estimator, so one bootstrap and one paired comparison serve all of them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """One item of one task under one model."""

    item: str
    value: float
    weight: float = 1.0
    # Items that share a cluster (a template, a text, a fact) are resampled together.
    cluster: str = ""
    group: str = ""
    # What the model said or the log-probabilities behind the value, for people to read.
    detail: str = ""


@dataclass(frozen=True)
class Metric:
    """A measured number with its interval (95 %) and the number of items behind it."""

    name: str
    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool
    unit: str = ""
    slices: dict[str, "Metric"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"metric {self.name}: n = {self.n}; a number without n is no result")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"metric {self.name}: {self.value} outside [{self.low}, {self.high}]")

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Metric":
        """Read what `to_json` wrote."""
        slices = {name: cls.from_json(value) for name, value in data.get("slices", {}).items()}
        return cls(**{**data, "slices": slices})


Verdict = Literal["better", "worse", "equivalent", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline on the same items."""

    metric: str
    model: str
    baseline: str
    # value(model) - value(baseline), in the metric's own unit, with the paired interval (95 %).
    delta: float
    low: float
    high: float
    # The same as a fraction of the baseline's value: 0.02 is +2 %.
    relative: float
    relative_low: float
    relative_high: float
    n: int
    p: float
    p_holm: float
    # The half-width that counts as "the same" (TOST), in the metric's unit.
    margin: float
    verdict: Verdict
    # For "cannot tell": about how many items would settle it.
    n_needed: int | None = None
    # Right/wrong tasks only: items that went from right to wrong, and from wrong to right.
    flips: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Comparison":
        """Read what `to_json` wrote."""
        flips = data.get("flips")
        return cls(**{**data, "flips": tuple(flips) if flips is not None else None})


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as parquet, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lmwright.core.artifact import replacing

    table = pa.Table.from_pylist([asdict(row) for row in rows])
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote, in the same order."""
    import pyarrow.parquet as pq

    return [Row(**record) for record in pq.read_table(path).to_pylist()]
