"""`report.html`: one file that needs nothing but a browser, light and dark, screen and paper."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmwright.core import figures
from lmwright.hosted.usage import Usage
from lmwright.reporting import charts, tables
from lmwright.reporting.collect import Sample, Step, Story
from lmwright.reporting.summary import summarise

# How far the chart of changes reaches, in margins; beyond it an arrow points on.
REACH = 4.0
# Samples shown of the first metric that has some, and of each further one.
SHOWN = (6, 4)

# The first of these that was measured is the quality in the quality/size/speed chart.
QUALITY = ("facts", "multiple_choice", "bits_per_byte")
SPEED = "decode_tokens_per_s"


def render(story: Story) -> str:
    """Return the page. Everything that comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("lmwright.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tight"] = tight
    return environment.get_template("report.html.jinja").render(view(story))


def tight(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(
        r"(?<=\bn) (?==)|(?<=n =) |(?<=\d) (?=%|points|[kMG]B|nats|bits|tokens|items|repeats)",
        "\u00a0",
        text,
    )


def view(story: Story) -> dict[str, Any]:
    """Return all that the page shows as plain values."""
    lineage = story.lineage
    made, others = tables.pairs(story)
    noted = {
        name: str(task["caveat"])
        for name, task in story.evaluation["tasks"].items()
        if task.get("caveat")
    }
    # Metrics of one task share a footnote.
    footnotes = list(dict.fromkeys(noted.values()))
    return {
        "story": story,
        "seed": lineage.get("seed", story.evaluation.get("seed", story.lock.get("seed"))),
        "measured_at": str(lineage.get("time", ""))[:10],
        "machine": _machine(lineage.get("hardware", {})),
        "version": lineage.get("versions", {}).get("lmwright", ""),
        "footnotes": footnotes,
        "caveats": {name: footnotes.index(text) + 1 for name, text in noted.items()},
        "colours": {model: i % 6 for i, model in enumerate(story.models)},
        "summary": summarise(story),
        "lines": tables.side_by_side(story),
        "not_measured": story.evaluation.get("not_measured", {}),
        "gate": _gate(story),
        "trade_off": _trade_off(story),
        "cost": _cost(story),
        "changes_made": [_changes(story, *pair) for pair in made],
        "other_changes": [_changes(story, *pair) for pair in others],
        "losses": [(loss, charts.loss_curve(loss)) for loss in story.losses],
        "training": [text for step in story.steps if (text := _trained(step))],
        "audit_counts": _audit_counts(story.audit),
        "samples": _samples(story),
        "flips": tables.flips(story),
        "slices": tables.slices(story),
        "steps": [_step(step) for step in story.steps],
        "environment": _environment(lineage),
        "reach": REACH,
    }


def _gate(story: Story) -> dict[str, Any] | None:
    if story.gate is None:
        return None
    rules = [{**rule, "bar": _rule_bar(rule)} for rule in story.gate["rules"]]
    return {**story.gate, "rules": rules, "n_passed": sum(rule["passed"] for rule in rules)}


def _rule_bar(rule: dict[str, Any]) -> str:
    """Draw the interval of a rule against what the rule allows."""
    if rule["value"] is None or rule.get("limit") is None:
        return ""
    value, low, high, limit = (rule[key] for key in ("value", "low", "high", "limit"))
    start, end = min(low, limit), max(high, limit)
    pad = 0.25 * (end - start) or abs(limit) or 1.0
    extent = (start - pad, end + pad)
    band = (extent[0], limit) if rule.get("side") == "<=" else (limit, extent[1])
    return charts.interval_bar(
        value,
        low,
        high,
        extent=extent,
        band=band,
        mark=limit,
        style="good" if rule["passed"] else "bad",
        tip=rule["evidence"],
    )


def _trade_off(story: Story) -> str:
    """Draw quality over size, or nothing where one of them is missing."""
    tasks, facts = story.evaluation["tasks"], story.evaluation.get("facts_of_models", {})
    metric = next((name for name in [*QUALITY, *tasks] if name in tasks), None)
    if metric is None:
        return ""
    points = [
        charts.Bubble(
            name=model,
            colour=i % 6,
            x=facts[model]["size_bytes"],
            y=found["value"],
            low=found["low"],
            high=found["high"],
            speed=_speed(story, model),
            note=_speed_note(story, model),
        )
        for i, model in enumerate(story.models)
        if (found := story.evaluation["metrics"].get(model, {}).get(metric))
        and "size_bytes" in facts.get(model, {})
    ]
    task = tasks[metric]
    title = str(task.get("title") or metric)
    unit = figures.unit_of(task)
    return charts.bubbles(points, y_title=title, y_unit=unit) if points else ""


def _speed(story: Story, model: str) -> float | None:
    found = story.evaluation["metrics"].get(model, {}).get(SPEED)
    return found["value"] if found else None


def _speed_note(story: Story, model: str) -> str:
    speed = _speed(story, model)
    size = figures.figure(story.evaluation["facts_of_models"][model]["size_bytes"], "bytes")
    return size if speed is None else f"{size}, {speed:.0f} tok/s"


def _cost(story: Story) -> dict[str, Any]:
    """Return the table of size, speed and memory: (title, a text for each model)."""
    facts = story.evaluation.get("facts_of_models", {})
    lines = []
    for key, title, write in (
        ("size_bytes", "Size on disk", lambda v: figures.figure(v, "bytes")),
        ("peak_memory_bytes", "Peak memory of the process", lambda v: figures.figure(v, "bytes")),
        ("bits_per_weight", "Bits per weight", lambda v: f"{v:.2f}"),
        ("n_params", "Parameters", figures.count),
        ("context_length", "Context (tokens)", figures.count),
        ("quality_dtype", "Quality measured in", str),
        ("speed_dtype", "Speed measured in", str),
        ("device", "Device", str),
        ("usage", "Asked over the network", lambda v: str(Usage(**v))),
    ):
        texts = [write(facts[m][key]) if key in facts.get(m, {}) else "" for m in story.models]
        if any(texts):
            lines.append((title, texts))
    for metric, task in story.evaluation["tasks"].items():
        if tables.heading(metric) == "Speed":
            lines.append((str(task.get("title") or metric), _texts(story, metric)))
    return {"models": story.models, "lines": lines}


def _texts(story: Story, metric: str) -> list[str]:
    unit = figures.unit_of(story.evaluation["tasks"][metric])
    found = [story.evaluation["metrics"].get(m, {}).get(metric) for m in story.models]
    return [figures.figure(metric["value"], unit) if metric else "" for metric in found]


def _changes(story: Story, model: str, baseline: str) -> dict[str, Any]:
    """Return a panel: every metric's change in units of its margin, good to the right."""
    lines = []
    for metric, task in story.evaluation["tasks"].items():
        pair = story.comparison(metric, model=model, baseline=baseline)
        if pair is None:
            continue
        chip = tables.chip(story, pair)
        # A metric without a margin is drawn on its own scale: its interval decides the reach.
        unit = pair["margin"] or max(abs(pair["low"]), abs(pair["high"]), 1e-12) / REACH
        sign = 1 if task["higher_is_better"] else -1
        low, high = sorted((sign * pair["low"] / unit, sign * pair["high"] / unit))
        bar = charts.interval_bar(
            sign * pair["delta"] / unit,
            low,
            high,
            extent=(-REACH, REACH),
            band=(-1.0, 1.0) if pair["margin"] else None,
            mark=0.0,
            style=chip.kind,
            tip=chip.tip,
        )
        lines.append({"title": task.get("title") or metric, "bar": bar, "chip": chip})
    return {"model": model, "baseline": baseline, "lines": lines}


def _trained(step: Step) -> str:
    """Tell in one line how a training step went."""
    result, parts = step.result, []
    if "n_steps" in result:
        parts.append(f"{result['n_steps']:,} steps")
    if "n_tokens" in result:
        parts.append(f"{result['n_tokens']:,} tokens")
    if "n_trained_parameters" in result:
        parts.append(f"{figures.count(result['n_trained_parameters'])} trained parameters")
    if "tokens_per_second" in result:
        parts.append(f"{result['tokens_per_second']:,.0f} tokens/s")
    if "best_validation_loss" in result:
        best = f"best validation loss {result['best_validation_loss']:.3f}"
        parts.append(f"{best} after step {result.get('best_step', 0):,}")
    is_training = step.stage in ("pretrain", "finetune")
    return f"{step.name}: {', '.join(parts)}." if is_training and parts else ""


def _audit_counts(audit: dict[str, Any]) -> str:
    if not {"n_samples", "n_tokens", "n_targets"} <= audit.keys():
        return ""
    share = 100 * audit["n_targets"] / audit["n_tokens"]
    return f"{share:.0f} % of {audit['n_tokens']:,} tokens in {audit['n_samples']:,} samples"


def _samples(story: Story) -> list[dict[str, Any]]:
    """Return the chosen samples of each metric, and how many there were to choose from."""
    by_metric: dict[str, list[Sample]] = {}
    for sample in story.samples:
        by_metric.setdefault(sample.metric, []).append(sample)
    return [
        {
            "title": story.evaluation["tasks"][metric].get("title") or metric,
            "n": len(samples),
            "n_flips": sum(sample.flips for sample in samples),
            "right": tables.right_counts(samples),
            "chosen": tables.choose(samples, SHOWN[min(number, 1)]),
        }
        for number, (metric, samples) in enumerate(by_metric.items())
    ]


def _step(step: Step) -> dict[str, Any]:
    lineage = step.result.get("lineage", {})
    settings = {
        key: value
        for key, value in step.config.items()
        if value is not None and key not in ("model", "models", "data", "evaluation", "seed")
    }
    return {
        "stage": step.stage,
        "name": step.name,
        "inputs": step.inputs,
        "settings": ", ".join(f"{key} = {value}" for key, value in settings.items()),
        "hash": step.result.get("hash", ""),
        "seed": lineage.get("seed", step.config.get("seed")),
        "seconds": _duration(step.result.get("seconds")),
        "time": str(lineage.get("time", "")),
    }


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _machine(hardware: dict[str, Any]) -> str:
    """Name the machine in a few words: its GPUs, or its processor and cores."""
    if gpus := hardware.get("gpus"):
        return ", ".join(map(str, gpus))
    cores = hardware.get("n_cores")
    return f"{hardware.get('cpu', '')}{f', {cores} cores' if cores else ''}".lstrip(", ")


def _environment(lineage: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where the numbers were measured, as (word, text)."""
    found = []
    for key, value in lineage.get("hardware", {}).items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        if key.endswith("_bytes") and isinstance(value, int | float):
            key, text = key.removesuffix("_bytes"), figures.figure(value, "bytes")
        found.append((key.removeprefix("n_").replace("_", " "), text))
    found += [(name, str(version)) for name, version in lineage.get("versions", {}).items()]
    return found
