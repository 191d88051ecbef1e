"""`README.md` beside the weights: a model card in Hugging Face's metadata format.

Its numbers are those of the report; where nothing was measured it says so.
"""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmwright.core import figures
from lmwright.reporting import tables
from lmwright.reporting.collect import Step, Story
from lmwright.reporting.summary import summarise

# Where a built-in model comes from, its licence and its language.
STARTER = ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")
# Hugging Face's name for a metric, where it has one.
TYPES = {"facts": "accuracy", "multiple_choice": "accuracy"}
TRAINERS = ("pretrain", "finetune")


def card(story: Story, model: str) -> str:
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
    text = environment.get_template("card.md.jinja").render(_view(story, model))
    return f"---\n{_metadata(story, model)}\n---\n\n{text}"


def _plain(value: Any) -> Any:
    """Keep a value inside its line and table cell, and markup in it from being markup."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"[\r\n]+", " ", value).replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", value)


def _metadata(story: Story, model: str) -> str:
    """Return the YAML that Hugging Face's hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    base, license_, language = _origin(story, model)
    stages = {step.stage for step in _chain(story, model)}
    relation = "finetune" if stages.intersection(TRAINERS) else "quantized"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"lmwright-{story.evaluation.get('suite', 'suite')}-{name}",
            dataset_name=str(story.evaluation["tasks"][name].get("title") or name),
            metric_type=str(TYPES.get(name, name)),
            metric_name=name,
            metric_value=round(metric["value"], 6),
            metric_args={
                "n": metric["n"],
                "low_95": round(metric["low"], 6),
                "high_95": round(metric["high"], 6),
            },
        )
        for name, metric in story.evaluation["metrics"].get(model, {}).items()
    ]
    data = ModelCardData(
        language=language,
        license=license_,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation=relation if base and stages else None,
        tags=_tags(story, model),
        model_name=f"{story.name}-{model}",
        eval_results=results or None,
    )
    return data.to_yaml().rstrip()


def _origin(story: Story, model: str) -> tuple[str | None, str, str | None]:
    """Return the base model's name on the hub, the licence and the language, where known."""
    chain = _chain(story, model)
    root = str(chain[-1].config.get("model", "")) if chain else model
    if root == "starter":
        return STARTER
    if root.startswith("hub:"):
        return root.removeprefix("hub:").partition("@")[0], "other", None
    return None, "other", None


def _chain(story: Story, model: str) -> list[Step]:
    """Return the steps that made a model, the last one first."""
    steps = {step.name: step for step in story.steps}
    chain: list[Step] = []
    while (step := steps.get(model)) and step not in chain:
        chain.append(step)
        model = str(step.config.get("model", ""))
    return chain


def _tags(story: Story, model: str) -> list[str]:
    chain = _chain(story, model)
    methods = [str(step.config["method"]) for step in chain if step.config.get("method")]
    packed = ["compressed-tensors"] if any(step.stage == "compress" for step in chain) else []
    return ["lmwright", *reversed(methods), *packed]


def _view(story: Story, model: str) -> dict[str, Any]:
    chain = _chain(story, model)
    base, license_, _ = _origin(story, model)
    gate = story.gate if story.gate and story.gate["model"] == model else None
    results = [_result(story, model, metric) for metric in story.evaluation["tasks"]]
    by_heading = {
        name: [line for line in results if tables.heading(line["metric"]) == name]
        for name in tables.ORDER
    }
    return {
        "story": story,
        "model": model,
        "base": base,
        "license": license_,
        "made": [_made(step) for step in reversed(chain)],
        "is_compressed": any(step.stage == "compress" for step in chain),
        "training": _training(story, chain),
        "summary": [s for s in summarise(story) if s.model == model],
        "facts": _facts(story, model),
        "results": results,
        "not_measured": story.evaluation.get("not_measured", {}),
        "bias": [
            line for line in by_heading["Fairness and safety"] if "refus" not in line["metric"]
        ],
        "safety": [line for line in by_heading["Fairness and safety"] if "refus" in line["metric"]],
        "parent": story.parents.get(model) or story.models[0],
        "gate": gate,
        "measured_with": _measured_with(story),
    }


def _made(step: Step) -> dict[str, str]:
    lineage = step.result.get("lineage", {})
    seed = lineage.get("seed", step.config.get("seed", ""))
    return {
        "name": step.name,
        "stage": step.stage,
        "hash": str(step.result.get("hash", "not run")),
        "seed": str(seed),
        "time": str(lineage.get("time", "")),
    }


def _measured_with(story: Story) -> str:
    versions = ", ".join(
        f"{name} {text}" for name, text in story.lineage.get("versions", {}).items()
    )
    cpu = story.lineage.get("hardware", {}).get("cpu", "")
    return " on ".join(filter(None, [versions, str(cpu)]))


def _result(story: Story, model: str, metric: str) -> dict[str, Any]:
    """Return a line of the evaluation table, "not measured" where there is no number."""
    task = story.evaluation["tasks"][metric]
    unit = figures.unit_of(task)
    found = story.evaluation["metrics"].get(model, {}).get(metric)
    parent = story.parents.get(model) or story.models[0]
    pair = story.comparison(metric, model=model, baseline=parent)
    chip = tables.chip(story, pair) if pair else None
    return {
        "metric": metric,
        "title": str(task.get("title") or metric),
        "direction": "higher" if task["higher_is_better"] else "lower",
        "value": figures.figure(found["value"], unit) if found else "not measured",
        "interval": figures.span(found["low"], found["high"], unit) if found else "not measured",
        "n": f"{found['n']:,} {figures.items_of(task)}" if found else "0",
        "verdict": f"{chip.text}{f', {chip.note}' if chip.note else ''}" if chip else "-",
        "change": chip.change if chip else "-",
        "caveat": str(task.get("caveat") or ""),
    }


def _facts(story: Story, model: str) -> list[tuple[str, str]]:
    facts = story.evaluation.get("facts_of_models", {}).get(model, {})
    shown = []
    for key, title, write in (
        ("architecture", "Architecture", str),
        ("n_params", "Parameters", lambda v: f"{v:,}"),
        ("size_bytes", "Size on disk", lambda v: figures.figure(v, "bytes")),
        ("bits_per_weight", "Bits per weight", lambda v: f"{v:.2f}"),
        ("context_length", "Context", lambda v: f"{v:,} tokens"),
    ):
        shown.append((title, write(facts[key]) if key in facts else "not measured"))
    return shown


def _training(story: Story, chain: list[Step]) -> list[dict[str, Any]]:
    """Return, for each training step of a model, what it learned from."""
    steps = {step.name: step for step in story.steps}
    trained = []
    for step in reversed(chain):
        if step.stage not in TRAINERS:
            continue
        data = steps.get(str(step.config.get("data", "")))
        source = data.config.get("source", "") if data else step.config.get("data", "")
        settings = {
            key: value
            for key, value in step.config.items()
            if value is not None and key not in ("model", "data")
        }
        trained.append(
            {
                "step": step.name,
                "source": ", ".join(source) if isinstance(source, list) else str(source),
                "hash": str(data.result.get("hash", "")) if data else "",
                "n": data.result.get("n_train") if data else None,
                "settings": ", ".join(f"{key} = {value}" for key, value in settings.items()),
            }
        )
    return trained
