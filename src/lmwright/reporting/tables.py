"""The tables of the page as plain values: what a cell says and why, before any markup."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lmwright.core import figures
from lmwright.reporting.collect import Sample, Story

# Which words in a metric's name put it under which heading; the first that fits.
HEADINGS: dict[str, tuple[str, ...]] = {
    "Speed": ("per_s", "seconds"),
    "Fairness and safety": ("gap", "bias", "refus", "toxic"),
    "Quality": ("",),
}
ORDER = ("Quality", "Fairness and safety", "Speed", "Size and memory")

SHOWN = {"better": "better", "worse": "worse", "equivalent": "same", "cannot tell": "cannot tell"}


@dataclass(frozen=True)
class Chip:
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
    interval: str
    is_best: bool
    chips: tuple[Chip, ...]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A metric under every model."""

    metric: str
    title: str
    unit: str
    direction: str
    n: str
    detectable: str
    caveat: str
    cells: tuple[Cell, ...]


def side_by_side(story: Story) -> dict[str, list[Line]]:
    """Return the lines of the main table by heading."""
    lines: dict[str, list[Line]] = {heading: [] for heading in ORDER}
    for metric in story.evaluation["tasks"]:
        lines[heading(metric)].append(_line(story, metric))
    lines["Size and memory"] = list(_size_lines(story))
    return {name: found for name, found in lines.items() if found}


def heading(metric: str) -> str:
    """Return the heading that a metric stands under."""
    return next(name for name, words in HEADINGS.items() if any(word in metric for word in words))


