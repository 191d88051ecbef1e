"""Who buys memory by these numbers must get what the engine really holds."""

from dataclasses import replace

import pytest
import torch

from lmwright.core.errors import RequestError
from lmwright.core.stage import PROCESS_BYTES
from lmwright.engine.torch.decoder import TorchBackend
from lmwright.engine.torch.seq2seq import Seq2SeqBackend
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM
from lmwright.summary.inventory import Inventory, Part
from lmwright.summary.memory import Need, contexts, needs
from lmwright.tokenizer.encode import Tokenizer

STARTER = ModelConfig(
    family="llama", vocab_size=49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3,
    d_head=64, d_ff=1536, max_positions=8192,
)  # fmt: skip


def inventory(config: ModelConfig, assembly: str = "decoder") -> Inventory:
    return Inventory(config, assembly, (Part("attention", 1000, 500, ("Q4_0",)),))


def need(found: Inventory, length: int, *, batch: int = 1, dtype: str = "float32") -> Need:
    (only,) = needs(found, lengths=[length], batch=batch, dtype=dtype)
    return only


def test_keys_and_values_are_those_computed_by_hand() -> None:
    found = need(inventory(STARTER), 2048, batch=3, dtype="bfloat16")
    # Two of them, 30 layers, 3 heads of 64, two bytes each.
    assert found.cache_bytes == 3 * 2048 * (2 * 30 * 3 * 64 * 2) == 141_557_760
    assert found.weight_bytes == 2000  # as it computes, not as it is stored
    assert found.cross_cache_bytes == 0
    assert found.total_bytes == PROCESS_BYTES + 2000 + 141_557_760 + found.activation_bytes


@pytest.mark.parametrize("window", [None, 8])
def test_the_cache_of_the_engine_has_so_many_bytes(
    window: int | None, tiny_config: ModelConfig
) -> None:
    config = replace(tiny_config, sliding_window=window)
    model = DecoderLM(config).requires_grad_(False)
    rows, _ = TorchBackend(model).prefill([[5] * 100, [6] * 100])
    held = [*rows._cache.keys, *rows._cache.values]
    n_bytes = sum(each.nbytes for each in held if each is not None)
    assert need(inventory(config), 100, batch=2).cache_bytes == n_bytes


def test_while_it_grows_the_engine_holds_less_than_twice_that(tiny_model: DecoderLM) -> None:
    rows, _ = TorchBackend(tiny_model).prefill([[5] * 65])
    rows.decode([5])
    held = [*rows._cache.keys, *rows._cache.values]
    n_bytes = sum(each.nbytes for each in held if each is not None)
    counted = need(inventory(tiny_model.config), 66).cache_bytes
    assert counted < n_bytes < 2 * counted


def test_an_encoder_decoder_keeps_its_source_in_every_layer_of_the_decoder(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer
) -> None:
    config = replace(tiny_config, n_layers=3, n_decoder_layers=2, decoder_start_id=0)
    model = EncoderDecoderLM(config).requires_grad_(False)
    rows, _ = Seq2SeqBackend(model, tiny_tokenizer).prefill([[5] * 70] * 2)
    for _ in range(69):
        rows.decode([5, 5])
    found = need(inventory(config, "encoder-decoder"), 70, batch=2)
    cross = [each for pair in rows._memory._kept.values() for each in pair]
    assert found.cross_cache_bytes == sum(each.nbytes for each in cross)
    filled = [each[:, :, :70] for each in (*rows._cache.keys, *rows._cache.values)]  # type: ignore
    assert found.cache_bytes == sum(each.nbytes for each in filled)


def test_an_encoder_keeps_nothing() -> None:
    found = need(inventory(STARTER, "encoder"), 512)
    assert (found.cache_bytes, found.cross_cache_bytes) == (0, 0)
    assert found.activation_bytes > 0


def test_a_pass_is_bounded_though_the_context_is_not() -> None:
    short, long, longer = (
        need(inventory(STARTER), length, dtype="bfloat16").activation_bytes
        for length in (2048, 4096, 8192)
    )
    assert short < long < longer < 3 * long
    # Measured on a CPU: peaks of 55 to 69 MB and of 74 to 76 MB besides weights and cache.
    assert 45e6 < short < 75e6
    assert 60e6 < long < 95e6


def test_lengths_are_a_few_up_to_the_longest() -> None:
    assert contexts(8192, None) == [512, 2048, 8192]
    assert contexts(2048, None) == [512, 2048]
    assert contexts(256, None) == [256]
    assert contexts(8192, 1000) == [1000]


@pytest.mark.parametrize("asked", [0, -1, 8193])
def test_a_length_that_the_model_does_not_read_is_refused(asked: int) -> None:
    with pytest.raises(RequestError, match=f"--context {asked}: this model reads 1 to 8,192"):
        contexts(8192, asked)


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(RequestError, match="--batch 0"):
        need(inventory(STARTER), 512, batch=0)


def test_formats_are_those_that_the_device_may_choose() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        assert need(inventory(STARTER), 1, dtype=name).weight_bytes == 1000 * dtype.itemsize
