"""Fine-tuning as a step of a recipe and as a function: a model in, another model out."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lmwright import lm
from lmwright.core.artifact import write_json
from lmwright.core.device import Precision
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.run import QUESTIONS, TRAIN, VALIDATION, prepare_data, read_samples
from lmwright.finetuning.chat import CHAT, shared_system
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import merge, save_adapter
from lmwright.finetuning.methods import prepare
from lmwright.model.checkpoint import save
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.training.batches import Encoded
from lmwright.training.fit import fit
from lmwright.training.task import encode_all

log = logging.getLogger(__name__)


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

    questions = data / QUESTIONS
    has_facts = questions.is_file() and questions.stat().st_size > 0
    config = config.settled(len(train_set), has_facts=has_facts)
    outcome = _fit(model, train_set, validation_set, config=config, out=out)
    system = shared_system(samples)
    if system is not None:
        tokenizer.set_default_system(system)
    _save(model, config, source, out)
    tokenizer.save(out / "model")
    return {
        **outcome,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "keep": config.keep,
        "lr": config.peak_lr,
        "size_bytes": lm.weight_bytes(out / "model"),
        "default_system": system,
        "audit": audit.to_json(),
    }


def finetune(base: lm.LanguageModel, config: Finetune) -> lm.LocalModel:
    """Return a copy of `base` that has learnt from `config.data` (a file, folder, starter:, hub:).

    `base` itself does not change, and stands for `config.model`. The data is read, checked and
    split as by a `[data]` table with this source and `config.seed`. Nothing is kept on disk: use a
    recipe for runs that can be resumed.
    """
    base = lm.local(base)
    modules = lm.decoder(base, to_be="fine-tuned")
    data = prepare_data(Data(source=config.data, seed=config.seed))
    longest = config.longest(modules.config.max_positions)
    train_set, validation_set = (
        encode_all(CHAT, part, base.tokenizer, longest)[0] for part in (data.train, data.validation)
    )
    model = copy.deepcopy(modules)
    config = config.settled(len(train_set), has_facts=bool(data.questions))
    with TemporaryDirectory() as folder:
        _fit(model, train_set, validation_set, config=config, out=Path(folder))
    merge(model, exact=modules)
    model.to(modules.decoder.embedding.weight.dtype).requires_grad_(False)
    model.compute_dtype = modules.compute_dtype
    tokenizer = copy.copy(base.tokenizer)
    system = shared_system(data.train)
    if system is not None:
        tokenizer.set_default_system(system)
    return lm.local_model(model, tokenizer, name=f"{base.name}-tuned")


def _fit(
    model: DecoderLM,
    train_set: Sequence[Encoded],
    validation_set: Sequence[Encoded],
    *,
    config: Finetune,
    out: Path,
) -> dict[str, Any]:
    """Make the model trainable and train it; say so where that will be short."""
    if said := config.warning(len(train_set)):
        log.warning("%s", said)
    prepare(model, config)
    lr = config.peak_lr
    return fit(model, CHAT, train_set, validation_set, config=config, lr=lr, out=out)


def _open(source: str, precision: Precision) -> tuple[DecoderLM, Tokenizer]:
    base = lm.load_local(source, precision=precision)
    return lm.decoder(base, to_be="fine-tuned"), base.tokenizer


def _save(model: DecoderLM, config: Finetune, source: str, out: Path) -> None:
    """Write the tuned weights; LoRA is added to the base's fp32 weights, not to rounded ones."""
    if config.method == "lora":
        save_adapter(model, out / "adapter", base=source, rank=config.rank, alpha=config.lora_alpha)
        exact, _ = _open(source, "fp32")
        merge(model, exact=exact)
    save(model, out / "model", torch.bfloat16)
