"""What an evaluation stores and what it concludes: rows, metrics, comparisons, scores. No torch.

A row is one item under one model. It holds a vector of sums: a metric is a statistic of the
vectors summed over the rows. Accuracy and bits per byte are the ratio of two sums, F1 is a
statistic of three counts; all of them share one estimator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from lmwright.core import figures
from lmwright.core.artifact import read_state, reading, replacing
from lmwright.core.errors import DataError
from lmwright.core.text_table import Styled, TextTable, glued

Heading = Literal["Quality", "Fairness and safety", "Speed", "Size and memory"]
HEADINGS: tuple[Heading, ...] = get_args(Heading)

# binary: 0 or 1 an item.  continuous: any numbers an item.  exact: one number without items.
# repeats: timings of the same work; those of two models have nothing to do with each other.
MetricKind = Literal["binary", "continuous", "repeats", "exact"]
# What a report lets a metric be: an axis of the trade-off chart, or in a section of the card.
Role = Literal["quality", "speed", "bias", "safety"]
Verdict = Literal["better", "worse", "equivalent", "cannot tell"]

MARKS = {"better": "better", "worse": "WORSE", "equivalent": "same", "cannot tell": "cannot tell"}
STYLES = {"better": "green", "worse": "bold red", "equivalent": "dim", "cannot tell": "yellow"}
# What a metric or task was called before: an error can say the new name.
RENAMED = {"facts": "qa_accuracy"}

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One item of one metric under one model."""

    item: str
    # What the metric's statistic adds up; for a ratio (value, weight).
    sums: tuple[float, ...]
    # Items that share a cluster (a template, a text, a fact) are resampled together.
    cluster: str = ""
    group: str = ""
    # What the model said or the log-probabilities behind the sums, for people to read.
    detail: str = ""


