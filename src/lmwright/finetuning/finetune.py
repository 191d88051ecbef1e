"""Fine-tuning for a program: a model in, another model out."""

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lmwright.core.progress import bar
from lmwright.data.run import drop_duplicates, split
from lmwright.data.samples import Sample
from lmwright.data.sources import read
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import merge
from lmwright.finetuning.masks import audit, encode, shared_system
from lmwright.finetuning.tune import n_steps, prepare, tune
from lmwright.lm import LanguageModel, LocalModel, decoder, local, local_model
from lmwright.training.batches import Encoded

# The share of the samples that chooses the best weights.
VALIDATION = 0.05


def finetune(base: LanguageModel, config: Finetune) -> LocalModel:
    """Return a copy of `base` that has learnt from `config.data` (a file, folder, starter:, hub:).

    `base` itself does not change, and stands for `config.model`. Nothing is kept on disk: use a
    recipe for runs that can be resumed.
    """
    base = local(base)
    modules = decoder(base, to_be="fine-tuned")
    samples, _ = read([config.data])
    parts = split(drop_duplicates(samples), VALIDATION, config.seed)
    train_set, validation_set = (encoded(part, base, config) for part in parts)
    model = copy.deepcopy(modules)
    prepare(model, config)
    with (
        TemporaryDirectory() as folder,
        bar("fine-tuning", n_steps(train_set, config)) as progress,
    ):
        for event in tune(model, train_set, validation_set, config=config, folder=Path(folder)):
            progress.advance(1, f"loss {event.step.loss:.3f}")
    if config.method == "lora":
        merge(model, exact=modules)
    model.to(modules.decoder.embedding.weight.dtype).requires_grad_(False)
    model.compute_dtype = modules.compute_dtype
    tokenizer = copy.copy(base.tokenizer)
    system = shared_system(samples)
    if system is not None:
        tokenizer.set_default_system(system)
    return local_model(model, tokenizer, name=f"{base.name}-tuned")


def encoded(samples: Sequence[Sample], base: LocalModel, config: Finetune) -> list[Encoded]:
    """Return samples as tokens, each of them checked."""
    tokens = [encode(sample, base.tokenizer) for sample in samples]
    limit = base.context_length
    audit(tokens, base.tokenizer, min(config.max_length or limit, limit))
    return tokens
