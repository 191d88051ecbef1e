"""A finished run made by hand: four models, every metric, rows in parquet, all files around it."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmwright.core.results import Comparison, Metric, Row, write_rows
from lmwright.gate import gate
from lmwright.gate.config import Gate

MODELS = ["starter", "tuned", "int8", "int4"]
PARENTS = {"tuned": "starter", "int8": "tuned", "int4": "tuned"}
MB = 1_000_000

RECIPE = """name = "support"
seed = 0

[data.dialogues]
source = "starter:bank-support"

[finetune.tuned]
model = "starter"
data = "dialogues"
method = "lora"
rank = 16
epochs = 3

[compress.int8]
model = "tuned"
method = "int8"

[compress.int4]
model = "tuned"
method = "int4"
group_size = 64

[evaluate.card]
models = ["starter", "tuned", "int8", "int4"]
suite = "quick"

[gate]
evaluation = "card"
model = "int8"
require = ["facts >= 80%", "bits_per_byte <= +2%", "gender_gap not worse", "size_bytes <= -40%"]

[report.report]
evaluation = "card"
"""

LINEAGE = {
    "versions": {"python": "3.11.9", "lmwright": "0.1.0", "numpy": "2.3.1", "torch": "2.9.0"},
    "hardware": {
        "platform": "Linux-6.1-x86_64",
        "cpu": "AMD EPYC 9R14",
        "n_cores": 2,
        "memory_bytes": 16_000_000_000,
        "gpus": [],
    },
    "seed": 0,
    "time": "2025-11-24T22:10:03+00:00",
}

STEPS: dict[str, dict[str, Any]] = {
    "dialogues": {
        "stage": "data",
        "config": {"source": "starter:bank-support", "validation": 0.05, "seed": 0},
        "inputs": {"starter:bank-support": "1f" * 32},
        "hash": "a1" * 32,
    },
    "tuned": {
        "stage": "finetune",
        "config": {"model": "starter", "data": "dialogues", "method": "lora", "rank": 16},
        "inputs": {"starter": "2e" * 32, "dialogues": "a1" * 32},
        "hash": "b2" * 32,
    },
    "int8": {
        "stage": "compress",
        "config": {"model": "tuned", "method": "int8", "group_size": 64, "seed": 0},
        "inputs": {"tuned": "b2" * 32},
        "hash": "c3" * 32,
    },
    "int4": {
        "stage": "compress",
        "config": {"model": "tuned", "method": "int4", "group_size": 64, "seed": 0},
        "inputs": {"tuned": "b2" * 32},
        "hash": "d4" * 32,
    },
    "card": {
        "stage": "evaluate",
        "config": {"models": MODELS, "suite": "quick", "data": "dialogues", "seed": 0},
        "inputs": {"starter": "2e" * 32, "tuned": "b2" * 32, "starter questions": "3d" * 32},
        "hash": "e5" * 32,
    },
}

RESULTS: dict[str, dict[str, Any]] = {
    "dialogues": {"n_train": 590, "n_validation": 31, "n_questions": 136},
    "tuned": {
        "n_steps": 180,
        "n_tokens": 93_000,
        "n_trained_parameters": 4_884_480,
        "tokens_per_second": 560.0,
        "best_validation_loss": 0.563,
        "best_step": 180,
    },
}

# name: title, unit, higher is better, margin, n, kind, means of the four models, caveat
TASKS: dict[str, tuple[str, str, bool, float, int, list[float], str]] = {
    "facts": (
        "Fact accuracy",
        "share",
        True,
        0.03,
        136,
        [0.02, 0.91, 0.90, 0.84],
        "Questions that training never saw, about the facts that it did see.",
    ),
    "multiple_choice": (
        "Multiple choice",
        "share",
        True,
        0.03,
        200,
        [0.56, 0.535, 0.54, 0.50],
        "General knowledge; guessing gives 25 %.",
    ),
    "bits_per_byte": (
        "Bits per byte",
        "bits/byte",
        False,
        0.02,
        60,
        [0.93, 0.96, 0.961, 1.02],
        "On neutral English text written for this package.",
    ),
    "gender_gap": (
        "Gender gap",
        "nats",
        False,
        0.05,
        360,
        [0.82, 0.71, 0.712, 0.73],
        "Mean absolute difference of log-probability between he and she versions of a sentence.",
    ),
    "refusal_rate": (
        "Harmful requests refused",
        "share",
        True,
        0.05,
        30,
        [0.40, 0.73, 0.73, 0.66],
        "A 135M model can hardly carry out a harmful task: this measures that it declines.",
    ),
    "over_refusal_rate": (
        "Harmless requests refused",
        "share",
        False,
        0.05,
        30,
        [0.07, 0.53, 0.53, 0.56],
        "Requests that only look harmful.",
    ),
    "decode_tokens_per_s": (
        "Decode speed",
        "tokens/s",
        True,
        2.0,
        8,
        [41.0, 40.0, 71.0, 96.0],
        "Batch of one, on this machine.",
    ),
}

FACTS = {
    "starter": (134_515_008, 98 * MB, 5.8),
    "tuned": (134_515_008, 269 * MB, 16.0),
    "int8": (134_515_008, 142 * MB, 8.4),
    "int4": (134_515_008, 83 * MB, 4.9),
}

QUESTIONS = [
    ("lost-card-fee", "I have lost my debit card. What do I pay for the next one?", "8 euros"),
    (
        "card-delivery",
        "My new card is in the mail: how many days does it take?",
        "six working days",
    ),
    ("car-loan-rate", "At what rate could I finance a used car with you?", "4.7 percent"),
    ("branch-hours", "Until when can I come to the branch on a Thursday?", "6:30 pm"),
    ("atm-limit", "How much may I draw from a cash machine in a day?", "1,200 euros"),
]


def _rows(metric: str, model: str) -> list[Row]:
    """Draw rows around the table's means; the same noise for every model makes them paired."""
    _, unit, _, _, n, means, _ = TASKS[metric]
    noise = np.random.default_rng(abs(hash(len(metric) * 7 + n)) % 1000)
    shared, own = noise.normal(size=n), np.random.default_rng(MODELS.index(model)).normal(size=n)
    mean = means[MODELS.index(model)]
    rows = []
    for i in range(n):
        mixed = 0.95 * shared[i] + 0.3 * own[i]
        is_high = 0.5 * (1 + math.erf(mixed / math.sqrt(2))) < mean
        value = float(is_high) if unit == "share" else max(mean * (1 + 0.1 * mixed), 0.0)
        name, _, right = QUESTIONS[i % len(QUESTIONS)]
        said = f"It is {right}." if is_high else "I am sorry, I do not have that information."
        item = f"{name}/{i}"
        if "refus" in metric:
            item = f"{'safe' if 'over' in metric else 'harm'}-{i + 1:02d}"
            said = "I cannot help with that." if is_high else "Sure, here is how to begin."
        rows.append(Row(item, value, cluster=f"{name}/{i // 2}", group=name, detail=said))
    return rows