@dataclass(frozen=True)
class MetricSpec:
    """What a metric means: how it is shown, which way is good, what counts as the same."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    kind: MetricKind
    # Half-width of "the same" (TOST): in the metric's unit, or a fraction of the baseline's value.
    margin: float = 0.0
    margin_is_relative: bool = False
    # Where reports show it; None: nowhere, though a gate may still ask for it.
    heading: Heading | None = "Quality"
    # One honest sentence on what the number does not show.
    caveat: str = ""
    # Hugging Face's name for it, where it has another one.
    hub_type: str = ""
    role: Role | None = None

    @property
    def items(self) -> str:
        """What n counts: timings are repeats, all else items."""
        return "repeats" if self.kind == "repeats" else "items"


_SIZE: Heading = "Size and memory"
_EXACT: tuple[tuple[str, str, str, Heading | None], ...] = (
    ("size_bytes", "Size on disk", "bytes", _SIZE),
    ("bits_per_weight", "Bits per weight", "bits", _SIZE),
    ("peak_memory_bytes", "Peak memory of the process", "bytes", _SIZE),
    ("n_params", "Parameters", "", None),
)
# What is known of a model without asking it anything.
EXACT = {
    name: MetricSpec(name, title, unit, higher_is_better=False, kind="exact", heading=heading)
    for name, title, unit, heading in _EXACT
}


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
    slices: Mapping[str, "Metric"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"metric {self.name}: n = {self.n}; a number without n is no result")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"metric {self.name}: {self.value} outside [{self.low}, {self.high}]")


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
    # Right/wrong metrics only: items that went from right to wrong, and from wrong to right.
    flips: tuple[int, int] | None = None


@dataclass(frozen=True)
class Asked:
    """What an item asked, where its rows hold replies that people may read."""

    question: str
    # What a right reply contains or is.
    expected: str = ""


@dataclass(frozen=True)
class Scores:
    """Models side by side; `print(scores)` shows the table."""

    suite: str
    # In the order in which they were named: the first is the baseline.
    models: tuple[str, ...]
    # What each model was made from, the first one shown in front.
    parents: Mapping[str, tuple[str, ...]]
    # What was measured, in the order in which it is shown.
    specs: tuple[MetricSpec, ...]
    # model -> metric
    metrics: Mapping[str, Mapping[str, Metric]]
    comparisons: tuple[Comparison, ...] = ()
    # The smallest change that each metric finds with 80 % power, in its own unit.
    detectable: Mapping[str, float] = field(default_factory=dict)
    # Exact figures: size, bits per weight, memory, number format, the batch self-test.
    facts_of_models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Metric -> why there is no number.
    not_measured: Mapping[str, str] = field(default_factory=dict)
    # model -> metric or exact figure -> why just this model has no number.
    gaps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # model -> what it took to ask it, where that was not done here.
    usage: Mapping[str, str] = field(default_factory=dict)
    # metric -> item -> what was asked, where rows hold replies.
    asked: Mapping[str, Mapping[str, Asked]] = field(default_factory=dict)
    # model -> metric -> rows; stored beside, not in the JSON.
    rows: Mapping[str, Mapping[str, Sequence[Row]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain data without the rows; `from_json` reads it back."""
        return plain(replace(self, rows={}))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scores":
        """Read what `to_json` wrote, also as part of a larger result; else raise a `DataError`."""
        keys = cls.__dataclass_fields__.keys() - {"rows"}
        scores = from_plain(cls, {key: data[key] for key in keys & data.keys()})
        if fault := scores._fault():
            raise DataError(_unreadable(cls, fault))
        return scores

    def _fault(self) -> str:
        """Return how its parts contradict each other; "" for scores as `evaluate` makes them."""
        if not self.models:
            return "models: none"
        for spec in self.specs:
            if not any(spec.name in found for found in self.metrics.values()):
                return f"metrics: none of {spec.name}"
            if spec.name not in self.detectable:
                return f"detectable: none of {spec.name}"
        for pair in self.comparisons:
            for model in (pair.model, pair.baseline):
                if self.spec(pair.metric) is None or self.metric(pair.metric, model) is None:
                    return f"comparisons: {model} has no {pair.metric}"
        for model, facts in self.facts_of_models.items():
            for name in EXACT.keys() & facts.keys():
                if not isinstance(facts[name], int | float | None):
                    return f"facts_of_models.{model}.{name}: no number"
        return ""

    def spec(self, metric: str) -> MetricSpec | None:
        """Return what a metric or exact figure means; None if nothing of this name was measured."""
        return next((spec for spec in self.specs if spec.name == metric), EXACT.get(metric))

    def metric(self, metric: str, model: str) -> Metric | None:
        """Return a model's number with its interval, where there is one."""
        return self.metrics.get(model, {}).get(metric)

    def exact(self, figure: str, model: str) -> float | None:
        """Return an exact figure of a model, where it is known."""
        value = self.facts_of_models.get(model, {}).get(figure)
        return None if value is None else float(value)

    def value(self, name: str, model: str) -> float | None:
        """Return a model's number of a metric or exact figure, where there is one."""
        metric = self.metric(name, model)
        return self.exact(name, model) if metric is None else metric.value

    def has(self, spec: MetricSpec) -> bool:
        """Return whether any model has a number of it."""
        return any(self.value(spec.name, model) is not None for model in self.models)

    def comparison(self, metric: str, model: str, *, baseline: str) -> Comparison | None:
        """Return the comparison of two models on a metric, where there is one."""
        key = (metric, model, baseline)
        return next((c for c in self.comparisons if (c.metric, c.model, c.baseline) == key), None)

    def why_absent(self, metric: str, model: str) -> str:
        """Return why a model has no number for a metric or exact figure; "" if nobody knows."""
        return self.gaps.get(model, {}).get(metric) or self.not_measured.get(metric, "")

    def table(self) -> TextTable:
        """Return the side-by-side table: value [low, high], and the verdict against the first."""
        shown = [spec for spec in EXACT.values() if spec.heading and self.has(spec)]
        rows = []
        for spec in (*self.specs, *shown):
            good = "higher" if spec.higher_is_better else "lower"
            title = spec.title if spec.kind == "exact" else f"{spec.title}\n{good} is better"
            rows.append([title, *(self._cell(spec, model) for model in self.models)])
        headings, title = ["metric", *self.models], f"Evaluation ({self.suite})"
        return TextTable(headings, rows, title=title, footer=f"\n{self.footer()}")

    def footer(self) -> str:
        """Return a line for each metric: n, the smallest change found, or why not measured."""
        lines = [f"[low, high] is a 95 % interval; verdicts against {self.models[0]}"]
        for spec in self.specs:
            first = next(found[spec.name] for found in self.metrics.values() if spec.name in found)
            smallest = self.detectable[spec.name]
            finds = figures.difference(spec.unit, first.value).figure(smallest).lstrip("+")
            lines.append(f"{spec.title}: n = {first.n} {spec.items}, finds changes from {finds}")
        lines += [f"{name}: not measured, {why}" for name, why in self.not_measured.items()]
        lines += [f"{model}: {usage}" for model, usage in self.usage.items()]
        return "\n".join(lines)

    def _cell(self, spec: MetricSpec, model: str) -> list[Styled]:
        value, found = self.value(spec.name, model), self.metric(spec.name, model)
        if value is None:
            reason = self.gaps.get(model, {}).get(spec.name)
            return [Styled(f"not measured: {reason}" if reason else "not measured", "dim")]
        if found is None:
            return [Styled(glued(figures.exact(value, spec.unit)))]
        how = figures.scale(spec.unit, value)
        shown = glued(figures.short(value, spec.unit))
        interval = glued(f"[{how.number(found.low)}, {how.number(found.high)}]")
        cell = [Styled(f"{shown} {interval}")]
        comparison = self.comparison(spec.name, model, baseline=self.models[0])
        if comparison is not None:
            mark = MARKS[comparison.verdict]
            if comparison.n_needed is not None:
                mark += f": needs about {figures.about(comparison.n_needed)}"
            cell.append(Styled(mark, STYLES[comparison.verdict]))
        return cell

    def __str__(self) -> str:
        return self.table().text()


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def plain(record: Any) -> dict[str, Any]:
    """Return a record of results as plain data; `from_plain` reads it back."""
    return _adapter(type(record)).dump_python(record, mode="json")


def from_plain(cls: type[T], data: Mapping[str, Any]) -> T:
    """Read what `plain` wrote; other keys are ignored, wrong ones raise a `DataError`."""
    try:
        return _adapter(cls).validate_python(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise DataError(_unreadable(cls, f"{where}: {fault['msg']}")) from None


def _unreadable(cls: type, fault: str) -> str:
    return f"not the {cls.__name__} of this version of lmwright ({fault}); run the step again"


def read_plain(cls: type[T], path: Path, *, remedy: str) -> T:
    """Read a file with what `plain` wrote; a `StateError` names it where it holds anything else."""
    data = read_state(path, remedy=remedy)
    with reading(path, remedy=remedy):
        return Scores.from_json(data) if cls is Scores else from_plain(cls, data)  # pyright: ignore


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as parquet, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(row) for row in rows])
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote, in the same order."""
    import pyarrow.parquet as pq

    records = pq.read_table(path).to_pylist()
    return [Row(**{**record, "sums": tuple(record["sums"])}) for record in records]
