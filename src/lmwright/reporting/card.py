"""`README.md` beside the weights: a model card in Hugging Face's metadata format.

Its numbers are those of the report; where nothing was measured it says so.
"""

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmwright.core import figures
from lmwright.core.results import Metric, MetricSpec
from lmwright.reporting import tables
from lmwright.reporting.collect import RunReport, RunStep
from lmwright.reporting.summary import summarise

# Where a built-in model comes from, its licence and its language.
STARTER = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")


@dataclass(frozen=True)
class CardLine:
    """A line of the evaluation table, "not measured" where there is no number."""

    spec: MetricSpec
    value: str
    interval: str
    n: str
    change: str
    verdict: str


@dataclass(frozen=True)
class Training:
    """What a training step learned from."""

    step: RunStep
    source: str
    hash: str
    n: int | None


def card(report: RunReport, model: str) -> str:
    """Return the card of a model: YAML front matter, then Markdown."""
    environment = Environment(
        loader=PackageLoader("lmwright.reporting"),
        # Markdown, so no HTML escaping; `_plain` disarms what comes from data instead.
        autoescape=False,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("card.md.jinja").render(_view(report, model))
    return f"---\n{_metadata(report, model)}\n---\n\n{text}"


def _plain(value: Any) -> Any:
    """Keep a value inside its line and table cell, and markup in it from being markup."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"[\r\n]+", " ", value).replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", value)


def _metadata(report: RunReport, model: str) -> str:
    """Return the YAML that Hugging Face's hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    base, license_, language = _origin(report, model)
    chain = report.chain(model)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"lmwright-{report.scores.suite}-{spec.name}",
            dataset_name=spec.title,
            metric_type=spec.hub_type or spec.name,
            metric_name=spec.name,
            metric_value=round(metric.value, 6),
            metric_args={
                "n": metric.n,
                "low_95": round(metric.low, 6),
                "high_95": round(metric.high, 6),
            },
        )
        for spec in report.scores.specs
        if (metric := report.scores.metric(spec.name, model))
    ]
    data = ModelCardData(
        language=language,
        license=license_,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base,
        # What was done to the base itself: later steps are in the lineage.
        base_model_relation=chain[-1].relation if base and chain else None,
        tags=_tags(chain),
        model_name=f"{report.name}-{model}",
        eval_results=results or None,
    )
    return data.to_yaml().rstrip()


def _origin(report: RunReport, model: str) -> tuple[str | None, str, str | None]:
    """Return the base model's name on the hub, the licence and the language, where known."""
    chain = report.chain(model)
    root = next(iter(chain[-1].parents), "") if chain else model
    if root == "starter":
        return STARTER
    if root.startswith("hub:"):
        return root.removeprefix("hub:").partition("@")[0], "other", None
    return None, "other", None


def _is_packed(chain: list[RunStep]) -> bool:
    return any(step.relation == "quantized" for step in chain)


def _tags(chain: list[RunStep]) -> list[str]:
    tags = ["lmwright"]
    for step in reversed(chain):
        tags += [str(step.config["method"])] if step.config.get("method") else []
        tags += [f"int{step.config['bits']}"] if step.config.get("bits") else []
    return list(dict.fromkeys([*tags, *(["compressed-tensors"] if _is_packed(chain) else [])]))


def _view(report: RunReport, model: str) -> dict[str, Any]:
    chain = report.chain(model)
    base, license_, _ = _origin(report, model)
    results = [_line(report, model, spec) for spec in report.scores.specs]
    return {
        "report": report,
        "model": model,
        "base": base,
        "license": license_,
        "chain": chain[::-1],
        # A merged or distilled model has parents beside the first, which the chain follows.
        "others": [name for step in chain for name in step.parents[1:]],
        "is_packed": _is_packed(chain),
        "training": [trained for step in chain[::-1] if (trained := _training(report, step))],
        "summary": [finding for finding in summarise(report) if finding.model == model],
        "facts": _facts(report, model),
        "results": results,
        "by_role": {
            role: [line for line in results if line.spec.role == role]
            for role in ("bias", "safety")
        },
        "parent": report.origin(model),
        "gates": [gate for gate in report.gates if gate.model == model],
        "measured_with": _measured_with(report),
    }


def _measured_with(report: RunReport) -> str:
    found = report.lineage.get("versions", {}).items()
    versions = ", ".join(f"{name} {text}" for name, text in found)
    cpu = report.lineage.get("hardware", {}).get("cpu", "")
    return " on ".join(filter(None, [versions, str(cpu)]))


def _line(report: RunReport, model: str, spec: MetricSpec) -> CardLine:
    found = report.scores.metric(spec.name, model)
    pair = report.scores.comparison(spec.name, model, baseline=report.origin(model))
    badge = tables.badge(report.scores, pair) if pair else None
    return CardLine(
        spec,
        *_number(found, spec),
        change=badge.change if badge else "-",
        verdict=", ".join(filter(None, [badge.text, badge.note])) if badge else "-",
    )


def _number(found: Metric | None, spec: MetricSpec) -> tuple[str, str, str]:
    """Write value, interval and n."""
    if found is None:
        return "not measured", "not measured", "0"
    value = figures.figure(found.value, spec.unit)
    return value, figures.span(found.low, found.high, spec.unit), f"{found.n:,} {spec.items}"


def _facts(report: RunReport, model: str) -> list[tuple[str, str]]:
    facts = report.scores.facts_of_models.get(model, {})
    shown = []
    for key, title, write in (
        ("architecture", "Architecture", str),
        ("n_params", "Parameters", lambda v: f"{v:,}"),
        ("size_bytes", "Size on disk", lambda v: figures.exact(v, "bytes")),
        ("bits_per_weight", "Bits per weight", lambda v: figures.exact(v, "bits")),
        ("context_length", "Context", lambda v: f"{v:,} tokens"),
    ):
        shown.append((title, write(facts[key]) if key in facts else "not measured"))
    return shown


def _training(report: RunReport, step: RunStep) -> Training | None:
    """Return what a step learned from; None for one that read no data."""
    named = [found for name in step.inputs if (found := report.step(name))]
    data = next((found for found in named if found.makes == "data"), None)
    if data is None:
        return None
    source = data.config.get("source", "")
    text = ", ".join(source) if isinstance(source, list) else str(source)
    return Training(step, text, data.hash, data.result.get("n_train"))
