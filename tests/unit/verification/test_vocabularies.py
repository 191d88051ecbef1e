"""Texts reach only some tokens, merges and branches of a template; a copy must have all of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import tokenizers

from lmwright.engine.request import Prompt
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import gguf_tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.subject import IdRows, PromptTokens, Trace
from lmwright.verification.vocabularies import compare_templates, compare_vocabularies


@dataclass
class Read:
    """A subject of which nothing but its tokenizer is asked."""

    tokenizer: Tokenizer
    is_gguf: bool = False
    n_ids: int | None = None
    name: str = "x"
    engine: str = "lmwright"
    weights: str | None = None
    context_length: int | None = None
    here: None = None
    asked: list[Prompt] = field(default_factory=list)

    def encode(self, prompt: Prompt) -> PromptTokens | None:
        raise AssertionError("not asked here")

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        raise AssertionError("not asked here")


def respelt(tokenizer: Tokenizer, change: Callable[[dict], None], **roles: Any) -> Tokenizer:
    spec = json.loads(tokenizer._backend.to_str())
    change(spec)
    options = {"special_tokens": tokenizer.special_tokens, **roles}
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)), **options)


def as_is(spec: dict) -> None:
    """Change nothing."""


def swap_merges(spec: dict) -> None:
    merges = spec["model"]["merges"]
    merges[3], merges[20] = merges[20], merges[3]


def add_token(spec: dict) -> None:
    token = {**spec["added_tokens"][-1], "id": 300, "content": "<|one_more|>"}
    spec["added_tokens"].append(token)


def compared(a: Tokenizer, b: Tokenizer, *, n_ids: int | None = None) -> list[str]:
    return compare_vocabularies(Read(a, n_ids=n_ids), Read(b, n_ids=n_ids))


def test_a_tokenizer_is_itself(tiny_tokenizer: Tokenizer) -> None:
    assert compared(tiny_tokenizer, respelt(tiny_tokenizer, as_is)) == []


def test_swapped_merges_are_found(tiny_tokenizer: Tokenizer) -> None:
    other = respelt(tiny_tokenizer, swap_merges)
    assert tiny_tokenizer.encode("The bank") is not None
    [found] = compared(tiny_tokenizer, other)
    assert found.startswith("merge 4 is (")


def test_an_end_too_many_or_too_few_is_found(tiny_tokenizer: Tokenizer) -> None:
    # Also one that llama.cpp would end with: a folder's own ends are all named.
    more = respelt(tiny_tokenizer, as_is, eos_ids=[0])
    for pair in ((tiny_tokenizer, more), (more, tiny_tokenizer)):
        [found] = compared(*pair)
        assert found.startswith("a reply ends with ")


def test_a_gguf_may_end_with_what_llama_cpp_knows(tiny_tokenizer: Tokenizer) -> None:
    a = Read(tiny_tokenizer)
    metadata = gguf_metadata(tiny_tokenizer)
    assert compare_vocabularies(a, Read(gguf_tokenizer(metadata), is_gguf=True)) == []
    wrong = gguf_tokenizer({**metadata, "tokenizer.ggml.eot_token_id": 40})
    [found] = compare_vocabularies(a, Read(wrong, is_gguf=True))
    assert found.startswith("a reply ends with 2 '<|im_end|>', against 0 ")


@pytest.mark.parametrize("role", ["pad_token", "bos_token", "mask_token"])
def test_another_role_is_found(role: str, tiny_tokenizer: Tokenizer) -> None:
    roles = {**tiny_tokenizer.special_tokens, role: "<|endoftext|>"}
    other = respelt(tiny_tokenizer, as_is, special_tokens=roles)
    [found] = compared(tiny_tokenizer, other)
    assert found.startswith(f"the {role} is ")
    assert found.endswith(", against '<|endoftext|>'")


def test_merges_of_a_gguf_are_compared_too(tiny_tokenizer: Tokenizer) -> None:
    metadata = gguf_metadata(tiny_tokenizer)
    merges = list(metadata["tokenizer.ggml.merges"])
    merges[3], merges[20] = merges[20], merges[3]
    other = gguf_tokenizer({**metadata, "tokenizer.ggml.merges": merges})
    [found] = compare_vocabularies(Read(tiny_tokenizer), Read(other, is_gguf=True))
    assert found.startswith("merge 4 is (")


def test_rows_without_a_token_are_the_same_however_they_are_filled(
    tiny_tokenizer: Tokenizer,
) -> None:
    filled = gguf_tokenizer(gguf_metadata(tiny_tokenizer, vocab_size=310))
    assert filled.vocab_size == 310
    pair = Read(tiny_tokenizer, n_ids=310), Read(filled, is_gguf=True, n_ids=310)
    assert compare_vocabularies(*pair) == []
    assert compare_vocabularies(*reversed(pair)) == [
        "a reply ends with 0 '<|endoftext|>', 2 '<|im_end|>', against 2 '<|im_end|>'"
    ]


def test_a_token_too_many_counts_where_the_model_has_a_row_for_it(
    tiny_tokenizer: Tokenizer,
) -> None:
    more = respelt(tiny_tokenizer, add_token)
    assert compared(more, tiny_tokenizer, n_ids=300) == []
    [found] = compared(more, tiny_tokenizer, n_ids=301)
    assert found == "1 tokens are only in A: 300 '<|one_more|>', ..."
    [found] = compared(tiny_tokenizer, more)
    assert "only in B" in found


TOOL = "{% for m in messages %}{% if m.role == 'tool' %}T{% endif %}{{ m.content }}{% endfor %}"


def test_a_template_that_differs_where_no_dialogue_goes_is_found(
    tiny_tokenizer: Tokenizer,
) -> None:
    first, second, none = (
        respelt(tiny_tokenizer, as_is, chat_template=source)
        for source in (TOOL, TOOL.replace("T{%", "X{%"), None)
    )
    assert compare_templates(first, first) is None
    assert compare_templates(none, none) is None
    found = compare_templates(first, second)
    assert found is not None
    assert found.startswith(f"from character {TOOL.index('T{%') + 1} on: 'T{{%")
    assert compare_templates(first, none) == "only one of the two has a chat template"
    # Jinja drops it.
    line = respelt(tiny_tokenizer, as_is, chat_template=f"{TOOL}\n")
    assert compare_templates(first, line) is None
