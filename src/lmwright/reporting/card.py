"""`README.md` beside the weights: a model card in Hugging Face's metadata format.

Its numbers are those of the report; where nothing was measured it says so.
"""

import re
from collections import Counter
from functools import partial

from lmwright.core import figures
from lmwright.core.results import MetricSpec
from lmwright.reporting import tables
from lmwright.reporting.collect import RunReport
from lmwright.reporting.environment import template
from lmwright.reporting.steps import RunStep
from lmwright.reporting.summary import compare, summarise, training_line, verdicts

# Where a built-in model comes from, its licence and its language.
STARTER = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")
# The metric whose questions show what the model is for, and how many of them are shown.
DOMAIN = "qa_accuracy"
N_EXAMPLES = 3
# A question that needs no escaping in a line of Python or of Markdown.
PLAIN = re.compile(r"[\w ,.;:?!'()%-]{1,120}")
# What the card says of a model: key, title, how it is written.
FACTS = (
    ("architecture", "Architecture", str),
    ("n_params", "Parameters", "{:,}".format),
    ("size_bytes", "Size on disk", partial(figures.exact, unit="bytes")),
    ("bits_per_weight", "Bits per weight", partial(figures.exact, unit="bits")),
    ("context_length", "Context", "{:,} tokens".format),
)


def card(report: RunReport, model: str) -> str:
    """Return the card of a model: YAML front matter, then Markdown."""
    scores, chain = report.scores, report.chain(model)
    base, license_, _ = _origin(report, model)
    # What it was made from, and the first model: the whole loss is against that one.
    baselines = [name for name in (report.origin(model), report.models[0]) if name != model]
    baselines = list(dict.fromkeys(baselines))
    told = [*verdicts(report), *summarise(report)]
    if len(baselines) > 1 and (whole := compare(report, model, baselines[-1])):
        told.append(whole)
    text = template("card.md.jinja").render(
        report=report,
        scores=scores,
        model=model,
        base=base,
        license=license_,
        chain=chain[::-1],
        # A merged or distilled model has parents beside the first, which the chain follows.
        others=[name for step in chain for name in step.parents[1:]],
        is_packed=_is_packed(chain),
        training=[(step, data) for step in chain[::-1] if (data := _data(report, step))],
        outcomes={
            step.name: training_line(report.outcomes[step.name])
            for step in chain
            if step.name in report.outcomes
        },
        system=_system(report, chain),
        examples=_examples(report, model),
        summary=[finding for finding in told if finding.model == model],
        notes=[note for step in chain[::-1] for note in step.notes],
        facts=_facts(report, model),
        results=[(spec, _changes(report, spec, model, baselines)) for spec in scores.specs],
        baselines=baselines,
        gates=[gate for gate in report.gates if gate.model == model],
        measured_with=_measured_with(report),
    )
    return f"---\n{_metadata(report, model)}\n---\n\n{text}"


def _changes(
    report: RunReport, spec: MetricSpec, model: str, baselines: list[str]
) -> list[tables.VerdictBadge | None]:
    """Return a metric's change against each of the baselines, where it was compared."""
    pairs = [report.scores.comparison(spec.name, model, baseline=name) for name in baselines]
    return [tables.badge(report.scores, pair) if pair else None for pair in pairs]


def _system(report: RunReport, chain: list[RunStep]) -> str | None:
    """Return the system message that the model keeps: that of the last training that set one."""
    kept = [report.outcomes[step.name] for step in chain if step.name in report.outcomes]
    return next((each.default_system for each in kept if each.default_system is not None), None)


def _examples(report: RunReport, model: str) -> list[str]:
    """Return a few held-out questions that the model answered rightly, plain enough for code."""
    items = [item for item in report.items if item.metric == DOMAIN]
    right = [
        item
        for item in items
        for answer in item.answers
        if answer.model == model and answer.is_right and PLAIN.fullmatch(item.question)
    ]
    # What many questions are answered with is no fact of the domain, but a refusal.
    n_same = Counter(item.expected for item in items)
    right.sort(key=lambda item: n_same[item.expected])
    return [item.question for item in right[:N_EXAMPLES]]


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
        return root.removeprefix("hub:").partition("@")[0].partition(":")[0], "other", None
    return None, "other", None


def _is_packed(chain: list[RunStep]) -> bool:
    return any(step.relation == "quantized" for step in chain)


def _tags(chain: list[RunStep]) -> list[str]:
    tags = ["lmwright"]
    for step in reversed(chain):
        tags += [str(step.config["method"])] if step.config.get("method") else []
        tags += [f"int{step.config['bits']}"] if step.config.get("bits") else []
    return list(dict.fromkeys([*tags, *(["compressed-tensors"] if _is_packed(chain) else [])]))


def _measured_with(report: RunReport) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in report.lineage.versions.items())
    cpu = report.lineage.hardware.get("cpu", "")
    return " on ".join(filter(None, [versions, str(cpu)]))


def _facts(report: RunReport, model: str) -> list[tuple[str, str]]:
    facts = report.scores.facts_of_models.get(model, {})
    return [
        (title, write(facts[key]) if key in facts else "not measured")
        for key, title, write in FACTS
    ]


def _data(report: RunReport, step: RunStep) -> RunStep | None:
    """Return the data that a step learned from; None for one that read none."""
    named = [found for name in step.inputs if (found := report.step(name))]
    return next((found for found in named if found.makes == "data"), None)
