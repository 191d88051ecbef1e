"""What a tokenizer is made of, as data: the one place that reads the library's own JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tokenizers

# A step of a normaliser, a pre-tokenizer or a decoder: its "type", and that type's options.
TextRule = Mapping[str, Any]


@dataclass(frozen=True)
class AddedTokenSpec:
    """A token that is looked for in a text before the text is split."""

    id: int
    text: str
    is_special: bool
    # Whether it takes the white space before and behind it, and whether it must be a whole word.
    lstrip: bool
    rstrip: bool
    single_word: bool


@dataclass(frozen=True)
class TokenizerSpec:
    """What a tokenizer does to a text, in order; sequences of rules are unfolded."""

    normalizer: tuple[TextRule, ...]
    pre_tokenizer: tuple[TextRule, ...]
    # BPE, Unigram, WordPiece or WordLevel.
    algorithm: str
    # Without the added tokens.
    vocabulary: Mapping[str, int]
    # BPE's, in their order.
    merges: tuple[tuple[str, str], ...]
    # What else the algorithm is told: unk_token, byte_fallback, ignore_merges, dropout, ...
    options: Mapping[str, Any]
    added: tuple[AddedTokenSpec, ...]
    decoder: tuple[TextRule, ...]

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The token of each id, added ones included."""
        texts = {id_: token for token, id_ in self.vocabulary.items()}
        return texts | {token.id: token.text for token in self.added}


def read_spec(backend: tokenizers.Tokenizer) -> TokenizerSpec:
    """Return what a tokenizer of the library is made of."""
    spec = json.loads(backend.to_str())
    model: dict[str, Any] = spec["model"]
    vocabulary = model.pop("vocab")
    if isinstance(vocabulary, list):  # Unigram's: tokens with their scores
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    flags = ("lstrip", "rstrip", "single_word")
    return TokenizerSpec(
        normalizer=_rules(spec["normalizer"], "normalizers"),
        pre_tokenizer=_rules(spec["pre_tokenizer"], "pretokenizers"),
        algorithm=model.pop("type"),
        vocabulary=vocabulary,
        merges=tuple((left, right) for left, right in model.pop("merges", [])),
        options=model,
        added=tuple(
            AddedTokenSpec(
                token["id"],
                token["content"],
                is_special=token["special"],
                **{flag: token[flag] for flag in flags},
            )
            for token in spec["added_tokens"]
        ),
        decoder=_rules(spec["decoder"], "decoders"),
    )


def _rules(step: Mapping[str, Any] | None, name: str) -> tuple[TextRule, ...]:
    if step is None:
        return ()
    if step["type"] != "Sequence":
        return (step,)
    return tuple(rule for inner in step[name] for rule in _rules(inner, name))
