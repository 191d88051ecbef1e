"""`report.html`: one file that needs nothing but a browser, light and dark, screen and paper."""

from lmwright.core import figures
from lmwright.core.decision import RuleResult
from lmwright.core.results import MetricSpec
from lmwright.reporting import charts, tables
from lmwright.reporting.collect import ComparedItem, RunReport
from lmwright.reporting.environment import template
from lmwright.reporting.steps import Provenance
from lmwright.reporting.summary import summarise, training_line, verdicts

# How far the chart of changes reaches, in margins; beyond it an arrow points on.
REACH = 4.0
# Items shown of the first metric that has some, and of each further one.
SHOWN = (6, 4)

# What is known of models beside what was measured: key, title, how it is written.
FACTS = (
    ("n_params", "Parameters", figures.count),
    ("context_length", "Context (tokens)", figures.count),
    ("quality_dtype", "Quality measured in", str),
    ("speed_dtype", "Speed measured in", str),
    ("device", "Device", str),
)

# Wrong answers listed of each metric; the rest is in the rows.
MAX_WRONG = 200


def render(report: RunReport) -> str:
    """Return the page. Everything that comes from data is escaped."""
    scores = report.scores
    made, others = tables.pairs(scores)
    noted = {spec.name: spec.caveat for spec in scores.specs if spec.caveat}
    # Metrics of one task share a footnote.
    footnotes = list(dict.fromkeys(noted.values()))
    return template("report.html.jinja").render(
        report=report,
        scores=scores,
        lineage=report.lineage,
        version=report.lineage.versions.get("lmwright", ""),
        footnotes=footnotes,
        caveats={name: footnotes.index(text) + 1 for name, text in noted.items()},
        colours={model: i % 6 for i, model in enumerate(report.models)},
        verdicts=list(zip(verdicts(report), report.gates, strict=True)),
        summary=summarise(report),
        notes=[(step.name, note) for step in report.steps for note in step.notes],
        lines=tables.side_by_side(report),
        gates=[
            (gate, [(r, _rule_bar(r), tables.rule_numbers(r, scores)) for r in gate.rules])
            for gate in report.gates
        ],
        trade_off=_trade_off(report),
        facts=_facts(report),
        changes_made=[(*pair, _changes(report, *pair)) for pair in made],
        other_changes=[(*pair, _changes(report, *pair)) for pair in others],
        losses=[(loss, charts.loss_curve(loss)) for loss in report.losses],
        training=[
            (step, training_line(report.outcomes[step.name]), report.outcomes[step.name])
            for step in report.steps
            if step.name in report.outcomes
        ],
        groups=_groups(report),
        wrong=[
            tables.wrong_answers(report, model, limit=MAX_WRONG)
            for model in dict.fromkeys(gate.model for gate in report.gates) or report.models[-1:]
        ],
        flips=tables.flips(scores),
        slices=tables.slices(scores),
        environment=_environment(report.lineage),
        reach=REACH,
    )


def _rule_bar(rule: RuleResult) -> str:
    """Draw the interval of a rule against what the rule allows."""
    value, low, high, limit = rule.value, rule.low, rule.high, rule.limit
    if value is None or low is None or high is None or limit is None:
        return ""
    start, end = min(low, limit), max(high, limit)
    pad = 0.25 * (end - start) or abs(limit) or 1.0
    extent = (start - pad, end + pad)
    return charts.interval_bar(
        value,
        low,
        high,
        extent=extent,
        band=(extent[0], limit) if rule.side == "<=" else (limit, extent[1]),
        mark=limit,
        style="good" if rule.passed else "bad",
        tip=rule.evidence,
    )


def _trade_off(report: RunReport) -> str:
    """Draw quality over size, or nothing where sizes are missing."""
    scores = report.scores
    by_role = {spec.role: spec for spec in reversed(scores.specs)}
    quality = by_role.get("quality", scores.specs[0])
    points = []
    for i, model in enumerate(report.models):
        found, size = scores.metric(quality.name, model), scores.exact("size_bytes", model)
        if found is None or size is None:
            continue
        speed = scores.value(by_role["speed"].name, model) if "speed" in by_role else None
        note = figures.figure(size, "bytes")
        points.append(
            charts.Bubble(
                name=model,
                colour=i % 6,
                x=size,
                y=found.value,
                low=found.low,
                high=found.high,
                speed=speed,
                note=note if speed is None else f"{note}, {speed:.0f} tok/s",
            )
        )
    return charts.bubbles(points, y_title=quality.title, y_unit=quality.unit) if points else ""


def _facts(report: RunReport) -> list[tuple[str, list[str]]]:
    """Return what is known of the models beside what was measured: (title, a text for each)."""
    scores, models = report.scores, report.models
    facts = [scores.facts_of_models.get(model, {}) for model in models]
    known = [
        (title, [write(each[key]) if key in each else "" for each in facts])
        for key, title, write in FACTS
    ]
    usage = ("Asked over the network", [scores.usage.get(model, "") for model in models])
    return [(title, texts) for title, texts in (*known, usage) if any(texts)]


def _changes(
    report: RunReport, model: str, baseline: str
) -> list[tuple[MetricSpec, str, tables.VerdictBadge]]:
    """Return every metric's change, drawn in units of its margin, good to the right."""
    changes = []
    for spec in report.scores.specs:
        pair = report.scores.comparison(spec.name, model, baseline=baseline)
        if pair is None:
            continue
        badge = tables.badge(report.scores, pair)
        # A metric without a margin is drawn on its own scale: its interval decides the reach.
        unit = pair.margin or max(abs(pair.low), abs(pair.high), 1e-12) / REACH
        sign = 1 if spec.higher_is_better else -1
        low, high = sorted((sign * pair.low / unit, sign * pair.high / unit))
        bar = charts.interval_bar(
            sign * pair.delta / unit,
            low,
            high,
            extent=(-REACH, REACH),
            band=(-1.0, 1.0) if pair.margin else None,
            mark=0.0,
            style=badge.text.replace(" ", "-"),
            tip=badge.tip,
        )
        changes.append((spec, bar, badge))
    return changes


def _groups(report: RunReport) -> list[tuple[MetricSpec, list[ComparedItem], list[ComparedItem]]]:
    """Return the items that people may read, by metric: all of them, and those that are shown."""
    groups = []
    for spec in report.scores.specs:
        items = [item for item in report.items if item.metric == spec.name]
        if items:
            groups.append((spec, items, tables.choose(items, SHOWN[min(len(groups), 1)])))
    return groups


def _environment(lineage: Provenance) -> list[tuple[str, str]]:
    """Return where the numbers were measured, as (word, text)."""
    found = []
    for key, value in lineage.hardware.items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        if key.endswith("_bytes") and isinstance(value, int | float):
            key, text = key.removesuffix("_bytes"), figures.figure(value, "bytes")
        found.append((key.removeprefix("n_").replace("_", " "), text))
    return [*found, *lineage.versions.items()]