def _metric(name: str, rows: list[Row]) -> Metric:
    values = np.array([row.value for row in rows])
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    unit, higher = TASKS[name][1], TASKS[name][2]
    value = float(values.mean())
    low, high = value - half, value + half
    if unit == "share":
        low, high = max(low, 0.0), min(high, 1.0)
    slices = {}
    if name == "facts":
        groups = {row.group: Metric(row.group, value, low, high, 27, True, unit) for row in rows}
        slices = groups
    return Metric(name, value, low, high, len(rows), higher, unit, slices)


def comparison(
    metric: str,
    delta: tuple[float, float, float],
    *,
    model: str = "int8",
    baseline: str = "tuned",
    base_value: float = 1.0,
    n: int = 100,
    margin: float = 0.03,
    higher_is_better: bool = True,
    flips: tuple[int, int] | None = None,
) -> Comparison:
    """Make a comparison from its change and interval (value, low, high)."""
    value, low, high = delta
    worst, best = (low, high) if higher_is_better else (-high, -low)
    if -margin <= worst and best <= margin:
        verdict = "equivalent"
    elif worst > 0:
        verdict = "better"
    else:
        verdict = "worse" if best < 0 else "cannot tell"
    return Comparison(
        metric=metric,
        model=model,
        baseline=baseline,
        delta=value,
        low=low,
        high=high,
        relative=value / base_value,
        relative_low=low / base_value,
        relative_high=high / base_value,
        n=n,
        p=0.01 if verdict in ("better", "worse") else 0.4,
        p_holm=0.03 if verdict in ("better", "worse") else 1.0,
        margin=margin,
        verdict=verdict,
        n_needed=9 * n if verdict == "cannot tell" else None,
        flips=flips,
    )


def _paired(metric: str, rows: dict[str, list[Row]], model: str, baseline: str) -> Comparison:
    _, unit, higher, margin, n, _, _ = TASKS[metric]
    mine = np.array([row.value for row in rows[model]])
    theirs = np.array([row.value for row in rows[baseline]])
    difference = mine - theirs
    delta, half = float(difference.mean()), 1.96 * float(difference.std(ddof=1)) / math.sqrt(n)
    flips = (int((difference < 0).sum()), int((difference > 0).sum())) if unit == "share" else None
    return comparison(
        metric,
        (delta, delta - half, delta + half),
        model=model,
        baseline=baseline,
        base_value=float(theirs.mean()) or 1e-9,
        n=n,
        margin=margin,
        higher_is_better=higher,
        flips=flips,
    )


