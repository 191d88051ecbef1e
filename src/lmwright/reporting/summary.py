"""What the numbers say, in plain sentences. Every claim is a verdict; none is added."""

import re
from dataclasses import dataclass
from typing import Any

from lmwright.core import figures
from lmwright.reporting.collect import Story


@dataclass(frozen=True)
class Saying:
    """What is to be said about one model: the news, and what stayed as it was."""

    model: str
    text: str
    rest: str = ""


def summarise(story: Story) -> list[Saying]:
    """Tell what each step brought and cost, and what the gate said."""
    first = story.models[0]
    # A model whose origin was not measured is held against the first one.
    origins = {
        model: parent if (parent := story.parents.get(model)) in story.models else first
        for model in story.models
    }
    sayings = [
        saying
        for model, origin in origins.items()
        if model != origin and (saying := _step(story, model, str(origin)))
    ]
    return [*(sayings or _alone(story)), *_gate(story)]


def _step(story: Story, model: str, parent: str) -> Saying | None:
    """Tell what happened between a model and what it was made from."""
    pairs = [
        pair
        for metric in story.evaluation["tasks"]
        if (pair := story.comparison(metric, model=model, baseline=parent))
    ]
    if not pairs:
        return None
    by_verdict: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs:
        by_verdict.setdefault(pair["verdict"], []).append(pair)
    better, worse = by_verdict.get("better", []), by_verdict.get("worse", [])
    subject = f"{_verb(story, model)} {parent} to {model}{_size(story, model, parent)}"
    gains = f"improved {_listed([_told(story, pair) for pair in better])}" if better else ""
    costs = f"worsened {_listed([_told(story, pair) for pair in worse])}" if worse else ""
    news = ", but ".join(filter(None, [gains, costs])) or "made nothing measurably better or worse"
    return Saying(model, f"{subject} {news}.", _rest(story, by_verdict))


def _rest(story: Story, by_verdict: dict[str, list[dict[str, Any]]]) -> str:
    same = [_title(story, pair["metric"]) for pair in by_verdict.get("equivalent", [])]
    unclear = [_title(story, pair["metric"]) for pair in by_verdict.get("cannot tell", [])]
    parts = []
    if same:
        parts.append(f"{_listed(same)} stayed the same within {_margins(same)}")
    if unclear:
        parts.append(f"for {_listed(unclear)} the items were too few to tell")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _margins(titles: list[str]) -> str:
    return "its margin" if len(titles) == 1 else "their margins"


def _verb(story: Story, model: str) -> str:
    stages = {step.name: step.stage for step in story.steps}
    return {"finetune": "Fine-tuning", "compress": "Compressing"}.get(
        stages.get(model, ""), "Going from"
    )


def _size(story: Story, model: str, parent: str) -> str:
    facts = story.evaluation.get("facts_of_models", {})
    try:
        size, base = facts[model]["size_bytes"], facts[parent]["size_bytes"]
    except KeyError:
        return ""
    return f" ({figures.figure(base, 'bytes')} to {figures.figure(size, 'bytes')})"


def _told(story: Story, pair: dict[str, Any]) -> str:
    """Tell one change from value to value, where both are there."""
    metric, metrics = pair["metric"], story.evaluation["metrics"]
    unit = figures.unit_of(story.evaluation["tasks"][metric])
    before = metrics[pair["baseline"]][metric]["value"]
    after = metrics[pair["model"]][metric]["value"]
    how = figures.scale(unit, max(abs(before), abs(after)))
    start, end = (figures.number(value * how.factor, how.digits) for value in (before, after))
    return f"{_title(story, metric)} ({start} to {end} {how.unit}".rstrip() + ")"


def _title(story: Story, metric: str) -> str:
    """Return a metric's title as it stands inside a sentence: without what a comma adds.

    Acronyms stay as they are.
    """
    title = str(story.evaluation["tasks"][metric].get("title") or metric)
    title = re.split(r"[,(]", title)[0].strip() or title
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _alone(story: Story) -> list[Saying]:
    told, model = [], story.models[0]
    for name, metric in story.evaluation["metrics"].get(model, {}).items():
        unit = figures.unit_of(story.evaluation["tasks"][name])
        told.append(f"{_title(story, name)} {figures.figure(metric['value'], unit)}")
    return [Saying(model, f"{model} was measured alone: {_listed(told)}.")] if told else []


def _gate(story: Story) -> list[Saying]:
    if story.gate is None:
        return []
    rules, model = story.gate["rules"], story.gate["model"]
    failed = [rule for rule in rules if not rule["passed"]]
    if not failed:
        count = "its only rule holds" if len(rules) == 1 else f"all {len(rules)} rules hold"
        return [Saying(model, f"The gate let {model} through: {count}.")]
    named = _listed([f'"{rule["rule"]}"' for rule in failed])
    what = f"{len(failed)} of {len(rules)} rules failed, {named}"
    return [Saying(model, f"The gate said no to {model}: {what}.")]
