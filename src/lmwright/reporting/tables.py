"""The tables of the page as plain values: what a cell says and why, before any markup."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from lmwright.core import figures
from lmwright.core.results import EXACT, HEADINGS, Comparison, Metric, MetricSpec, Scores
from lmwright.reporting.collect import ComparedItem, RunReport

SHOWN = {"better": "better", "worse": "worse", "equivalent": "same", "cannot tell": "cannot tell"}


@dataclass(frozen=True)
class VerdictBadge:
    """A verdict against another model."""

    kind: str
    text: str
    against: str
    change: str
    # The same without its unit, where the unit stands beside it already.
    short: str
    tip: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A model's value of a metric."""

    model: str
    value: str
    interval: str = ""
    is_best: bool = False
    badges: tuple[VerdictBadge, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A metric or exact figure under every model."""

    spec: MetricSpec
    unit: str
    n: str
    detectable: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FlipCount:
    """How many items of a right/wrong metric changed sides between two models."""

    title: str
    comparison: Comparison
    lost: int
    won: int


@dataclass(frozen=True)
class SliceLine:
    """A part of a metric: its n, and the value with its interval under every model."""

    name: str
    n: str
    cells: tuple[tuple[str, str], ...]


def side_by_side(report: RunReport) -> dict[str, list[Line]]:
    """Return the lines of the main table by heading."""
    scores = report.scores
    known = [s for s in EXACT.values() if any(_values(scores, s).values())]
    lines = {
        heading: [_line(report, s) for s in (*scores.specs, *known) if s.heading == heading]
        for heading in HEADINGS
    }
    return {heading: found for heading, found in lines.items() if found}


def _values(scores: Scores, spec: MetricSpec) -> dict[str, float]:
    """Return the value of each model that has one."""
    values = {model: scores.value(spec.name, model) for model in scores.models}
    return {model: value for model, value in values.items() if value is not None}


def _line(report: RunReport, spec: MetricSpec) -> Line:
    scores, values = report.scores, _values(report.scores, spec)
    best = _best(values, spec.higher_is_better)
    largest = max(map(abs, values.values()), default=0.0)
    how = figures.scale(spec.unit, largest)
    counts = sorted({found.n for m in values if (found := scores.metric(spec.name, m))})
    detectable = scores.detectable.get(spec.name)
    cell = _exact_cell if spec.kind == "exact" else _cell
    return Line(
        spec,
        unit=how.unit,
        n=_count(counts, spec.items),
        detectable=figures.difference(spec.unit, largest).figure(detectable).lstrip("+")
        if detectable
        else "",
        cells=tuple(
            cell(report, spec, model, how=how, is_best=model in best)
            if model in values
            else Cell(model, "not measured", note=scores.why_absent(spec.name, model))
            for model in report.models
        ),
    )


def _count(counts: list[int], items: str) -> str:
    """Write n, or its range where the models were asked differently often."""
    if not counts:
        return ""
    ends = dict.fromkeys([counts[0], counts[-1]])
    return f"{' to '.join(figures.count(n) for n in ends)} {items}"


def _best(values: dict[str, float], higher_is_better: bool) -> set[str]:
    """Return who has the best value, or nobody where all have the same."""
    if len(set(values.values())) < 2:
        return set()
    best = (max if higher_is_better else min)(values.values())
    return {model for model, value in values.items() if value == best}


def _cell(
    report: RunReport, spec: MetricSpec, model: str, *, how: figures.Scale, is_best: bool
) -> Cell:
    scores = report.scores
    found = scores.metrics[model][spec.name]
    value, low, high = (
        figures.number(end * how.factor, how.digits) for end in (found.value, found.low, found.high)
    )
    # Held against the first one, then against what it was made from.
    baselines = dict.fromkeys([report.models[0], *scores.parents.get(model, ())])
    badges = tuple(
        badge(scores, pair)
        for baseline in baselines
        if (pair := scores.comparison(spec.name, model, baseline=baseline))
    )
    return Cell(model, value, f"{low} to {high}", is_best, badges)


def _exact_cell(
    report: RunReport, spec: MetricSpec, model: str, *, how: figures.Scale, is_best: bool
) -> Cell:
    origin = report.origin(model)
    value, base = (report.scores.exact(spec.name, name) for name in (model, origin))
    assert value is not None
    is_change = origin != model and base
    note = f"{figures.RELATIVE.figure(value / base - 1)} vs {origin}" if is_change and base else ""
    text = figures.number(value * how.factor, how.digits if how.factor < 1 else 1)
    return Cell(model, text, is_best=is_best, note=note)


def badge(scores: Scores, pair: Comparison) -> VerdictBadge:
    """Return the verdict of a comparison with its evidence as a tooltip."""
    spec = scores.spec(pair.metric)
    assert spec is not None
    values = [scores.value(pair.metric, who) or 0.0 for who in (pair.model, pair.baseline)]
    how = figures.difference(spec.unit, max(map(abs, values)))
    change, ends = how.figure(pair.delta), how.span(pair.low, pair.high)
    margin = how.figure(pair.margin).lstrip("+")
    tip = (
        f"{pair.model} against {pair.baseline}: {change}, 95 % interval {ends}, "
        f"n = {pair.n} {spec.items}, p = {pair.p:.2g} ({pair.p_holm:.2g} after Holm); "
        f"within {margin} counts as the same"
    )
    note = f"needs about {figures.about(pair.n_needed)} {spec.items}" if pair.n_needed else ""
    text = SHOWN[pair.verdict]
    return VerdictBadge(
        text.replace(" ", "-"), text, pair.baseline, change, change.split(" ")[0], tip, note
    )


def pairs(scores: Scores) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (model, baseline): what each step did, then the other comparisons."""
    found = list(dict.fromkeys((each.model, each.baseline) for each in scores.comparisons))
    found.sort(key=lambda pair: tuple(map(scores.models.index, pair)))
    made = [pair for pair in found if pair[1] in scores.parents.get(pair[0], ())] or found
    return made, [pair for pair in found if pair not in made]


def choose(items: Iterable[ComparedItem], n: int) -> list[ComparedItem]:
    """Choose `n` items, flips first, each pattern of right and wrong in turn."""
    chosen: list[ComparedItem] = []
    by_flip: dict[bool, dict[tuple[bool | None, ...], list[ComparedItem]]] = {True: {}, False: {}}
    for item in items:
        pattern = tuple(answer.is_right for answer in item.answers)
        by_flip[item.flips].setdefault(pattern, []).append(item)
    for patterns in by_flip.values():
        ordered = sorted(patterns.values(), key=len, reverse=True)
        # The first of each pattern, the second of each, ...
        turns = zip_longest(*ordered)
        chosen += [item for turn in turns for item in turn if item is not None]
    return chosen[:n]


def flips(scores: Scores) -> list[FlipCount]:
    """Return, for each right/wrong metric and pair, how many items changed sides."""
    made, others = pairs(scores)
    return [
        FlipCount(spec.title, found, *found.flips)
        for spec in scores.specs
        for model, baseline in [*made, *others]
        if (found := scores.comparison(spec.name, model, baseline=baseline)) and found.flips
    ]


def slices(scores: Scores) -> list[tuple[str, list[SliceLine]]]:
    """Return the parts of each metric that has some, by its title."""
    found = []
    for spec in scores.specs:
        metrics = [scores.metric(spec.name, model) for model in scores.models]
        parts = [metric.slices if metric else {} for metric in metrics]
        lines = [
            SliceLine(
                name,
                n=figures.count(max(part[name].n for part in parts if name in part)),
                cells=tuple(_slice(part.get(name)) for part in parts),
            )
            for name in dict.fromkeys(name for part in parts for name in part)
        ]
        if lines:
            found.append((spec.title, lines))
    return found


def _slice(metric: Metric | None) -> tuple[str, str]:
    if metric is None:
        return "not measured", ""
    value = figures.figure(metric.value, metric.unit)
    return value, figures.span(metric.low, metric.high, metric.unit)


def right_counts(items: Iterable[ComparedItem]) -> dict[str, int]:
    """Count how many of the items each model got right."""
    return dict(
        Counter(answer.model for item in items for answer in item.answers if answer.is_right)
    )
