"""Other tokens than in training cost a model its wits, silently: rules are known or refused."""

from typing import Any

import pytest
from tokenizers import pre_tokenizers

from lmwright.core.errors import ModelError
from lmwright.tokenizer.gguf.reader import (
    PRE_TOKENIZERS,
    end_ids,
    tokenizer_from_gguf,
)
from lmwright.tokenizer.sentencepiece import merges_from_scores

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["\u0120 \u0120", "1 2", "12 3", "h e", "l l", "he ll", "hell o", "\u0120 hello"]


def byte_level(pre: Any, **changes: Any) -> dict[str, Any]:
    """A GPT-2 kind of vocabulary: two control tokens, one of the user, all bytes, some merges."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = ["<|end|>", "<|start|>", "<think>", *ALPHABET, *merged, "word"]
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3, 3, 4] + [1] * (len(tokens) - 3),
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 0,
        **changes,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in fields.items() if v is not None}


SP_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
SP_PIECES = ["\u2581", "a", "b", "\u2581a", "ab", "\u2581\u2581"]


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """A Llama 2 kind of vocabulary: specials, bytes, pieces with falling scores."""
    fields = {
        "model": "llama",
        "tokens": SP_TOKENS + SP_PIECES,
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(SP_PIECES),
        "scores": [0.0] * 259 + [-float(i) for i in range(len(SP_PIECES))],
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    return {f"tokenizer.ggml.{k}": v for k, v in fields.items() if v is not None}


def tokens_of(metadata: dict[str, Any], text: str, *, specials: bool = False) -> list[str]:
    return tokenizer_from_gguf(metadata).encode(text, add_special_tokens=specials).tokens


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("smollm", ["\u0120\u0120", "1", "2", "3"]),
        ("gpt-2", ["\u0120", "\u0120", "123"]),
        ("tekken", ["\u0120", "\u0120", "1", "2", "3"]),
        ("gpt-4o", ["\u0120", "\u0120", "123"]),
        ("dbrx", ["\u0120", "\u0120", "123"]),
        ("llama-bpe", ["\u0120", "\u0120", "123"]),
        ("qwen2", ["\u0120", "\u0120", "1", "2", "3"]),
    ],
)
def test_each_pre_tokenizer_splits_digits_and_spaces_its_way(pre, tokens):
    assert tokens_of(byte_level(pre), "  123") == tokens


def test_every_known_pre_tokenizer_round_trips_any_text():
    text = "  hello 12\u00bd\n\n\u4f60\u597d \U0001f642\r\n\tdef f(): it's\u00a0<|en|> "
    for pre in PRE_TOKENIZERS:
        tokenizer = tokenizer_from_gguf(byte_level(pre))
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_llama3_takes_whole_words_of_the_vocabulary_without_merges():
    for pre in ("llama-bpe", "tekken"):
        assert tokens_of(byte_level(pre), "word") == ["word"]
    for pre in ("qwen2", "dbrx"):
        assert tokens_of(byte_level(pre), "word") == ["w", "o", "r", "d"]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("tekken", ["Camel", "Case", "ABc", "\u00c9COLE", "'s", "/\n/", "1"]),
        ("gpt-4o", ["Camel", "Case", "ABc", "\u00c9COLE's", "/\n/", "1"]),
        ("llama-bpe", ["CamelCaseABc\u00c9COLE", "'s", "/\n", "/", "1"]),
    ],
)
def test_capitals_and_slashes_are_split_as_the_family_does(pre, pieces):
    split = PRE_TOKENIZERS[pre].split()
    found = split.pre_tokenize_str("CamelCaseABc\u00c9COLE's/\n/1")
    byte_decoder = tokenizer_from_gguf(byte_level(pre)).decoder
    assert [byte_decoder.decode([piece]) for piece, _ in found] == pieces


def test_qwen2_composes_characters_first():
    tokenizer = tokenizer_from_gguf(byte_level("qwen2"))
    assert tokenizer.encode("e\u0301").ids == tokenizer.encode("\u00e9").ids


def test_control_and_user_tokens_are_whole_and_only_control_is_special():
    tokenizer = tokenizer_from_gguf(byte_level("smollm"))
    encoding = tokenizer.encode("hello<|end|><think> hello")
    assert encoding.tokens == ["hello", "<|end|>", "<think>", "\u0120hello"]
    assert encoding.ids[1:3] == [0, 2]
    added = tokenizer.get_added_tokens_decoder()
    assert {i: token.special for i, token in added.items()} == {0: True, 1: True, 2: False}
    assert tokenizer.get_vocab_size() == len(byte_level("smollm")["tokenizer.ggml.tokens"])


@pytest.mark.parametrize(
    ("pre", "changes", "tokens"),
    [
        ("smollm", {}, ["h"]),
        ("llama-bpe", {}, ["<|start|>", "h"]),
        ("llama-bpe", {"add_bos_token": False}, ["h"]),
        ("smollm", {"add_bos_token": True, "add_eos_token": True}, ["<|start|>", "h", "<|end|>"]),
        ("smollm", {"add_eos_token": True}, ["h", "<|end|>"]),
        (
            "smollm",
            {"add_bos_token": True, "add_eos_token": True, "bos_token_id": 0},
            ["<|end|>", "h", "<|end|>"],
        ),
    ],
)
def test_bos_and_eos_are_added_where_the_file_says_so(pre, changes, tokens):
    metadata = byte_level(pre, **changes)
    assert tokens_of(metadata, "h", specials=True) == tokens
    assert tokens_of(metadata, "h", specials=False) == ["h"]


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes():
    metadata = sentencepiece()
    assert tokens_of(metadata, "ab", specials=True) == ["<s>", "\u2581a", "b"]
    assert tokens_of(metadata, "b ab") == ["\u2581", "b", "\u2581a", "b"]
    assert tokens_of(metadata, "\u00e9") == ["\u2581", "<0xC3>", "<0xA9>"]
    tokenizer = tokenizer_from_gguf(metadata)
    for text in ("ab", " ab", "a  b\n", "\u4f60 \U0001f642"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_sentencepiece_puts_its_space_after_special_tokens_too():
    # As llama.cpp and the tokenizer.json of Llama 2 do.
    assert tokens_of(sentencepiece(), "a</s>a") == ["\u2581a", "</s>", "\u2581a"]


def test_sentencepiece_without_space_prefix():
    metadata = sentencepiece(add_space_prefix=False)
    assert tokens_of(metadata, "ab") == ["ab"]
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.decode(tokenizer.encode(" ab").ids) == " ab"


def test_text_never_becomes_a_control_token_letter_by_letter():
    # "</s>" of a user's message would end it; "</" and "s>" are pieces of Llama 2, too.
    metadata = sentencepiece()
    pieces = [*SP_PIECES, "<", "/", "s", ">", "</", "s>", "0", "x", "A", "<0", "x0A>", "0A>", "x0"]
    metadata["tokenizer.ggml.tokens"] = SP_TOKENS + pieces
    metadata["tokenizer.ggml.token_type"] = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    metadata["tokenizer.ggml.scores"] = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    tokenizer = tokenizer_from_gguf(metadata)
    tokenizer.encode_special_tokens = True
    encoding = tokenizer.encode("</s><0x0A>", add_special_tokens=False)
    assert not {2, 3 + 0x0A} & set(encoding.ids)
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == "</s><0x0A>"


def test_all_tokens_that_end_a_reply_are_found():
    metadata = byte_level("smollm")
    tokens = metadata["tokenizer.ggml.tokens"]
    tokens[5:8] = ["<|eot_id|>", "<end_of_turn>", "<|end|>x"]
    types = metadata["tokenizer.ggml.token_type"]
    types[5] = 3
    # Not of the text's own kind: "<end_of_turn>" is a normal token here.
    assert end_ids(metadata) == [0, 5]
    metadata |= {"tokenizer.ggml.eot_token_id": 9, "tokenizer.ggml.eom_token_id": 10}
    assert end_ids(metadata) == [0, 9, 10, 5]
    metadata["tokenizer.ggml.eot_token_id"] = 9999
    with pytest.raises(ModelError, match="eot_token_id = 9999: there are"):
        end_ids(metadata)


def test_merges_are_recovered_in_the_order_of_scores():
    vocabulary = {"a": 0, "b": 1, "ab": 2, "abb": 3, "bb": 4}
    assert merges_from_scores(vocabulary, [0.0, 0.0, -2.0, -1.0, -3.0]) == [
        ("ab", "b"),
        ("a", "bb"),
        ("a", "b"),
        ("b", "b"),
    ]


FAULTS = {
    "unknown kind": (byte_level("smollm", model="bert"), r"model = 'bert'.*known: gpt2, llama"),
    "no kind": (byte_level("smollm", model=None), r"tokenizer\.ggml\.model is missing"),
    "unknown pre": (
        byte_level("falcon"),
        r"pre = 'falcon'.*known: gpt-2, smollm, llama-bpe, dbrx, qwen2, tekken, gpt-4o",
    ),
    # What it stands for depends on the age of the converter.
    "default pre": (byte_level("default"), "the converter did not know how this model splits"),
    "no pre": (byte_level(None), r"tokenizer\.ggml\.pre is missing"),
    "pre is a number": (byte_level(3), "expected str, found int"),
    "no tokens": (byte_level("smollm", tokens=None), "tokens is missing"),
    "empty tokens": (byte_level("smollm", tokens=[]), "expected a list of texts"),
    "tokens are numbers": (byte_level("smollm", tokens=[1, 2]), "expected a list of texts"),
    "token twice": (byte_level("smollm", tokens=["a", "a"]), "a token occurs twice"),
    "no types": (byte_level("smollm", token_type=None), "token_type is missing"),
    "few types": (byte_level("smollm", token_type=[1, 3]), "2 types for 268 tokens"),
    "no merges": (byte_level("smollm", merges=None), "merges is missing"),
    "merge of one": (byte_level("smollm", merges=["h e", "hello"]), "item 2: 'hello' does not"),
    "merge of strangers": (byte_level("smollm", merges=["h zz"]), "item 1: 'h zz' does not"),
    "merge to a stranger": (byte_level("smollm", merges=["h l"]), "item 1: 'h l' does not"),
    "merge is a number": (byte_level("smollm", merges=[7]), "item 1: 7 does not"),
    "bos outside": (
        byte_level("smollm", add_bos_token=True, bos_token_id=9999),
        "bos_token_id = 9999: there are 268 tokens",
    ),
    "bos missing": (
        byte_level("smollm", add_bos_token=True, bos_token_id=None),
        "bos_token_id is missing",
    ),
    "bos flag is a number": (byte_level("smollm", add_bos_token=1), "expected bool, found int"),
    "no scores": (sentencepiece(scores=None), "scores is missing"),
    "few scores": (sentencepiece(scores=[0.0]), "1 scores for 265 tokens"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_known_or_not_right_is_refused(name):
    metadata, message = FAULTS[name]
    with pytest.raises(ModelError, match=message):
        tokenizer_from_gguf(metadata)
