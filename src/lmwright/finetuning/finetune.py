"""Fine-tuning for a program: a model in, another model out."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

from lmwright.data.config import Data
from lmwright.data.prepare import prepare as prepare_data
from lmwright.finetuning.chat import CHAT, shared_system
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.lora import merge
from lmwright.finetuning.methods import learning_rate, prepare
from lmwright.lm import LanguageModel, LocalModel, decoder, local, local_model
from lmwright.training.fit import fit
from lmwright.training.task import encode_all


def finetune(base: LanguageModel, config: Finetune) -> LocalModel:
    """Return a copy of `base` that has learnt from `config.data` (a file, folder, starter:, hub:).

    `base` itself does not change, and stands for `config.model`. The data is read, checked and
    split as by a `[data]` table with this source and `config.seed`. Nothing is kept on disk: use a
    recipe for runs that can be resumed.
    """
    base = local(base)
    modules = decoder(base, to_be="fine-tuned")
    data = prepare_data(Data(source=config.data, seed=config.seed))
    longest = config.longest(modules.config.max_positions)
    train_set, validation_set = (
        encode_all(CHAT, part, base.tokenizer, longest)[0] for part in (data.train, data.validation)
    )
    model = copy.deepcopy(modules)
    prepare(model, config)
    with TemporaryDirectory() as folder:
        lr, out = learning_rate(config), Path(folder)
        fit(model, CHAT, train_set, validation_set, config=config, lr=lr, out=out)
    merge(model, exact=modules)
    model.to(modules.decoder.embedding.weight.dtype).requires_grad_(False)
    model.compute_dtype = modules.compute_dtype
    tokenizer = copy.copy(base.tokenizer)
    system = shared_system(data.train)
    if system is not None:
        tokenizer.set_default_system(system)
    return local_model(model, tokenizer, name=f"{base.name}-tuned")
