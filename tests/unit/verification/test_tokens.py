"""If two models cut texts differently, equal logits for equal ids prove nothing to a user."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import tokenizers

from lmwright.core.errors import RequestError
from lmwright.engine.request import Prompt
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.local import LocalWitness
from lmwright.verification.tokens import (
    DIALOGUES,
    TEXTS,
    UNCOMPARED_NAMES,
    compare_texts,
    compare_vocabularies,
)
from lmwright.verification.witness import Encoded, Trace

# Of two models that are both here; names of special tokens are another text.
N_ALL = len(TEXTS) + len(DIALOGUES) + 1


@dataclass
class Counter:
    """A witness that tells only how many tokens a text has."""

    of: LocalWitness
    extra: int = 0
    is_silent: bool = False
    name: str = "counter"
    engine: str = "server"
    weights: str | None = None
    context_length: int | None = None
    n_ids: int | None = None
    tokenizer: Tokenizer | None = None

    def encode(self, prompt: Prompt) -> Encoded | None:
        return None if self.is_silent else Encoded(self.of.encode(prompt).n_tokens + self.extra)

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        *,
        along: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        raise AssertionError("only texts are compared")


def test_the_same_tokenizer_agrees_with_itself(original: LocalWitness) -> None:
    found = compare_texts(original, original, ["one more", [1, 2, 3]])
    assert (found.n_same, found.differences, found.not_compared) == (N_ALL + 2, (), ())
    assert compare_vocabularies(original.tokenizer, original.tokenizer) == []


def test_counts_are_compared_where_ids_are_not_told(original: LocalWitness) -> None:
    found = compare_texts(original, Counter(original), [])
    assert (found.n_same, found.differences) == (N_ALL - 1, ())
    assert found.not_compared == (
        UNCOMPARED_NAMES,
        f"the token ids of {N_ALL - 1} texts: only their number is known",
    )
    found = compare_texts(original, Counter(original, extra=1), [])
    assert found.n_same == 0
    assert "'Hello, world!': 13 tokens, against 14" in found.differences[0]


def test_silence_is_told(original: LocalWitness) -> None:
    found = compare_texts(original, Counter(original, is_silent=True), [])
    assert (found.n_same, found.differences) == (0, ())
    n = N_ALL - 1
    assert found.not_compared[1].startswith(f"how {n} of {n} texts and dialogues are cut")


def test_dialogues_that_both_refuse_are_the_same(original: LocalWitness, changed) -> None:
    backend = tokenizers.Tokenizer.from_str(original.tokenizer._backend.to_str())
    bare = Tokenizer(backend, special_tokens=original.tokenizer.special_tokens)
    plain = changed(tokenizer=bare)
    found = compare_texts(plain, plain, [])
    assert (found.n_same, found.differences) == (N_ALL, ())
    found = compare_texts(original, plain, [])
    assert len(found.differences) == len(DIALOGUES)
    assert "refused by copy (this model has no chat template" in found.differences[0]


def test_a_text_that_cannot_be_read_is_an_error(original: LocalWitness) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        compare_texts(original, original, ["\ud800"])
