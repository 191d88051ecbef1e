"""The fine-tuning step: files in, files out."""

from pathlib import Path
from typing import Any

import torch

from lmwright.core.artifact import write_json
from lmwright.core.device import Precision
from lmwright.core.stage import StepContext
from lmwright.data.run import TRAIN, VALIDATION, read_samples
from lmwright.finetuning.chat import CHAT, shared_system
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import merge, save_adapter
from lmwright.finetuning.methods import learning_rate, prepare
from lmwright.lm import decoder, load_local, weight_bytes
from lmwright.model.checkpoint import save
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.training.fit import fit
from lmwright.training.task import encode_all


def run(config: Finetune, out: Path, context: StepContext) -> dict[str, Any]:
    """Write model/ (merged, a Hugging Face folder), adapter/ for LoRA, metrics.jsonl, audit.json.

    What a killed run of the same configuration left in state/ is continued.
    """
    source = str(context.inputs.get(config.model, config.model))
    data = Path(context.inputs[config.data])
    model, tokenizer = _open(source, config.precision)
    samples = read_samples(data / TRAIN)
    longest = config.longest(model.config.max_positions)
    train_set, audit = encode_all(CHAT, samples, tokenizer, longest)
    validation_set, _ = encode_all(CHAT, read_samples(data / VALIDATION), tokenizer, longest)
    audit.show()
    write_json(out / "audit.json", audit.to_json())

    prepare(model, config)
    lr = learning_rate(config)
    outcome = fit(model, CHAT, train_set, validation_set, config=config, lr=lr, out=out)
    system = shared_system(samples)
    if system is not None:
        tokenizer.set_default_system(system)
    _save(model, config, source, out)
    tokenizer.save(out / "model")
    return {
        **outcome,
        "size_bytes": weight_bytes(out / "model"),
        "default_system": system,
        "audit": audit.to_json(),
    }


def _open(source: str, precision: Precision) -> tuple[DecoderLM, Tokenizer]:
    base = load_local(source, precision=precision)
    return decoder(base, to_be="fine-tuned"), base.tokenizer


def _save(model: DecoderLM, config: Finetune, source: str, out: Path) -> None:
    """Write the tuned weights; LoRA is added to the base's fp32 weights, not to rounded ones."""
    if config.method == "lora":
        save_adapter(model, out / "adapter", base=source, rank=config.rank, alpha=config.lora_alpha)
        exact, _ = _open(source, "fp32")
        merge(model, exact=exact)
    save(model, out / "model", torch.bfloat16)
