"""Encoders must say what transformers says: each head, each text of a batch, old files too."""

import functools
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import ENCODERS, LIMIT
from lmwright.core.errors import ModelError
from lmwright.model import checkpoint
from lmwright.model.families import family
from lmwright.model.heads import answers

differences = pytest.importorskip("differences", reason="needs the `dev` extra")
pair, tokens, largest = differences.pair, differences.tokens, differences.largest


@pytest.fixture(params=ENCODERS)
def name(request):
    return request.param


def test_the_setting_under_test_reached_our_configuration(name):
    config = pair(name).ours.config
    for field, value in ENCODERS[name].shows.items():
        assert functools.reduce(getattr, field.split("."), config) == value, field


@torch.no_grad()
def test_with_another_epsilon_the_answers_are_others(name):
    """What follows proves something only where a mistake would be seen."""
    ours = pair(name).ours
    other = family(ours.config.family).assembly(replace(ours.config, **ENCODERS[name].undone))
    other.load_state_dict(ours.state_dict())
    ids = tokens(2, differences.N_TOKENS)
    assert largest(other(ids), ours(ids)) > 200 * LIMIT
    assert largest(ours(ids[:1]), ours(ids[1:])) > 500 * LIMIT


@pytest.mark.parametrize("name", ["bert-none", "roberta-none", "distilbert-none"])
@torch.no_grad()
def test_padding_that_is_not_masked_is_seen(name):
    ours, ids = pair(name).ours, tokens(1, 20)
    padded = torch.cat((ids, torch.zeros(1, 5, dtype=torch.int64)), dim=1)
    assert largest(ours(padded)[:, :20], ours(ids)) > 100 * LIMIT


def test_answers_of_whole_rows(name):
    assert differences.full_forward(pair(name)) <= LIMIT


def test_answers_of_a_padded_batch(name):
    assert differences.padded_batch(pair(name)) <= LIMIT


def test_transformers_opens_our_folder_with_the_same_answers(name):
    assert differences.saved(pair(name)) <= LIMIT


def rewritten(name, folder, *, rename=lambda key: key, without=(), **settings):
    """Open a folder of transformers whose tensors and config.json are those of an older file."""
    pair(name).theirs.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = {rename(key): tensor for key, tensor in load_file(path).items()}
    save_file({k: v for k, v in tensors.items() if not k.startswith(without)}, path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")
    return checkpoint.load_folder(folder, torch.float32)


def same_weights(model, other):
    expected = other.state_dict()
    assert model.state_dict().keys() == expected.keys()
    return all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def old_name(key):
    key = key.replace("LayerNorm.weight", "LayerNorm.gamma")
    return key.replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("name", ["bert-masked", "bert-none"])
def test_the_names_of_berts_first_release_are_read(name, tmp_path):
    ours = rewritten(name, tmp_path, rename=old_name)
    assert any(key.endswith("gamma") for key in load_file(tmp_path / "model.safetensors"))
    assert same_weights(ours, pair(name).ours)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_model_without_head_is_read_with_and_without_its_prefix(kind, tmp_path):
    """Sentence embeddings lie in either kind of folder."""
    name = f"{kind}-none"
    prefixed = rewritten(name, tmp_path / "with", rename=lambda key: f"{kind}.{key}")
    plain = rewritten(name, tmp_path / "without")
    assert same_weights(prefixed, pair(name).ours)
    assert same_weights(plain, pair(name).ours)


def test_buffers_that_older_files_carry_are_left_alone(tmp_path):
    pair("bert-none").theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "embeddings.position_ids": torch.arange(64)[None]}, path)
    assert same_weights(checkpoint.load_folder(tmp_path, torch.float32), pair("bert-none").ours)


def test_a_masked_model_that_holds_both_tasks_of_bert_keeps_both(tmp_path):
    """bert-base-uncased calls itself BertForMaskedLM and holds the next-sentence head as well."""
    ours = rewritten("bert-pretraining", tmp_path, architectures=["BertForMaskedLM"])
    assert ours.config == pair("bert-pretraining").ours.config
    assert same_weights(ours, pair("bert-pretraining").ours)


@torch.no_grad()
def test_a_model_without_pooler_has_none(tmp_path):
    ours = rewritten("bert-none", tmp_path, without="pooler.")
    ids = tokens(2, 20)
    assert ours.pooler is None
    assert largest(ours(ids), pair("bert-none").theirs(ids).last_hidden_state) <= LIMIT


@pytest.mark.parametrize("name", ["bert-masked", "roberta-masked"])
def test_a_masked_head_with_a_matrix_of_its_own_is_refused(name, tmp_path):
    """It would have two biases in its file, of which transformers uses the other one."""
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        rewritten(name, tmp_path, tie_word_embeddings=False)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@torch.no_grad()
def test_what_classifiers_say(kind):
    """Probabilities of one class, of each class, or the number itself."""
    ids = tokens(4, 12)
    for head, expected in (
        ("sequence", lambda logits: logits.softmax(-1)),
        ("multi-label", torch.sigmoid),
        ("regression", lambda logits: logits),
    ):
        ours, theirs = pair(f"{kind}-{head}").ours, pair(f"{kind}-{head}").theirs
        found = answers(ours(ids), ours.config.problem)
        assert largest(found, expected(theirs(ids).logits)) <= LIMIT


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_names_of_labels_reach_transformers(kind, tmp_path):
    checkpoint.save(pair(f"{kind}-multi-label").ours, tmp_path, torch.float32)
    config = differences.transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "good", 1: "bad", 2: "ugly"}
    assert config.label2id == {"good": 0, "bad": 1, "ugly": 2}
    assert config.problem_type == "multi_label_classification"
