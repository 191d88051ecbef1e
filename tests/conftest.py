"""Tiny real objects for all tests: a random model and a trained tokenizer, made in process."""

from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from lmwright.lm import LocalModel, local_model
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.encode import Tokenizer

VOCAB_SIZE = 300
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CORPUS = [
    "The bank opens at nine in the morning and closes at five.",
    "What does a new card cost? A replacement card costs eight euros.",
    "The assistant answers questions about the account and the user listens.",
]


def build_model(config: ModelConfig, seed: int = 0) -> DecoderLM:
    """Random fp32 weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderLM(config).eval()


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE: all bytes, 41 merges, three special tokens, ChatML, no BOS."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    assert backend.get_vocab_size() == VOCAB_SIZE
    return Tokenizer(
        backend,
        special_tokens={"bos_token": SPECIALS[1], "eos_token": SPECIALS[2]},
        chat_template=CHATML,
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads of a tiny product wait for each other: on a busy machine that is 100x the time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return ModelConfig(
        family="llama", vocab_size=VOCAB_SIZE, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2,
        d_head=16, d_ff=128, max_positions=256, eos_ids=(2,),
    )  # fmt: skip


@pytest.fixture
def tiny_model(tiny_config: ModelConfig) -> DecoderLM:
    return build_model(tiny_config)


@pytest.fixture
def tiny_tokenizer() -> Tokenizer:
    return build_tokenizer()


@pytest.fixture
def tiny_lm(tiny_model: DecoderLM, tiny_tokenizer: Tokenizer) -> LocalModel:
    return local_model(tiny_model, tiny_tokenizer, name="tiny")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> Path:
    """A saved Hugging Face folder; nobody may change it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    local_model(build_model(tiny_config), build_tokenizer(), name="tiny").save(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run for all tests; they must not change it."""
    from finished_run import build_run  # only where it is needed: it measures models

    return build_run(tmp_path_factory.mktemp("runs") / "support")