def _line(story: Story, metric: str) -> Line:
    task = story.evaluation["tasks"][metric]
    unit = figures.unit_of(task)
    values = {
        model: found
        for model in story.models
        if (found := story.evaluation["metrics"].get(model, {}).get(metric))
    }
    best = _best({model: m["value"] for model, m in values.items()}, task["higher_is_better"])
    largest = max((abs(m["value"]) for m in values.values()), default=0.0)
    how = figures.scale(unit, largest)
    counts = sorted({m["n"] for m in values.values()})
    detectable = story.evaluation.get("detectable", {}).get(metric)
    return Line(
        metric=metric,
        title=str(task.get("title") or metric),
        unit=how.unit,
        direction="higher is better" if task["higher_is_better"] else "lower is better",
        n=_count(counts, figures.items_of(task)),
        detectable=figures.change(detectable, unit, like=largest).lstrip("+") if detectable else "",
        caveat=str(task.get("caveat") or ""),
        cells=tuple(
            _cell(story, metric, model, values.get(model), how=how, is_best=model in best)
            for model in story.models
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
    story: Story,
    metric: str,
    model: str,
    found: dict[str, Any] | None,
    *,
    how: figures.Scale,
    is_best: bool,
) -> Cell:
    if found is None:
        return Cell(model, "not measured", "", False, (), note=story.why_absent(metric, model))
    value, low, high = (
        figures.number(found[key] * how.factor, how.digits) for key in ("value", "low", "high")
    )
    chips = tuple(
        chip(story, pair)
        for baseline in _baselines(story, model)
        if (pair := story.comparison(metric, model=model, baseline=baseline))
    )
    return Cell(model, value, f"{low} to {high}", is_best, chips)


def _baselines(story: Story, model: str) -> list[str]:
    """Return what a model is held against: the first one, then what it was made from."""
    names = [story.models[0], story.parents.get(model, "")]
    return [name for name in dict.fromkeys(names) if name and name != model]


def chip(story: Story, pair: dict[str, Any]) -> Chip:
    """Return the verdict of a comparison with its evidence as a tooltip."""
    task, metrics = story.evaluation["tasks"][pair["metric"]], story.evaluation["metrics"]
    unit, items = figures.unit_of(task), figures.items_of(task)
    like = max(abs(metrics[pair[who]][pair["metric"]]["value"]) for who in ("model", "baseline"))
    change = figures.change(pair["delta"], unit, like=like)
    ends = figures.change_span(pair["low"], pair["high"], unit, like=like)
    margin = figures.change(pair["margin"], unit, like=like).lstrip("+")
    tip = (
        f"{pair['model']} against {pair['baseline']}: {change}, 95 % interval {ends}, "
        f"n = {pair['n']} {items}, p = {pair['p']:.2g} ({pair['p_holm']:.2g} after Holm); "
        f"within {margin} counts as the same"
    )
    note = f"needs about {figures.about(pair['n_needed'])} {items}" if pair["n_needed"] else ""
    kind = SHOWN[pair["verdict"]]
    return Chip(
        kind.replace(" ", "-"), kind, pair["baseline"], change, change.split(" ")[0], tip, note
    )


def _size_lines(story: Story) -> Iterator[Line]:
    facts = story.evaluation.get("facts_of_models", {})
    for key, title, unit in (
        ("size_bytes", "Size on disk", "bytes"),
        ("bits_per_weight", "Bits per weight", "bits"),
        ("peak_memory_bytes", "Peak memory of the process", "bytes"),
    ):
        values = {m: float(facts[m][key]) for m in story.models if key in facts.get(m, {})}
        if not values:
            continue
        how = figures.scale(unit, max(values.values()))
        best = _best(values, higher_is_better=False)
        cells = [
            _exact_cell(story, key, model, values=values, how=how, best=best)
            for model in story.models
        ]
        yield Line(key, title, how.unit, "lower is better", "", "", "", tuple(cells))


def _exact_cell(
    story: Story,
    key: str,
    model: str,
    *,
    values: dict[str, float],
    how: figures.Scale,
    best: set[str],
) -> Cell:
    if model not in values:
        return Cell(model, "not measured", "", False, (), note=story.why_absent(key, model))
    parent = story.parents.get(model) or story.models[0]
    note = ""
    if parent in values and parent != model and values[parent]:
        note = f"{figures.percent(values[model] / values[parent] - 1)} vs {parent}"
    text = figures.number(values[model] * how.factor, how.digits if how.factor < 1 else 1)
    return Cell(model, text, "", model in best, (), note)


def pairs(story: Story) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (model, baseline): what each step did, then the other comparisons."""
    all_pairs = list(
        dict.fromkeys((p["model"], p["baseline"]) for p in story.evaluation["comparisons"])
    )
    rank = {model: i for i, model in enumerate(story.models)}
    all_pairs.sort(key=lambda pair: (rank.get(pair[0], 0), rank.get(pair[1], 0)))
    made = [pair for pair in all_pairs if story.parents.get(pair[0]) == pair[1]]
    made = made or all_pairs
    return made, [pair for pair in all_pairs if pair not in made]


def choose(samples: Iterable[Sample], n: int) -> list[Sample]:
    """Choose `n` samples, flips first, each pattern of right and wrong in turn."""
    chosen: list[Sample] = []
    by_flip: dict[bool, dict[tuple[bool, ...], list[Sample]]] = {True: {}, False: {}}
    for sample in samples:
        pattern = tuple(answer.is_right for answer in sample.answers)
        by_flip[sample.flips].setdefault(pattern, []).append(sample)
    for patterns in by_flip.values():
        ordered = sorted(patterns.values(), key=len, reverse=True)
        # The first of each pattern, the second of each, ...
        turns = zip_longest(*ordered)
        chosen += [sample for turn in turns for sample in turn if sample is not None]
    return chosen[:n]


def flips(story: Story) -> list[dict[str, Any]]:
    """Return, for each right/wrong metric and pair, how many items changed sides."""
    made, others = pairs(story)
    found = []
    for metric, task in story.evaluation["tasks"].items():
        for model, baseline in [*made, *others]:
            pair = story.comparison(metric, model=model, baseline=baseline)
            if pair and pair["flips"] is not None:
                lost, won = pair["flips"]
                found.append(
                    {
                        "title": task.get("title") or metric,
                        "model": model,
                        "baseline": baseline,
                        "lost": lost,
                        "won": won,
                        "n": pair["n"],
                        "p": f"{pair['p_holm']:.2g}",
                    }
                )
    return found


def slices(story: Story) -> list[dict[str, Any]]:
    """Return the parts of each metric: (name, n, a value with its interval for each model)."""
    found = []
    for metric, task in story.evaluation["tasks"].items():
        parts = [
            story.evaluation["metrics"].get(model, {}).get(metric, {}).get("slices", {})
            for model in story.models
        ]
        lines = [
            {
                "name": name,
                "n": figures.count(max(part[name]["n"] for part in parts if name in part)),
                "cells": [_slice(part.get(name)) for part in parts],
            }
            for name in dict.fromkeys(name for part in parts for name in part)
        ]
        if lines:
            found.append({"title": task.get("title") or metric, "lines": lines})
    return found


def _slice(metric: dict[str, Any] | None) -> tuple[str, str]:
    if metric is None:
        return "not measured", ""
    unit = metric.get("unit", "")
    return figures.figure(metric["value"], unit), figures.span(metric["low"], metric["high"], unit)


def right_counts(samples: Iterable[Sample]) -> dict[str, int]:
    """Count how many of the samples each model got right."""
    return dict(
        Counter(answer.model for sample in samples for answer in sample.answers if answer.is_right)
    )