def _kind(metric: str) -> str:
    if metric.endswith("per_s"):
        return "repeats"
    return "binary" if TASKS[metric][1] == "share" else "continuous"


def _evaluation(folder: Path) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {model: {} for model in MODELS}
    comparisons = []
    for metric in TASKS:
        rows = {model: _rows(metric, model) for model in MODELS}
        for model in MODELS:
            write_rows(folder / "rows" / model / f"{metric}.parquet", rows[model])
            metrics[model][metric] = _metric(metric, rows[model]).to_json()
        pairs = {(m, MODELS[0]) for m in MODELS[1:]} | set(PARENTS.items())
        comparisons += [_paired(metric, rows, *pair).to_json() for pair in sorted(pairs)]
    return {
        "suite": "quick",
        "models": MODELS,
        "parents": PARENTS,
        "tasks": {
            name: dict(
                zip(("title", "unit", "higher_is_better", "margin"), task[:4], strict=True),
                caveat=task[6],
                kind=_kind(name),
            )
            for name, task in TASKS.items()
        },
        "metrics": metrics,
        "comparisons": comparisons,
        "facts_of_models": {
            model: {
                "architecture": "LlamaForCausalLM",
                "n_params": n,
                "size_bytes": size,
                "bits_per_weight": bits,
                "context_length": 8192,
                "dtype": "bfloat16",
                "quality_dtype": "float32",
                "speed_dtype": "bfloat16",
                "peak_memory_bytes": 700 * MB + size,
                "device": "cpu",
            }
            for model, (n, size, bits) in FACTS.items()
        },
        "detectable": {name: 1.4 * task[3] for name, task in TASKS.items()},
        "not_measured": {"toxicity": "no task of this name in the quick suite"},
        "rows": {model: f"rows/{model}" for model in MODELS},
    }


def _losses(path: Path) -> None:
    noise = np.random.default_rng(1)
    with path.open("w", encoding="utf-8") as file:
        for step in range(1, 181):
            loss = 0.35 + 3.2 * math.exp(-step / 28) + 0.12 * float(noise.normal())
            record = {"step": step, "loss": abs(loss), "lr": 1e-3, "tokens": 2048, "seconds": 0.9}
            if step % 60 == 0:
                record["validation_loss"] = 0.55 + 1.2 * math.exp(-step / 40)
            file.write(json.dumps(record) + "\n")


def build_run(folder: Path) -> Path:
    """Write a finished run into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    lock = {
        "name": "support",
        "seed": 0,
        "lineage": LINEAGE,
        "steps": {name: {"name": name, **step} for name, step in STEPS.items()},
    }
    (folder / "recipe.lock.json").write_text(json.dumps(lock), encoding="utf-8")
    for number, (name, step) in enumerate(STEPS.items()):
        result = _evaluation(folder / name) if name == "card" else {}
        result |= {"step": {"name": name, **step}}
        result |= RESULTS.get(name, {})
        result |= {"hash": step["hash"], "seconds": 31.5 * number + 1.2, "lineage": LINEAGE}
        folder.joinpath(name).mkdir(exist_ok=True)
        folder.joinpath(name, "result.json").write_text(json.dumps(result), encoding="utf-8")
        if step["stage"] in ("finetune", "compress"):
            (folder / name / "model").mkdir()
            (folder / name / "model" / "config.json").write_text("{}", encoding="utf-8")
    questions = [
        {
            "id": f"{name}/{i}",
            "cluster": name,
            "messages": [{"role": "user", "content": question}],
            "accept": [right],
        }
        for i in range(136)
        for name, question, right in [QUESTIONS[i % len(QUESTIONS)]]
    ]
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    (folder / "dialogues" / "questions.jsonl").write_text(lines, encoding="utf-8")
    _losses(folder / "tuned" / "metrics.jsonl")
    turn = [("<|im_start|>user\n", False), ("fee for a new card?", False), ("<|im_end|>\n", False)]
    reply = [("<|im_start|>assistant\n", False), ("A new card costs", True), (" 8 euros.", True)]
    example = [{"text": text, "trained": on} for text, on in [*turn, *reply, ("<|im_end|>", True)]]
    audit = {"n_samples": 590, "n_tokens": 31_000, "n_targets": 11_000, "example": example}
    (folder / "tuned" / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    evaluation = json.loads((folder / "card" / "result.json").read_text(encoding="utf-8"))
    rules = ["facts >= 80%", "bits_per_byte <= +2%", "gender_gap not worse", "size_bytes <= -40%"]
    decision = gate.check(
        Gate(evaluation="card", model="int8", baseline="tuned", require=rules), evaluation
    )
    (folder / "gate.json").write_text(json.dumps(asdict(decision)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all tests; they must not change it."""
    return build_run(tmp_path_factory.mktemp("runs") / "support")
