"""Who buys memory by these numbers must get what the engine really holds."""

from dataclasses import replace

import pytest
import torch

from lmwright.core.stage import PROCESS_BYTES
from lmwright.engine.rows import Rows
from lmwright.engine.torch.decoder import TorchDecoder
from lmwright.engine.torch.seq2seq import TorchSeq2Seq
from lmwright.model.cache import BLOCK_SIZE
from lmwright.model.config import ModelConfig
from lmwright.model.memory import MemoryModel, MemoryNeed, inference_bytes, training_bytes
from lmwright.model.transformer import DecoderLM, EncoderDecoderLM
from lmwright.tokenizer.encode import Tokenizer

STARTER = ModelConfig(
    family="llama", vocab_size=49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3,
    d_head=64, d_ff=1536, max_positions=8192,
)  # fmt: skip


def need(
    config: ModelConfig,
    length: int,
    assembly: str = "decoder",
    *,
    batch: int = 1,
    dtype: str = "float32",
) -> MemoryNeed:
    found = MemoryModel(config, assembly, n_params=1000, dtype=dtype, max_chunk=2048)
    return found.need(length, batch=batch)


def test_keys_and_values_are_those_computed_by_hand() -> None:
    found = need(STARTER, 2048, batch=3, dtype="bfloat16")
    # Two of them, 30 layers, 3 heads of 64, two bytes each.
    assert found.cache_bytes == 3 * 2048 * (2 * 30 * 3 * 64 * 2) == 141_557_760
    assert found.weight_bytes == 2000  # as it computes, not as it is stored
    assert found.cross_cache_bytes == 0
    assert found.total_bytes == PROCESS_BYTES + 2000 + 141_557_760 + found.activation_bytes


def held_bytes(rows: Rows) -> int:
    """Return the bytes of all blocks of keys and values that a batch's session holds."""
    cache = rows._session._cache  # type: ignore[attr-defined]
    return sum(each.nbytes for each in (*cache.keys, *cache.values) if each is not None)


@pytest.mark.parametrize("window", [None, 8])
def test_the_cache_of_the_engine_has_so_many_bytes(
    window: int | None, tiny_config: ModelConfig
) -> None:
    config = replace(tiny_config, sliding_window=window)
    model = DecoderLM(config).requires_grad_(False)
    n_tokens = 4 * BLOCK_SIZE
    rows = Rows(TorchDecoder(model), [[5] * n_tokens, [6] * n_tokens], max_rows=2)
    assert held_bytes(rows) == need(config, n_tokens, batch=2).cache_bytes


def test_while_it_grows_the_engine_holds_less_than_twice_that(tiny_model: DecoderLM) -> None:
    rows = Rows(TorchDecoder(tiny_model), [[5] * 65], max_rows=1)
    rows.decode([5])
    counted = need(tiny_model.config, 66).cache_bytes
    assert counted < held_bytes(rows) < 2 * counted


def test_an_encoder_decoder_keeps_its_source_in_every_layer_of_the_decoder(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer
) -> None:
    config = replace(tiny_config, n_layers=3, n_decoder_layers=2, decoder_start_id=0)
    model = EncoderDecoderLM(config).requires_grad_(False)
    n_tokens = 4 * BLOCK_SIZE
    rows = Rows(TorchSeq2Seq(model, tiny_tokenizer), [[5] * n_tokens] * 2, max_rows=2)
    for _ in range(n_tokens - 1):  # the start token is the first
        rows.decode([5, 5])
    found = need(config, n_tokens, "encoder-decoder", batch=2)
    memories = rows._session._memories.values()  # type: ignore[attr-defined]
    cross = [each for memory in memories for pair in memory._kept.values() for each in pair]
    assert found.cross_cache_bytes == sum(each.nbytes for each in cross)
    assert found.cache_bytes == held_bytes(rows)


def test_an_encoder_keeps_nothing() -> None:
    found = need(STARTER, 512, "encoder")
    assert (found.cache_bytes, found.cross_cache_bytes) == (0, 0)
    assert found.activation_bytes > 0


def test_a_pass_is_bounded_though_the_context_is_not() -> None:
    short, long, longer = (
        need(STARTER, length, dtype="bfloat16").activation_bytes for length in (2048, 4096, 8192)
    )
    assert short < long < longer < 3 * long
    # Measured on a CPU: peaks of 55 to 69 MB and of 74 to 76 MB besides weights and cache.
    assert 45e6 < short < 75e6
    assert 60e6 < long < 95e6


def test_formats_are_those_that_the_device_may_choose() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        assert need(STARTER, 1, dtype=name).weight_bytes == 1000 * dtype.itemsize


def test_what_is_said_of_a_size_alone_is_near_what_a_configuration_says() -> None:
    n_params = 134_515_008
    exact = MemoryModel(STARTER, "decoder", n_params, "float32", max_chunk=2048).need(2048)
    assert inference_bytes(n_params) == pytest.approx(exact.total_bytes, rel=0.2)
    assert inference_bytes(n_params, n_models=2) - inference_bytes(n_params) == 4 * n_params


def test_training_all_weights_takes_sixteen_bytes_more_for_each() -> None:
    some, whole = (
        training_bytes(1_000_000, trains_all=trains_all, micro_batch_tokens=100)
        for trains_all in (False, True)
    )
    assert some == PROCESS_BYTES + 2_000_000 + 100 * 100 * 1000
    assert whole - some == 16_000_000
