"""What a classifier says is read by people: its numbers must be what they look like."""

from dataclasses import replace

import pytest
import torch

from lmwright.core.errors import ModelError
from lmwright.model.heads import LanguageHead, SequenceHead, TokenHead, answers


def test_logits_are_scaled_before_and_capped_behind(tiny_config):
    head = LanguageHead(replace(tiny_config, head_scale=0.25, logit_softcap=2.0, head_bias=True))
    x = torch.randn(3, tiny_config.d_model) * 10
    logits = (x * 0.25) @ head.weight.T + head.bias
    torch.testing.assert_close(head(x), 2 * torch.tanh(logits / 2))


def test_a_sequence_head_reads_the_first_token_only(tiny_config):
    head = SequenceHead(replace(tiny_config, head="sequence", labels=("no", "yes", "maybe")))
    hidden = torch.randn(2, 5, tiny_config.d_model)
    changed = hidden.clone()
    changed[:, 1:] = 0
    assert head(hidden).shape == (2, 3)
    assert torch.equal(head(hidden), head(changed))


def test_a_token_head_reads_each_token(tiny_config):
    head = TokenHead(replace(tiny_config, head="tokens", labels=("O", "NAME")))
    assert head(torch.randn(2, 5, tiny_config.d_model)).shape == (2, 5, 2)


def test_answers_are_probabilities_or_the_number_itself():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(answers(logits, "single_label").sum(), torch.tensor(1.0))
    torch.testing.assert_close(answers(logits, "multi_label"), logits.sigmoid())
    assert torch.equal(answers(logits, "regression"), logits)


def test_a_classifier_without_labels_is_refused(tiny_config):
    with pytest.raises(ModelError, match="needs labels"):
        replace(tiny_config, head="sequence")
