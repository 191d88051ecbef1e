"""What stands on top of the hidden states: words, classes, a number."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.linear import Linear
from lmwright.model.mlp import ACTIVATIONS
from lmwright.model.norm import norm

# Shapes: B batch, T tokens, C model width, V vocabulary, K classes.


class LanguageHead(Linear):
    """Logits of the vocabulary (..., V), scaled before or capped behind where the model does so."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.d_model, config.vocab_size, bias=config.head_bias)
        self.scale, self.softcap = config.head_scale, config.logit_softcap

    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input if self.scale == 1 else input * self.scale)
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap


class MaskedHead(nn.Module):
    """Logits of the vocabulary behind one more layer (BERT's masked-language-model head)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.d_model, config.d_model)
        self.norm = norm(config, config.d_model)
        self.out = Linear(config.d_model, config.vocab_size)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (B, T, V) of hidden states (B, T, C)."""
        return self.out(self.norm(self._activation(self.dense(hidden))))


class Pooler(nn.Module):
    """The first token's state behind one more layer: (B, C)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.d_model, config.d_model)
        self._activation = ACTIVATIONS[config.pooler_activation]

    def forward(self, hidden: Tensor) -> Tensor:
        return self._activation(self.dense(hidden[:, 0]))


class SequenceHead(nn.Module):
    """Classes (B, K) of a whole text, from its pooled first token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pooler = Pooler(config)
        self.out = Linear(config.d_model, len(config.labels))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out(self.pooler(hidden))


class TokenHead(nn.Module):
    """Classes (B, T, K) of each token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.out = Linear(config.d_model, len(config.labels))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out(hidden)


class PretrainingHead(MaskedHead):
    """BERT's two tasks: masked words, and whether the second text follows the first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.next_sentence = Linear(config.d_model, 2)

    def follows(self, hidden: Tensor) -> Tensor:
        """Return logits (B, 2): the second text follows, it does not."""
        return self.next_sentence(self.pooler(hidden))


def answers(logits: Tensor, problem: str) -> Tensor:
    """Return what a classifier's logits (..., K) say: probabilities, or the numbers themselves."""
    if problem == "single_label":
        return F.softmax(logits.float(), dim=-1)
    return logits.float() if problem == "regression" else torch.sigmoid(logits.float())


HEADS = {
    "none": nn.Identity,
    "masked": MaskedHead,
    "pretraining": PretrainingHead,
    "sequence": SequenceHead,
    "tokens": TokenHead,
}
