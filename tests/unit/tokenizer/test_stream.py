"""A reply is read while it is written: no half characters, no lost spaces, nothing told twice."""

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.huggingface.folder import load_tokenizer
from lmwright.tokenizer.stream import REPLACEMENT


@pytest.fixture(scope="module")
def tokenizer(tiny_folder) -> Tokenizer:
    """The tiny tokenizer, read once: hypothesis calls a test a hundred times."""
    return load_tokenizer(tiny_folder)


@pytest.fixture(scope="module")
def fallback(byte_fallback) -> Tokenizer:
    return byte_fallback()


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.stream()
    return [*(decoder.push(id_) for id_ in ids), decoder.finish()]


# The bytes of a smiling face, in any order: most of it is no UTF-8, but some of it is.
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
FACE = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\U0001f642")[0][0]
FACE_IDS = [3 + ALPHABET.index(letter) for letter in FACE]


@given(ids=st.lists(st.sampled_from(FACE_IDS) | st.integers(0, 299), max_size=40))
@example(ids=[*FACE_IDS[1:], *FACE_IDS])
def test_streaming_tells_what_decoding_at_once_tells(tokenizer, ids):
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(st.characters(codec="utf-8") | st.sampled_from(REPLACEMENT), max_size=20))
@example(text=f"{REPLACEMENT}\u00e9")
@example(text=f"a{REPLACEMENT}{REPLACEMENT}\U0001f642{REPLACEMENT}")
@pytest.mark.parametrize("kind", ["bytes", "byte fallback"])
def test_streaming_never_breaks_a_character(tokenizer, fallback, kind, text):
    chosen = tokenizer if kind == "bytes" else fallback
    ids = chosen.encode(text)
    pieces = streamed(chosen, ids)
    assert "".join(pieces) == chosen.decode(ids)
    assert "".join(pieces).count(REPLACEMENT) == text.count(REPLACEMENT)


def test_a_character_survives_tokens_that_end_inside_the_next_one():
    # One token that ends a character and begins another, as byte-level merges may learn.
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    byte_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    written = byte_of.pre_tokenize_str("\U0001f642")[0][0]  # 4 letters for 4 bytes
    alphabet[written[3] + written[0]] = len(alphabet)
    backend = tokenizers.Tokenizer(models.BPE(alphabet, [(written[3], written[0])]))
    backend.pre_tokenizer, backend.decoder = byte_of, decoders.ByteLevel()
    tokenizer = Tokenizer(backend, special_tokens={})
    text = "a" + "\U0001f642" * 3
    ids = tokenizer.encode(text)
    assert len(ids) == 11
    pieces = streamed(tokenizer, ids)
    assert REPLACEMENT not in "".join(pieces)
    assert "".join(pieces) == text
    # Each is told with the token that completes it.
    assert [i for i, piece in enumerate(pieces) if piece] == [0, 4, 7, 10]


def test_what_was_held_back_comes_at_the_end(tokenizer):
    ids = tokenizer.encode("ab\u20ac")[:-1]
    assert streamed(tokenizer, ids)[-1] == REPLACEMENT


def test_spaces_between_streamed_tokens_are_kept(fallback):
    ids = fallback.encode("a a a")
    assert "".join(streamed(fallback, ids)) == "a a a"
