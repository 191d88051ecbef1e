"""If two models cut texts differently, equal logits for equal ids prove nothing to a user."""

from dataclasses import dataclass

import pytest
import tokenizers

from lmwright.core.errors import RequestError
from lmwright.engine.request import Prompt
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.inputs import (
    DIALOGUES,
    TEXTS,
    UNCOMPARED_NAMES,
    built_in,
    choose,
    compare_texts,
)
from lmwright.verification.subject import IdRows, LocalSubject, PromptTokens, Trace

# Of two models that are both here; names of special tokens are another text.
N_ALL = len(TEXTS) + len(DIALOGUES) + 1


@dataclass
class Counter:
    """A subject that tells only how many tokens a text has."""

    of: LocalSubject
    extra: int = 0
    is_silent: bool = False
    name: str = "counter"
    engine: str = "server"
    is_gguf: bool = False
    here: None = None
    weights: str | None = None
    context_length: int | None = None
    n_ids: int | None = None
    tokenizer: Tokenizer | None = None

    def encode(self, prompt: Prompt) -> PromptTokens | None:
        return (
            None if self.is_silent else PromptTokens(self.of.encode(prompt).n_tokens + self.extra)
        )

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        raise AssertionError("only texts are compared")


def test_the_same_tokenizer_agrees_with_itself(original: LocalSubject) -> None:
    found = compare_texts(original, original, ["one more", [1, 2, 3]])
    assert found == (N_ALL + 2, [], [])


def test_counts_are_compared_where_ids_are_not_told(original: LocalSubject) -> None:
    n_same, differences, not_compared = compare_texts(original, Counter(original), [])
    assert (n_same, differences) == (N_ALL - 1, [])
    assert not_compared == [
        UNCOMPARED_NAMES,
        f"the token ids of {N_ALL - 1} texts: only their number is known",
    ]
    n_same, differences, _ = compare_texts(original, Counter(original, extra=1), [])
    assert n_same == 0
    assert "'Hello, world!': 13 tokens, against 14" in differences[0]


def test_silence_is_told(original: LocalSubject) -> None:
    found = compare_texts(original, Counter(original, is_silent=True), [])
    n_same, differences, not_compared = found
    assert (n_same, differences) == (0, [])
    n = N_ALL - 1
    assert not_compared[1].startswith(f"how {n} of {n} texts and dialogues are cut")


def test_dialogues_that_both_refuse_are_the_same(original: LocalSubject, changed) -> None:
    backend = tokenizers.Tokenizer.from_str(original.tokenizer._backend.to_str())
    bare = Tokenizer(backend, special_tokens=original.tokenizer.special_tokens)
    plain = changed(tokenizer=bare)
    assert compare_texts(plain, plain, [])[:2] == (N_ALL, [])
    _, differences, _ = compare_texts(original, plain, [])
    assert len(differences) == len(DIALOGUES)
    assert "refused by copy (this model has no chat template" in differences[0]


def test_what_llama_cpp_is_known_to_cut_otherwise_is_told_and_no_difference(
    original: LocalSubject,
) -> None:
    @dataclass
    class Simpler(Counter):
        def encode(self, prompt: Prompt) -> PromptTokens:
            ids = self.of.encode(prompt).ids or ()
            odd = isinstance(prompt, str) and "cafe\u0301" in prompt
            return PromptTokens(len(ids), (*ids, 5) if odd else ids, is_simplified=odd)

    n_same, differences, not_compared = compare_texts(original, Simpler(original), [])
    assert (n_same, differences) == (N_ALL - 2, [])
    assert "1 texts with accents of their own or capitals" in not_compared[1]


def test_a_text_that_cannot_be_read_is_an_error(original: LocalSubject) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        compare_texts(original, original, ["\ud800"])


def test_the_built_in_prompts_are_varied() -> None:
    prompts = built_in()
    assert len(prompts) == 20
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    assert len(prompts) - len(texts) == 4
    assert max(map(len, texts)) > 1000
    assert sum(not text.isascii() for text in texts) >= 5
    # The light check of an export takes the first ones.
    assert max(map(len, texts[:3])) < 100


def test_prompts_are_cut_by_the_one_that_shows_its_tokens(original: LocalSubject) -> None:
    chosen = choose(original, original, None, n_tokens=4)
    assert len(chosen.ids) == len(chosen.prompts) == 19
    for prompt, ids in zip(chosen.prompts, chosen.ids, strict=True):
        assert list(ids) == list(original.encode(prompt).ids or ())
        assert len(ids) + 4 <= 512


def test_only_the_first_that_fit_are_taken(original: LocalSubject) -> None:
    chosen = choose(original, original, None, n_tokens=4, n_prompts=3)
    assert len(chosen.ids) == 3
    assert chosen.left_out == ()


def test_dialogues_are_left_out_without_a_template(original: LocalSubject) -> None:
    original.tokenizer.chat_template = None
    chosen = choose(original, original, None, n_tokens=4)
    assert len(chosen.ids) == 15
    assert chosen.left_out[1] == "4 built-in dialogues: original has no chat template"
