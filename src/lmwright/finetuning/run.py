"""The fine-tuning step: files in, files out."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lmwright.core.artifact import write_json
from lmwright.core.errors import LmwrightError
from lmwright.core.progress import bar
from lmwright.core.stage import StepContext
from lmwright.data.run import TRAIN, VALIDATION, read_samples
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import merge, save_adapter
from lmwright.finetuning.masks import Audit, audit, encode, shared_system
from lmwright.finetuning.tune import Event, n_steps, prepare, tune
from lmwright.lm import LocalModel, decoder, load_local, weight_bytes
from lmwright.model.checkpoint import save
from lmwright.training.state import trained_weights


def run(config: Finetune, out: Path, context: StepContext) -> dict[str, Any]:
    """Write model/ (merged, a Hugging Face folder), adapter/ for LoRA, metrics.jsonl, audit.json.

    What a killed run of the same configuration left in state/ is continued.
    """
    source, data = str(context.inputs[config.model]), Path(context.inputs[config.data])
    base = load_local(source, precision=config.precision)
    model = decoder(base, to_be="fine-tuned")
    samples = read_samples(data / TRAIN)
    train_set = [encode(s, base.tokenizer) for s in samples]
    validation_set = [encode(s, base.tokenizer) for s in read_samples(data / VALIDATION)]
    max_length = min(config.max_length or base.context_length, base.context_length)
    checked = audit(train_set, base.tokenizer, max_length)
    audit(validation_set, base.tokenizer, max_length)
    _show(checked)
    write_json(out / "audit.json", checked.to_json())

    prepare(model, config)
    total = n_steps(train_set, config)
    last: Event | None = None
    with bar("fine-tuning", total) as progress, _Log(out / "metrics.jsonl") as log:
        for event in tune(model, train_set, validation_set, config=config, folder=out / "state"):
            if last is None:
                log.rewind(event.step.step)
                progress.advance(event.step.step - 1)
            log.write(event)
            progress.advance(1, _note(event))
            last = event
    n_trained = sum(p.numel() for p in trained_weights(model).values())
    system = shared_system(samples)
    if system is not None:
        base.tokenizer.set_default_system(system)
    _save(base, config, source, out)
    return {
        "n_steps": total,
        "n_trained_parameters": n_trained,
        "size_bytes": weight_bytes(out / "model"),
        "default_system": system,
        "audit": checked.to_json(),
        **_outcome(out / "metrics.jsonl"),
    }


def _save(tuned: LocalModel, config: Finetune, source: str, out: Path) -> None:
    """Write the tuned weights; LoRA is added to the base's fp32 weights, not to rounded ones."""
    model = decoder(tuned, to_be="fine-tuned")
    if config.method == "lora":
        alpha = config.alpha or 2 * config.rank
        save_adapter(model, out / "adapter", base=source, rank=config.rank, alpha=alpha)
        exact = load_local(source, precision="fp32")
        merge(model, exact=decoder(exact, to_be="fine-tuned"))
    save(model, out / "model", torch.bfloat16)
    tuned.tokenizer.save(out / "model")


def _show(checked: Audit) -> None:
    console = Console(stderr=True)
    share = checked.n_targets / checked.n_tokens
    console.print(
        f"{checked.n_samples} samples, {checked.n_tokens} tokens, of which {checked.n_targets} "
        f"({share:.0%}) are learnt (green):"
    )
    console.print(checked.text())


def _note(event: Event) -> str:
    speed = event.progress.n_tokens / event.progress.seconds
    note = f"loss {event.step.loss:.3f}  {speed:.0f} tok/s"
    best = event.progress.best_loss
    return note if best is None else f"{note}  best validation {best:.3f}"


class _Log:
    """metrics.jsonl: one line a step; lines of steps that a kill undid are dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "_Log":
        # Without a buffer: what a full disk refused is not tried again when the file is closed.
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rewind(self, first_step: int) -> None:
        """Cut off, in one go that no kill can halve, the lines from this step on."""
        kept = [line for line in _lines(self._path) if line["step"] < first_step]
        texts = self._path.read_bytes().splitlines(keepends=True)
        self._file.truncate(sum(len(text) for text in texts[: len(kept)]))

    def write(self, event: Event) -> None:
        line = {
            "step": event.step.step,
            "loss": event.step.loss,
            "lr": event.step.lr,
            "grad_norm": event.step.grad_norm,
            "tokens": event.progress.n_tokens,
            "targets": event.step.n_targets,
            "seconds": event.step.seconds,
        }
        if event.validation_loss is not None:
            line["validation_loss"] = event.validation_loss
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line).encode() + b"\n"
        try:
            n_written = self._file.write(text)
        except OSError as error:
            raise LmwrightError(f"cannot write {self._path}: {error.strerror}") from error
        if n_written != len(text):
            raise LmwrightError(f"cannot write {self._path}: no space left for the whole line")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines up to the half one that a killed run or a full disk may have left."""
    lines = []
    for text in path.read_bytes().splitlines(keepends=True):
        if not text.endswith(b"\n"):
            break
        lines.append(json.loads(text))
    return lines


def _outcome(path: Path) -> dict[str, Any]:
    """Summarise metrics.jsonl: the whole run, also where it was continued after a kill."""
    lines = _lines(path)
    checks = [
        (line["validation_loss"], line["step"]) for line in lines if "validation_loss" in line
    ]
    loss, step = min(checks)
    seconds = sum(line["seconds"] for line in lines)
    return {
        "best_validation_loss": loss,
        "best_step": step,
        "last_training_loss": lines[-1]["loss"],
        "n_tokens": lines[-1]["tokens"],
        "training_seconds": seconds,
        "tokens_per_second": lines[-1]["tokens"] / seconds,
    }
