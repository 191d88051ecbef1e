"""The result of an evaluation: numbers, comparisons and the table that shows them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmwright.core.results import Comparison, Metric, Row
from lmwright.evaluation.selection import Suite
from lmwright.evaluation.statistics import Measure
from lmwright.hosted.usage import Usage

MARKS = {"better": "better", "worse": "WORSE", "equivalent": "same", "cannot tell": "cannot tell"}
STYLES = {"better": "green", "worse": "bold red", "equivalent": "dim", "cannot tell": "yellow"}


@dataclass(frozen=True)
class Scores:
    """Models side by side; `print(scores)` shows the table."""

    suite: Suite
    # In the order in which they were named: the first is the baseline.
    models: tuple[str, ...]
    parents: Mapping[str, str]
    # What each metric means, by its name.
    measures: Mapping[str, Measure]
    # model -> metric
    metrics: Mapping[str, Mapping[str, Metric]]
    comparisons: tuple[Comparison, ...]
    # The smallest change that each metric finds with 80 % power, in its own unit.
    detectable: Mapping[str, float]
    # Exact figures: size, bits per weight, memory, number format, the batch self-test.
    facts_of_models: Mapping[str, Mapping[str, Any]]
    # Metric -> why there is no number.
    not_measured: Mapping[str, str]
    # model -> metric or exact figure -> why just this model has no number.
    gaps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # model -> metric -> rows; stored beside, not in the JSON.
    rows: Mapping[str, Mapping[str, list[Row]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain data without the rows; `from_json` reads it back."""
        return {
            "suite": self.suite,
            "models": list(self.models),
            "parents": dict(self.parents),
            "tasks": {name: asdict(measure) for name, measure in self.measures.items()},
            # Files are written with their keys sorted; this is how people read them.
            "order": list(self.measures),
            "metrics": {
                model: {name: metric.to_json() for name, metric in metrics.items()}
                for model, metrics in self.metrics.items()
            },
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "detectable": dict(self.detectable),
            "facts_of_models": {name: dict(facts) for name, facts in self.facts_of_models.items()},
            "not_measured": dict(self.not_measured),
            "gaps": {name: dict(gaps) for name, gaps in self.gaps.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scores":
        """Read what `to_json` wrote, also as part of a larger result."""
        return cls(
            suite=data["suite"],
            models=tuple(data["models"]),
            parents=data["parents"],
            measures={name: Measure(**data["tasks"][name]) for name in data["order"]},
            metrics={
                model: {name: Metric.from_json(metric) for name, metric in metrics.items()}
                for model, metrics in data["metrics"].items()
            },
            comparisons=tuple(map(Comparison.from_json, data["comparisons"])),
            detectable=data["detectable"],
            facts_of_models=data["facts_of_models"],
            not_measured=data["not_measured"],
            gaps=data.get("gaps", {}),
        )

    def comparison(self, metric: str, model: str, *, baseline: str) -> Comparison | None:
        """Return the comparison of two models on a metric, where there is one."""
        key = (metric, model, baseline)
        return next((c for c in self.comparisons if (c.metric, c.model, c.baseline) == key), None)

    def table(self) -> Table:
        """Return the side-by-side table: value [low, high], and the verdict against the first."""
        table = Table(title=f"Evaluation ({self.suite})", title_justify="left")
        table.add_column("metric")
        for model in self.models:
            table.add_column(Text(model))
        for name, measure in self.measures.items():
            good = "higher" if measure.higher_is_better else "lower"
            cells = [self._cell(name, model) for model in self.models]
            table.add_row(Text(f"{measure.title}\n{good} is better"), *cells, end_section=True)
        for key, title in EXACT.items():
            if any(key in self.facts_of_models.get(model, {}) for model in self.models):
                table.add_row(title, *[self._exact(key, model) for model in self.models])
        # As Text: brackets are no markup here.
        table.caption = Text(self.footer())
        table.caption_justify = "left"
        return table

    def footer(self) -> str:
        """Return a line for each metric: n, the smallest change found, or why not measured."""
        lines = [f"[low, high] is a 95 % interval; verdicts against {self.models[0]}"]
        for name, measure in self.measures.items():
            smallest = difference_text(self.detectable[name], measure.unit)
            n = next(found[name].n for found in self.metrics.values() if name in found)
            what = "repeats" if measure.kind == "repeats" else "items"
            lines.append(f"{measure.title}: n = {n} {what}, finds changes from {smallest}")
        lines += [f"{name}: not measured, {why}" for name, why in self.not_measured.items()]
        for model in self.models:
            if usage := self.facts_of_models.get(model, {}).get("usage"):
                lines.append(f"{model}: {Usage(**usage)}")
        return "\n".join(lines)

    def _cell(self, metric: str, model: str) -> Text:
        found = self.metrics[model].get(metric)
        if found is None:
            return self._gap(metric, model)
        low, high = (value_text(end, found.unit) for end in (found.low, found.high))
        cell = Text(f"{value_text(found.value, found.unit)} [{low}, {high}]")
        comparison = self.comparison(metric, model, baseline=self.models[0])
        if comparison is not None:
            mark = MARKS[comparison.verdict]
            if comparison.n_needed is not None:
                mark += f": needs about {rounded(comparison.n_needed):,}"
            cell.append(f"\n{mark}", style=STYLES[comparison.verdict])
        return cell

    def _exact(self, key: str, model: str) -> Text:
        figure = self.facts_of_models.get(model, {}).get(key)
        if figure is None:
            return self._gap(key, model)
        is_bytes = key.endswith("_bytes")
        return Text(f"{figure / 1e6:,.0f} MB" if is_bytes else f"{figure:.2f}")

    def _gap(self, key: str, model: str) -> Text:
        reason = self.gaps.get(model, {}).get(key)
        return Text(f"not measured: {reason}" if reason else "not measured", style="dim")

    def __str__(self) -> str:
        # Wide enough for the longest cell, so that no line is broken.
        width = 40 + 34 * len(self.models)
        console = Console(file=StringIO(), width=width, color_system=None)
        console.print(self.table())
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()


EXACT = {
    "size_bytes": "Size on disk",
    "bits_per_weight": "Bits per weight",
    "peak_memory_bytes": "Peak memory of the process",
}


def value_text(value: float, unit: str) -> str:
    """Write a value for people: shares in percent, else three digits that count."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def difference_text(value: float, unit: str) -> str:
    """Write a difference: of shares in points, else with the unit."""
    if unit == "share":
        return f"{100 * value:.1f} points"
    return f"{value_text(value, unit)} {unit}".strip()


def rounded(n: int) -> int:
    """Round a number of items up to two digits: "about 1,234" claims too much."""
    step = 10 ** max(0, len(str(n)) - 2)
    return -(-n // step) * step
