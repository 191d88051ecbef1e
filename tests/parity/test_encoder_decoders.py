"""Encoder-decoders must compute what transformers computes, whole and step by step."""

import functools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cached_rows import CachedRows
from families import ENCODER_DECODERS, LIMIT
from lmwright.core.errors import ModelError
from lmwright.model import checkpoint
from lmwright.model.families import family

differences = pytest.importorskip("differences", reason="needs the `dev` extra")
pair, tokens, largest = differences.pair, differences.tokens, differences.largest


@pytest.fixture(params=ENCODER_DECODERS)
def name(request):
    return request.param


def test_the_setting_under_test_reached_our_configuration(name):
    config = pair(name).ours.config
    for field, value in ENCODER_DECODERS[name].shows.items():
        assert functools.reduce(getattr, field.split("."), config) == value, field


@torch.no_grad()
def test_without_the_setting_under_test_the_logits_are_others(name):
    """What follows proves something only where a mistake would be seen."""
    ours = pair(name).ours
    config = replace(ours.config, **ENCODER_DECODERS[name].undone)
    other = family(config.family).assembly(config)
    other.load_state_dict(ours.state_dict())
    sources, targets = differences.sources_and_targets()
    assert largest(other(sources, targets), ours(sources, targets)) > 100 * LIMIT


def test_logits_of_whole_rows(name):
    assert differences.full_forward(pair(name)) <= LIMIT


def test_logits_of_sources_of_different_lengths(name):
    assert differences.padded_batch(pair(name)) <= LIMIT


def test_logits_step_by_step_with_the_encoders_keys_and_values_kept(name):
    assert differences.cached_decoding(pair(name)) <= LIMIT


def test_transformers_opens_our_folder_with_the_same_logits(name):
    assert differences.saved(pair(name)) <= LIMIT


@torch.no_grad()
def test_padding_that_is_not_masked_is_seen(name):
    ours = pair(name).ours
    sources, targets = differences.sources_and_targets()
    padded = torch.cat((sources, torch.zeros(2, 5, dtype=torch.int64)), dim=1)
    assert largest(ours(padded, targets), ours(sources, targets)) > 100 * LIMIT


@torch.no_grad()
def test_rows_of_a_beam_take_cache_and_memory_along(name):
    """Beam search drops and doubles rows; each must go on as if it had been alone."""
    ours = pair(name).ours
    sources, targets = differences.sources_and_targets()
    rows, order = CachedRows(ours, 2, ours.encode(sources)), [1, 1, 0]
    rows.logits(targets[:, :9])
    rows.select(order)
    new = torch.cat((targets[:, 9:10], targets[:1, 10:11]))  # another one in the third row
    found = rows.logits(new)
    for row, source in enumerate(order):
        alone = torch.cat((targets[source, :9], new[row]))[None]
        expected = pair(name).theirs(
            input_ids=sources[source : source + 1], decoder_input_ids=alone
        )
        assert largest(found[row], expected.logits[0, -1:]) <= LIMIT


def resaved(name, folder, change):
    """Open a folder of transformers with other tensors."""
    pair(name).theirs.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return checkpoint.load_folder(folder, torch.float32)


COPIES = {
    "t5": ("shared.weight", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]),
    "bart": (
        "model.shared.weight",
        ["model.encoder.embed_tokens.weight", "lm_head.weight"],
    ),
    "marian": ("model.shared.weight", ["model.decoder.embed_tokens.weight", "lm_head.weight"]),
}


@pytest.mark.parametrize("name", COPIES)
def test_an_embedding_that_is_stored_again_is_accepted_if_it_is_the_same(name, tmp_path):
    source, names = COPIES[name]

    def copied(tensors):
        tensors |= {key: tensors[source].clone() for key in names}

    ours = resaved(name, tmp_path, copied)
    expected = pair(name).ours.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.state_dict().items())

    def changed(tensors):
        tensors[names[0]] = tensors[source] + 1

    with pytest.raises(ModelError, match=f"{names[0]}.*differs"):
        resaved(name, tmp_path, changed)


@torch.no_grad()
def test_a_bias_of_the_logits_that_is_left_out_is_zero(tmp_path):
    """Older files of Marian and BART lack it."""
    ours = resaved("marian", tmp_path, lambda tensors: tensors.pop("final_logits_bias"))
    sources, targets = differences.sources_and_targets()
    bias = pair("marian").ours.head.bias
    expected = pair("marian").theirs(input_ids=sources, decoder_input_ids=targets).logits
    assert bias.abs().max() > 0.9
    assert largest(ours(sources, targets) + bias, expected) <= LIMIT


def test_sinusoids_in_a_file_are_left_alone(tmp_path):
    def with_sinusoids(tensors):
        tensors["model.encoder.embed_positions.weight"] = torch.ones(64, 32)

    ours = resaved("marian", tmp_path, with_sinusoids)
    assert ours.config == pair("marian").ours.config


@pytest.mark.parametrize("name", ["bart", "mbart", "marian"])
def test_towers_of_different_widths_are_refused(name, tmp_path):
    pair(name).theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "decoder_ffn_dim": 64}), encoding="utf-8")
    with pytest.raises(ModelError, match="decoder_ffn_dim = 64"):
        checkpoint.load_folder(tmp_path, torch.float32)
