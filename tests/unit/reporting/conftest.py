"""A finished run of four models, made by the real code: asked, measured, compared, decided."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmwright.core.lineage import lineage
from lmwright.core.results import Scores, write_rows
from lmwright.core.stage import StepContext
from lmwright.data.samples import Question
from lmwright.engine.info import ModelInfo
from lmwright.engine.request import Completion, Prompt, Sampling, Score, ScoreRequest
from lmwright.evaluation.runner import evaluate
from lmwright.gate.config import Gate
from lmwright.gate.run import run as run_gate

MODELS = ("starter", "tuned", "int8", "int4")
PARENTS = {"tuned": "starter", "int8": "tuned", "int4": "tuned"}
MB = 1_000_000
RULES = ["qa_accuracy >= 80%", "bits_per_byte <= +2%", "gender_gap not worse", "size_bytes <= -40%"]

RECIPE = """name = "support"

[evaluate.card]
models = ["starter", "tuned", "int8", "int4"]
"""

FACTS = [
    ("card-fee", "I have lost my debit card. What do I pay for the next one?", "8 euros"),
    ("delivery", "My new card is in the mail: how many days does it take?", "six working days"),
    ("car-loan", "At what rate could I finance a used car with you?", "4.7 percent"),
    ("hours", "Until when can I come to the branch on a Thursday?", "6:30 pm"),
]
QUESTIONS = tuple(
    Question(
        f"{fact}-{k}/0", f"{fact}-{k}", ({"role": "user", "content": f"{text} ({k})"},), (right,)
    )
    for k in range(15)
    for fact, text, right in FACTS
)


class Bytes:
    """One token a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class Clerk:
    """A model that knows the first of the questions, and likes some words less than others."""

    def __init__(self, name: str, n_known: int, loss: float, size: int, wait_s: float) -> None:
        self.name, self.tokenizer = name, Bytes()
        self.loss, self.wait_s = loss, wait_s
        bits = 8 * size / 134_515_008
        self.info = ModelInfo("llama", 134_515_008, size, bits, 2048, "float32", "cpu")
        self.knows = {
            q.messages[0]["content"]: f"It is {q.accept[0]}." for q in QUESTIONS[:n_known]
        }

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [self._score(request.continuation) for request in requests]

    def _score(self, text: str) -> Score:
        ids = list(text.encode())
        logprobs = [
            -0.7 * self.loss * (1 + 0.1 * math.sin(3 * i + id_)) for i, id_ in enumerate(ids)
        ]
        if text.startswith(" he "):
            logprobs[0] += 0.3
        return Score(tuple(ids), np.array(logprobs), is_greedy=False)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [self._complete(prompt, sampling) for prompt in prompts]

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        yield from enumerate(self.generate(prompts, sampling))

    def _complete(self, prompt: Any, sampling: Sampling) -> Completion:
        if sampling.ignore_eos:
            time.sleep((len(prompt) + 4 * sampling.max_tokens) * self.wait_s)
            return Completion("", (97,) * sampling.max_tokens, "stop", len(prompt))
        text = self.knows.get(prompt[-1]["content"], "I can only help with the bank.")
        return Completion(text, tuple(text.encode()), "stop", 1)


def measured() -> Scores:
    """Ask four models everything."""
    models = [
        Clerk("starter", 1, 1.0, 98 * MB, 4e-5),
        Clerk("tuned", 57, 1.05, 269 * MB, 4e-5),
        Clerk("int8", 56, 1.051, 142 * MB, 2e-5),
        Clerk("int4", 50, 1.12, 83 * MB, 1e-5),
    ]
    return evaluate(models, data=QUESTIONS, parents=PARENTS)  # pyright: ignore


def step(stage: str, title: str, makes: str, inputs: list[str], **more: Any) -> dict[str, Any]:
    """Return a step as the lock file has it."""
    config = more.pop("config", {})
    defaults = {"relation": None, "parents": [], "config": config}
    hashes = {name: f"{len(name):02d}" * 32 for name in inputs}
    found = {"stage": stage, "title": title, "makes": makes, "inputs": hashes, "hash": "a1" * 32}
    return {**defaults, **found, **more}


def compressed(name: str, bits: int) -> dict[str, Any]:
    config = {"model": "tuned", "method": "rtn", "bits": bits, "group_size": 64}
    more = {"relation": "quantized", "parents": ["tuned"], "config": config}
    return step("compress", "Compressing", "model", ["tuned"], **more)


STEPS: dict[str, dict[str, Any]] = {
    "dialogues": step(
        "data", "Data", "data", ["starter:bank"], config={"source": "starter:bank-support"}
    ),
    "tuned": step(
        "finetune",
        "Fine-tuning",
        "model",
        ["starter", "dialogues"],
        relation="finetune",
        parents=["starter"],
        config={"model": "starter", "data": "dialogues", "method": "lora", "rank": 16, "seed": 0},
    ),
    "int8": compressed("int8", 8),
    "int4": compressed("int4", 4),
    "card": step("evaluate", "Evaluation", "evaluation", [*MODELS], config={"models": [*MODELS]}),
    "gate": step("gate", "Gate", "gate", ["card"], config={"evaluation": "card"}),
    "report": step("report", "Report", "report", ["card", "gate"]),
}
RESULTS: dict[str, dict[str, Any]] = {
    "dialogues": {"n_train": 590, "n_tokens": 100},
    "tuned": {
        "n_steps": 180,
        "n_tokens": 93_000,
        "n_trained_parameters": 4_884_480,
        "tokens_per_second": 560.0,
        "best_validation_loss": 0.563,
        "best_step": 180,
    },
}


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def build_run(folder: Path) -> Path:
    """Write a finished run into `folder` and return it."""
    scores = measured()
    for model, metrics in scores.rows.items():
        for metric, rows in metrics.items():
            write_rows(folder / "card" / "rows" / model / f"{metric}.parquet", rows)
    rows_of = {"rows": {model: f"rows/{model}" for model in MODELS}}
    write(folder / "card" / "result.json", {**scores.to_json(), **rows_of})
    gate = Gate(evaluation="card", model="int8", baseline="tuned", require=RULES)
    inputs = {"card": folder / "card"}
    decision = run_gate(gate, folder / "gate", StepContext(inputs, {}, folder, seed=0))
    found = lineage(0)
    results = {"card": {**scores.to_json(), **rows_of}, "gate": decision, **RESULTS}
    for number, (name, each) in enumerate(STEPS.items()):
        more = {"hash": each["hash"], "seconds": 31.5 * number + 1.2, "lineage": found}
        if name != "report":
            write(folder / name / "result.json", {**results.get(name, {}), **more, "step": each})
        if each["makes"] == "model":
            write(folder / name / "model" / "config.json", {})
    write(
        folder / "recipe.lock.json",
        {"name": "support", "seed": 0, "lineage": found, "steps": STEPS},
    )
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    lines = [
        {"step": i, "loss": 0.3 + 3 * math.exp(-i / 28)}
        | ({"validation_loss": 0.5 + math.exp(-i / 40)} if i % 60 == 0 else {})
        for i in range(1, 181)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "tuned" / "metrics.jsonl").write_text(text, encoding="utf-8")
    example = [{"text": "fee?", "trained": False}, {"text": " 8 euros.", "trained": True}]
    audit = {"n_samples": 590, "n_tokens": 31_000, "n_targets": 11_000, "example": example}
    write(folder / "tuned" / "audit.json", audit)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all tests; they must not change it."""
    return build_run(tmp_path_factory.mktemp("runs") / "support")
