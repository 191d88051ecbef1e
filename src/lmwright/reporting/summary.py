"""What the numbers say, in plain sentences. Every claim is a verdict; none is added."""

import re
from dataclasses import dataclass

from lmwright.core import figures
from lmwright.core.decision import GateResult
from lmwright.core.results import Comparison, MetricSpec, Scores
from lmwright.reporting.collect import RunReport, TrainingOutcome


@dataclass(frozen=True)
class Finding:
    """What is to be said about one model: the news, and what stayed as it was."""

    model: str
    text: str
    rest: str = ""


def verdicts(report: RunReport) -> list[Finding]:
    """Say in a line for each gate whether its model may ship, and what stands against it."""
    return [_gate(gate) for gate in report.gates]


def summarise(report: RunReport) -> list[Finding]:
    """Tell what each step brought and cost."""
    found = [
        finding
        for model in report.models
        # A model whose origin was not measured is held against the first one.
        if (origin := report.origin(model)) != model and (finding := compare(report, model, origin))
    ]
    return found or _alone(report.scores)


def training_line(found: TrainingOutcome) -> str:
    """Tell in one line how a training step went, as far as it says."""
    parts = [
        (found.n_steps, "{:,} steps"),
        (found.n_tokens, "{:,} tokens"),
        (found.n_trained_parameters, "{:,} trained parameters"),
        (found.tokens_per_second, "{:,.0f} tokens/s"),
        (found.best_validation_loss, "best validation loss {:.3f}"),
        (found.best_step, "after step {:,}"),
    ]
    told = [text.format(value) for value, text in parts if value is not None]
    return ", ".join(told).replace(", after", " after")


def compare(report: RunReport, model: str, parent: str) -> Finding | None:
    """Tell what changed between a model and another one, such as what it was made from."""
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
    is_made_so = step is not None and parent in step.parents
    subject = f"{step.title if step and is_made_so else 'Going from'} {parent} to {model}"
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
    against = [f'"{rule.rule}" ({rule.outcome})' for rule in gate.rules if not rule.passed]
    if not against:
        count = "its only rule holds" if n_rules == 1 else f"all {n_rules} rules hold"
        return Finding(gate.model, f"{gate.model} may ship: {count}.")
    verb = "does" if len(against) == 1 else "do"
    what = f"{len(against)} of {n_rules} rules {verb} not hold, {_listed(against)}"
    return Finding(gate.model, f"{gate.model} may not ship: {what}.")
