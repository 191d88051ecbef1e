"""What the numbers say, in plain sentences. Every claim is a verdict; none is added."""

import re
from dataclasses import dataclass

from lmwright.core import figures
from lmwright.core.decision import GateResult
from lmwright.core.results import Comparison, MetricSpec, Scores
from lmwright.reporting.collect import RunReport


@dataclass(frozen=True)
class Finding:
    """What is to be said about one model: the news, and what stayed as it was."""

    model: str
    text: str
    rest: str = ""


def summarise(report: RunReport) -> list[Finding]:
    """Tell what each step brought and cost, and what the gates said."""
    found = [
        finding
        for model in report.models
        # A model whose origin was not measured is held against the first one.
        if (origin := report.origin(model)) != model and (finding := _step(report, model, origin))
    ]
    return [*(found or _alone(report.scores)), *map(_gate, report.gates)]


def _step(report: RunReport, model: str, parent: str) -> Finding | None:
    """Tell what happened between a model and what it was made from."""
    scores, by_verdict = report.scores, dict[str, list[tuple[MetricSpec, Comparison]]]()
    for spec in scores.specs:
        if found := scores.comparison(spec.name, model, baseline=parent):
            by_verdict.setdefault(found.verdict, []).append((spec, found))
    if not by_verdict:
        return None
    news = [
        f"{verb} {_listed([_told(scores, *each) for each in by_verdict[verdict]])}"
        for verdict, verb in (("better", "improved"), ("worse", "worsened"))
        if verdict in by_verdict
    ]
    step = report.step(model)
    subject = f"{step.title if step else 'Going from'} {parent} to {model}"
    text = ", but ".join(news) or "made nothing measurably better or worse"
    titles = {v: [_title(spec) for spec, _ in found] for v, found in by_verdict.items()}
    return Finding(model, f"{subject}{_size(scores, model, parent)} {text}.", _rest(titles))


def _rest(titles: dict[str, list[str]]) -> str:
    same, unclear = titles.get("equivalent", []), titles.get("cannot tell", [])
    parts = []
    if same:
        margins = "its margin" if len(same) == 1 else "their margins"
        parts.append(f"{_listed(same)} stayed the same within {margins}")
    if unclear:
        parts.append(f"for {_listed(unclear)} the items were too few to tell")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _size(scores: Scores, model: str, parent: str) -> str:
    size, base = (scores.exact("size_bytes", name) for name in (model, parent))
    if size is None or base is None:
        return ""
    return f" ({figures.figure(base, 'bytes')} to {figures.figure(size, 'bytes')})"


def _told(scores: Scores, spec: MetricSpec, found: Comparison) -> str:
    """Tell one change from value to value."""
    before, after = (scores.metrics[m][spec.name].value for m in (found.baseline, found.model))
    how = figures.scale(spec.unit, max(abs(before), abs(after)))
    return f"{_title(spec)} ({how.span(before, after)})"


def _title(spec: MetricSpec) -> str:
    """Return a metric's title as it stands inside a sentence: without what a comma adds.

    Acronyms stay as they are.
    """
    title = re.split(r"[,(]", spec.title)[0].strip() or spec.title
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _alone(scores: Scores) -> list[Finding]:
    model = scores.models[0]
    told = [
        f"{_title(spec)} {figures.figure(found.value, spec.unit)}"
        for spec in scores.specs
        if (found := scores.metric(spec.name, model))
    ]
    return [Finding(model, f"{model} was measured alone: {_listed(told)}.")] if told else []


def _gate(gate: GateResult) -> Finding:
    n_rules = len(gate.rules)
    failed = [f'"{rule.rule}"' for rule in gate.rules if not rule.passed]
    if not failed:
        count = "its only rule holds" if n_rules == 1 else f"all {n_rules} rules hold"
        return Finding(gate.model, f"The gate let {gate.model} through: {count}.")
    what = f"{len(failed)} of {n_rules} rules failed, {_listed(failed)}"
    return Finding(gate.model, f"The gate said no to {gate.model}: {what}.")
