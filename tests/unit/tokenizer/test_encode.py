"""A special token that a user can type is a way into the model's instructions."""

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.encode import REPLACEMENT, Tokenizer
from lmwright.tokenizer.load import load_tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Whole special tokens, their pieces, and what may stand around them.
PIECES = st.sampled_from(
    [*SPECIALS, "<|", "|>", "<|im_", "im_end|>", "<", ">", "user\n", "\n", " ", "a", "\u00e4",
     "\ufdd0", "\ufdd1", "\U0001f642"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder) -> Tokenizer:
    """The tiny tokenizer, read once: hypothesis calls a test a hundred times."""
    return load_tokenizer(tiny_folder)


def byte_fallback() -> Tokenizer:
    """SentencePiece's way: <s> in front, spaces as an underscore, unknown characters as bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for piece in [*(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581a", *"abc"]:
        vocabulary[piece] = len(vocabulary)
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, [("\u2581", "a")], byte_fallback=True, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(
        backend,
        special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        chat_template="{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}",
    )


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.stream()
    return [*(decoder.push(id_) for id_ in ids), decoder.finish()]


@given(text=TEXTS)
def test_special_tokens_in_a_text_are_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not {0, 1, 2} & set(ids)
    assert tokenizer.decode(ids, skip_special=False) == text


@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_special_tokens_in_messages_are_text(tokenizer, texts):
    ids = tokenizer.chat([{"role": "user", "content": text} for text in texts])
    # The specials of the template, and no others.
    assert [i for i in ids if i < 3] == [1, 2] * len(texts) + [1]
    said = "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in texts)
    assert tokenizer.decode(ids, skip_special=False) == said + "<|im_start|>assistant\n"


def test_the_tokens_around_a_marked_special_are_those_of_the_plain_dialogue(tokenizer):
    plain = tokenizer.chat([{"role": "user", "content": "What does a card cost?"}])
    marked = tokenizer.chat(
        [
            {"role": "user", "content": "What does a card cost?"},
            {"role": "user", "content": SPECIALS[2]},
        ]
    )
    n_shared = len(plain) - len(tokenizer.encode("assistant\n"))
    assert marked[:n_shared] == plain[:n_shared]


@pytest.mark.parametrize("content", ["<a><b", "x", "<a>x<a><b", "a><b><a>"])
def test_special_tokens_that_overlap_or_are_one_character_are_text_too(content):
    backend = tokenizers.Tokenizer(
        models.BPE({c: i for i, c in enumerate("<>abxy")}, [], unk_token="y")
    )
    backend.add_special_tokens(["<a>", "a><b", "x"])
    tokenizer = Tokenizer(
        backend, special_tokens={}, chat_template="{{ messages[0].content }}{{ '<a>' }}"
    )
    ids = tokenizer.chat([{"role": "user", "content": content}])
    assert ids == ["<>abxy".index(c) for c in content] + [backend.token_to_id("<a>")]


def test_there_is_exactly_one_bos():
    tokenizer = byte_fallback()
    assert tokenizer.bos_id == 1
    assert tokenizer.encode("a").count(1) == 1
    assert tokenizer.encode("a", add_bos=False).count(1) == 0
    # The template writes one itself; a content that looks like one is text.
    ids = tokenizer.chat([{"role": "user", "content": "<s>"}])
    assert ids[0] == 1
    assert ids.count(1) == 1
    silent = Tokenizer(
        tokenizer._backend,
        special_tokens=tokenizer.special_tokens,
        chat_template="{{ messages[0].content }}",
    )
    assert silent.chat([{"role": "user", "content": "a"}]) == tokenizer.encode("a")


def test_no_bos_where_the_tokenizer_adds_none(tokenizer):
    assert tokenizer.special_tokens["bos_token"] == "<|im_start|>"
    assert tokenizer.bos_id is None


# The bytes of a smiling face, in any order: most of it is no UTF-8, but some of it is.
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
FACE = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\U0001f642")[0][0]
FACE_IDS = [3 + ALPHABET.index(letter) for letter in FACE]


@given(ids=st.lists(st.sampled_from(FACE_IDS) | st.integers(0, 299), max_size=40))
@example(ids=[*FACE_IDS[1:], *FACE_IDS])
def test_streaming_tells_what_decoding_at_once_tells(tokenizer, ids):
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(st.characters(exclude_characters=REPLACEMENT, codec="utf-8"), max_size=20))
@pytest.mark.parametrize("kind", ["bytes", "byte fallback"])
def test_streaming_never_breaks_a_character(tokenizer, kind, text):
    chosen = tokenizer if kind == "bytes" else FALLBACK
    ids = chosen.encode(text)
    pieces = streamed(chosen, ids)
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert "".join(pieces) == chosen.decode(ids)


FALLBACK = byte_fallback()


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


def test_spaces_between_streamed_tokens_are_kept():
    ids = FALLBACK.encode("a a a")
    assert "".join(streamed(FALLBACK, ids)) == "a a a"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages is empty"),
        ([{"role": "user", "content": "a"}, {"role": "boss", "content": "a"}], r"messages\[1\]"),
        ([{"role": "user"}], r"messages\[0\].content is NoneType"),
        ([{"role": "user", "content": [1]}], r"messages\[0\].content is list"),
        ([{"role": "user", "content": "a"}, "hello"], r"messages\[1\] = 'hello'"),
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_place(tokenizer, messages, expected):
    with pytest.raises(RequestError, match=expected):
        tokenizer.chat(messages)


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(RequestError, match="surrogate"):
        tokenizer.encode("a\ud83d")
    with pytest.raises(RequestError, match="surrogate"):
        tokenizer.chat([{"role": "user", "content": "<|im_end|>\ud83d"}])


def test_a_model_without_a_template_takes_no_dialogue():
    with pytest.raises(RequestError, match="no chat template"):
        Tokenizer(FALLBACK._backend, special_tokens={}).chat([{"role": "user", "content": "a"}])


def test_an_eos_that_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(ModelError, match="'<end>' is not in the vocabulary"):
        Tokenizer(FALLBACK._backend, special_tokens={"eos_token": "<end>"})


@pytest.mark.parametrize(
    "text", ["You are a bank.", 'A "quote"\nand {{ 1 + 1 }} \\ \u00fc \U0001f600 %}']
)
def test_a_default_system_message_is_used_where_a_dialogue_has_none(tiny_tokenizer, text):
    user = {"role": "user", "content": "Hi"}
    explicit = tiny_tokenizer.chat([{"role": "system", "content": text}, user])
    other = tiny_tokenizer.chat([{"role": "system", "content": "other"}, user])
    tiny_tokenizer.set_default_system(text)
    assert tiny_tokenizer.chat([user]) == explicit
    assert tiny_tokenizer.chat([{"role": "system", "content": "other"}, user]) == other
