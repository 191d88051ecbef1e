"""The tables of the page as plain values: what a cell says and why, before any markup."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest

from lmwright.core import figures
from lmwright.core.decision import RuleResult
from lmwright.core.results import (
    EXACT,
    HEADINGS,
    MARKS,
    Comparison,
    Metric,
    MetricSpec,
    Scores,
)
from lmwright.reporting.collect import ComparedItem, RunReport


@dataclass(frozen=True)
class VerdictBadge:
    """A verdict against another model."""

    text: str
    against: str
    change: str
    interval: str
    tip: str
    note: str


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


def side_by_side(report: RunReport) -> dict[str, list[Line]]:
    """Return the lines of the main table by heading."""
    scores = report.scores
    shown = [*scores.specs, *filter(scores.has, EXACT.values())]
    lines = {
        heading: [_line(report, spec) for spec in shown if spec.heading == heading]
        for heading in HEADINGS
    }
    return {heading: found for heading, found in lines.items() if found}


def _line(report: RunReport, spec: MetricSpec) -> Line:
    scores = report.scores
    values = {model: scores.value(spec.name, model) for model in report.models}
    known = [value for value in values.values() if value is not None]
    best = (max if spec.higher_is_better else min)(known, default=None)
    largest = max(map(abs, known), default=0.0)
    how = figures.scale(spec.unit, largest)
    if spec.kind == "exact" and how.factor == 1:
        how = replace(how, digits=1)
    counts = sorted({found.n for m in report.models if (found := scores.metric(spec.name, m))})
    smallest = scores.detectable.get(spec.name)
    return Line(
        spec,
        unit=how.unit,
        n=_count(counts, spec.items),
        detectable=figures.difference(spec.unit, largest).figure(smallest).lstrip("+")
        if smallest
        else "",
        cells=tuple(
            # Nobody is best where all have the same.
            _cell(report, spec, model, how=how, is_best=value == best and len(set(known)) > 1)
            for model, value in values.items()
        ),
    )


def _count(counts: list[int], items: str) -> str:
    """Write n, or its range where the models were asked differently often."""
    if not counts:
        return ""
    ends = dict.fromkeys([counts[0], counts[-1]])
    return f"{' to '.join(figures.count(n) for n in ends)} {items}"


def _cell(
    report: RunReport, spec: MetricSpec, model: str, *, how: figures.Scale, is_best: bool
) -> Cell:
    scores, origin = report.scores, report.origin(model)
    value, base = (scores.value(spec.name, name) for name in (model, origin))
    if value is None:
        return Cell(model, "not measured", note=scores.why_absent(spec.name, model))
    found = scores.metric(spec.name, model)
    if found is None:
        note = figures.RELATIVE.figure(value / base - 1) if base and origin != model else ""
        note = f"{note} vs {origin}" if note else ""
        return Cell(model, how.number(value), is_best=is_best, note=note)
    # Held against the first one, then against what it was made from.
    baselines = dict.fromkeys([report.models[0], *scores.parents.get(model, ())])
    pairs = [scores.comparison(spec.name, model, baseline=baseline) for baseline in baselines]
    interval = f"{how.number(found.low)} to {how.number(found.high)}"
    badges = tuple(badge(scores, pair) for pair in pairs if pair)
    return Cell(model, how.number(value), interval, is_best, badges)


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
    interval = f"{how.number(pair.low)} to {how.number(pair.high)}"
    return VerdictBadge(MARKS[pair.verdict].lower(), pair.baseline, change, interval, tip, note)


def pairs(scores: Scores) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (model, baseline): what each step did, then the other comparisons."""
    found = list(dict.fromkeys((each.model, each.baseline) for each in scores.comparisons))
    found.sort(key=lambda pair: tuple(map(scores.models.index, pair)))
    made = [pair for pair in found if pair[1] in scores.parents.get(pair[0], ())] or found
    return made, [pair for pair in found if pair not in made]


def choose(items: Iterable[ComparedItem], n: int) -> list[ComparedItem]:
    """Choose `n` items, flips first, each pattern of right and wrong in turn."""
    by_pattern: dict[tuple[bool | None, ...], list[ComparedItem]] = {}
    for item in items:
        by_pattern.setdefault(tuple(answer.is_right for answer in item.answers), []).append(item)
    ordered = sorted(by_pattern.values(), key=len, reverse=True)
    # The first of each pattern, the second of each, ...
    turns = [item for turn in zip_longest(*ordered) for item in turn if item is not None]
    return sorted(turns, key=lambda item: not item.flips)[:n]


@dataclass(frozen=True)
class WrongAnswers:
    """What a model got wrong of a right/wrong metric, up to a limit."""

    model: str
    spec: MetricSpec
    n_items: int
    n_wrong: int
    # The question, what would have been right, and what was said.
    shown: tuple[tuple[str, str, str], ...]


def wrong_answers(report: RunReport, model: str, *, limit: int) -> list[WrongAnswers]:
    """Return what a model got wrong, by metric; only of those where a reply is right or wrong."""
    found = []
    for spec in report.scores.specs:
        answers = [
            (item, answer)
            for item in report.items
            if item.metric == spec.name
            for answer in item.answers
            if answer.model == model and answer.is_right is not None
        ]
        wrong = [(i.question, i.expected, a.text) for i, a in answers if not a.is_right]
        if answers:
            shown = tuple(wrong[:limit])
            found.append(WrongAnswers(model, spec, len(answers), len(wrong), shown))
    return found


@dataclass(frozen=True)
class RuleNumbers:
    """What a rule looked at, as it is written beside its bar."""

    value: str
    interval: str
    limit: str


def rule_numbers(rule: RuleResult, scores: Scores) -> RuleNumbers | None:
    """Write the numbers of a rule in its own unit; None where nothing was measured."""
    spec = scores.spec(rule.metric)
    if spec is None or rule.value is None or rule.limit is None:
        return None
    ends = [end for end in (rule.low, rule.high) if end is not None]
    largest = max(map(abs, (rule.value, rule.limit, *ends)))
    how = figures.RELATIVE
    if rule.measure == "value":
        how = figures.scale(spec.unit, largest)
    elif rule.measure == "delta":
        how = figures.difference(spec.unit, largest)
    has_width = rule.n is not None and len(ends) == 2
    interval = " to ".join(map(how.number, ends)) if has_width else ""
    side = "at least" if rule.side == ">=" else "at most"
    return RuleNumbers(how.figure(rule.value), interval, f"{side} {how.number(rule.limit)}")


def flips(scores: Scores) -> list[tuple[MetricSpec, Comparison]]:
    """Return the comparisons of each right/wrong metric."""
    made, others = pairs(scores)
    return [
        (spec, found)
        for spec in scores.specs
        for model, baseline in [*made, *others]
        if (found := scores.comparison(spec.name, model, baseline=baseline)) and found.flips
    ]


def slices(scores: Scores) -> list[tuple[MetricSpec, dict[str, list[Metric | None]]]]:
    """Return the parts of each metric that has some: by name, one for each model."""
    found = []
    for spec in scores.specs:
        metrics = [scores.metric(spec.name, model) for model in scores.models]
        parts = [metric.slices if metric else {} for metric in metrics]
        names = dict.fromkeys(name for part in parts for name in part)
        if names:
            found.append((spec, {name: [part.get(name) for part in parts] for name in names}))
    return found
