"""A special token that a user can type is a way into the model's instructions."""

import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.encode import Encoding, Tokenizer
from lmwright.tokenizer.huggingface.folder import load_tokenizer

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


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_the_space_in_front_is_that_of_the_plain_dialogue(scheme, byte_fallback):
    def tokens(content: str) -> list[str]:
        backend = byte_fallback()._backend
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        tokenizer = Tokenizer(
            backend,
            special_tokens={},
            chat_template="{% for m in messages %}{{ m.content }}</s>{% endfor %}",
        )
        messages = [{"role": "user", "content": text} for text in ("a", "a", content)]
        return [backend.id_to_token(id_) for id_ in tokenizer.chat(messages)]

    # Up to the last message, one that spells a special token changes nothing.
    plain, marked = tokens("b"), tokens("b</s>")
    end = plain.index("b")
    assert marked[:end] == plain[:end]
    assert plain.count("\u2581a") == {"first": 1, "always": 2, "never": 0}[scheme]


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


def test_a_dialogue_has_the_bos_that_its_template_writes_and_no_other(byte_fallback):
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
    # As with transformers' apply_chat_template.
    assert silent.chat([{"role": "user", "content": "a"}]) == tokenizer.encode("a", add_bos=False)


def test_no_bos_where_the_tokenizer_adds_none(tokenizer):
    assert tokenizer.special_tokens["bos_token"] == "<|im_start|>"
    assert tokenizer.bos_id is None


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


@pytest.mark.parametrize("pair", [None, "and the other one"])
def test_a_long_text_has_the_tokens_of_its_parts(tiny_tokenizer, pair):
    part = "The bank opens at nine. <|end|> "
    long = tiny_tokenizer.encode_input(part * 1000, pair)
    short = [tiny_tokenizer.encode_input(part * n, pair) for n in (1, 2)]
    n = len(short[1].ids) - len(short[0].ids)
    assert len(long.ids) == len(short[0].ids) + 999 * n
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(part * 1000)) == part * 1000
    with pytest.raises(RequestError, match="half a surrogate pair"):
        tiny_tokenizer.encode(part * 1000 + "\ud800")


def test_a_long_text_does_not_hold_up_other_threads(tiny_tokenizer):
    ticks, is_done = [], threading.Event()

    def tick():
        while not is_done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    started_s = time.perf_counter()
    tiny_tokenizer.encode("The bank opens. " * 20_000)
    taken_s = time.perf_counter() - started_s
    is_done.set()
    ticking.join()
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    assert max(gaps) < taken_s / 2


def test_a_model_without_a_template_takes_no_dialogue(byte_fallback):
    with pytest.raises(RequestError, match="no chat template"):
        Tokenizer(byte_fallback()._backend, special_tokens={}).chat(
            [{"role": "user", "content": "a"}]
        )


def test_an_eos_that_is_not_in_the_vocabulary_is_refused(byte_fallback):
    with pytest.raises(ModelError, match="'<end>' is not in the vocabulary"):
        Tokenizer(byte_fallback()._backend, special_tokens={"eos_token": "<end>"})


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


def test_a_framed_text_stands_between_the_tokens_of_the_post_processor(tiny_tokenizer):
    assert tiny_tokenizer.encode_input("hi") == Encoding(tiny_tokenizer.encode("hi"), [0, 0])
    tiny_tokenizer._backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        pair="<|im_start|> $A <|im_end|> $B:1 <|im_end|>:1",
        special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
    )
    first = tiny_tokenizer.encode("a<|im_end|>", add_bos=False)
    second = tiny_tokenizer.encode("b", add_bos=False)
    framed = tiny_tokenizer.encode_input("a<|im_end|>", "b")
    assert framed.ids == [1, *first, 2, *second, 2]
    assert framed.segments == [0] * (len(first) + 2) + [1, 1]
    assert tiny_tokenizer.encode_target("b") == [1, *second, 2]


def test_masks_count_only_where_asked_and_alone(tiny_tokenizer):
    with pytest.raises(RequestError, match="no mask token"):
        tiny_tokenizer.encode_input("a", reads_masks=True)
    tiny_tokenizer.special_tokens["mask_token"] = "<|endoftext|>"
    text = "the <|endoftext|> opens"
    assert tiny_tokenizer.encode_input(text, reads_masks=True).ids.count(0) == 1
    assert tiny_tokenizer.encode_input(text).ids.count(0) == 0
    assert tiny_tokenizer.encode(text).count(0) == 0
    with pytest.raises(RequestError, match=r"another special token: '<.im_end.>'"):
        tiny_tokenizer.encode_input("a", "<|im_end|>", reads_masks=True)


def test_a_model_without_languages_refuses_them(tiny_tokenizer):
    for ask in (
        lambda: tiny_tokenizer.encode_input("a", source_lang="de"),
        lambda: tiny_tokenizer.encode_target("a", target_lang="de"),
        lambda: tiny_tokenizer.language_id("de"),
        lambda: tiny_tokenizer.set_languages(target="de"),
    ):
        with pytest.raises(RequestError, match="no languages to choose"):
            ask()


def test_a_role_that_is_no_token_is_refused_where_it_is_used(tiny_tokenizer):
    assert tiny_tokenizer.role_id("pad") is None
    tiny_tokenizer.special_tokens["pad_token"] = "<pad>"
    with pytest.raises(ModelError, match="'<pad>' is not in the vocabulary"):
        _ = tiny_tokenizer.role_id("pad")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_a_full_disk_is_the_systems_error(tokenizer, tmp_path, monkeypatch):
    # The library would raise a bare Exception.
    @contextmanager
    def full(path):
        yield Path("/dev/full")

    monkeypatch.setattr("lmwright.tokenizer.encode.replacing", full)
    with pytest.raises(OSError, match="No space left"):
        tokenizer.save(tmp_path)
