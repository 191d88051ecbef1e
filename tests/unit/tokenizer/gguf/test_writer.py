"""A tokenizer that llama.cpp follows by other rules ruins a good model: known rules, or none."""

from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from lmwright.core.errors import ModelError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import PRE_TOKENIZERS, gguf_tokenizer
from lmwright.tokenizer.gguf.writer import gguf_metadata, harmless_name, is_simplified
from lmwright.tokenizer.sentencepiece import merges_from_scores

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIALS = ["<|end|>", "<|start|>"]
ROLES = {"bos_token": "<|start|>", "eos_token": "<|end|>"}
MERGES = [
    "\u0120 \u0120",
    "1 2",
    "12 3",
    "h e",
    "l l",
    "he ll",
    "hell o",
    "\u0120 hello",
    "\u010a \u010a",
]


def byte_level(pre: str = "smollm", *, roles: dict[str, str] = ROLES, **settings: Any) -> Tokenizer:
    """A GPT-2 kind: two control tokens, all bytes, some merges, one token of the user's."""
    rules = PRE_TOKENIZERS[pre]
    merges = [(left, right) for left, right in (merge.split() for merge in MERGES)]
    tokens = [*SPECIALS, *ALPHABET, *("".join(merge) for merge in merges)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, merges, ignore_merges=rules.ignores_merges)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = rules.split()
    backend.decoder = decoders.ByteLevel()
    if rules.composes:
        backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(SPECIALS)
    backend.add_tokens([AddedToken("<think>", normalized=False)])
    return Tokenizer(backend, special_tokens=roles, **settings)


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
HEADS = ["<unk>", "<s>", "</s>"]
PIECES = [
    "\u2581",
    "a",
    "b",
    "c",
    "1",
    "\n",
    ".",
    "\u2581a",
    "ab",
    "\u2581ab",
    "abc",
    "\u2581\u2581",
]


def sentencepiece(*, has_prefix: bool = True, tail: tuple[str, ...] = ()) -> Tokenizer:
    """Llama 2's kind, as Hugging Face writes it; `tail` are further pieces."""
    pieces = [*PIECES, *tail]
    vocabulary = {token: i for i, token in enumerate([*HEADS, *BYTES, *pieces])}
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    merges = merges_from_scores(vocabulary, scores, apart={*HEADS, *BYTES})
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    steps: list[Any] = [normalizers.Prepend("\u2581")] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    decode: list[Any] = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(
        [*decode, decoders.Strip(" ", 1, 0)] if has_prefix else decode
    )
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in HEADS])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(backend, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})


def ggml(tokenizer: Tokenizer, **options: Any) -> dict[str, Any]:
    metadata = gguf_metadata(tokenizer, **options)
    return {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}


KINDS: dict[str, Callable[[], Tokenizer]] = {
    **{name: lambda name=name: byte_level(name) for name in PRE_TOKENIZERS},
    "prefix": sentencepiece,
    "no prefix": lambda: sentencepiece(has_prefix=False),
}
PAIRS = {
    name: (tokenizer, gguf_tokenizer(gguf_metadata(tokenizer)))
    for name, tokenizer in ((name, make()) for name, make in KINDS.items())
}
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text("ab c1\n.hello2 3\t\u0301\u00e9'S/", max_size=30),
)


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_every_text_has_the_same_tokens_after_the_round_trip(name, text):
    ours, again = PAIRS[name]
    ids = ours.encode(text)
    assert again.encode(text) == ids
    assert again.decode(ids) == ours.decode(ids)


@pytest.mark.parametrize("name", PAIRS)
def test_the_round_trip_keeps_all_that_a_tokenizer_knows(name):
    ours, again = PAIRS[name]
    assert again.special_tokens == ours.special_tokens
    assert (again.eos_ids, again.bos_id) == (ours.eos_ids, ours.bos_id)
    assert again.vocab_size == ours.vocab_size
    assert gguf_metadata(again) == gguf_metadata(ours)


def test_the_entries_are_those_that_llama_cpp_reads():
    entries = ggml(byte_level("smollm", chat_template="{{ messages }}"))
    assert entries.pop("tokenizer.chat_template") == "{{ messages }}"
    n = len(entries["tokens"])
    assert entries.pop("tokens")[-2:] == ["\u010a\u010a", "<think>"]
    assert entries.pop("token_type") == [3, 3] + [1] * (n - 3) + [4]
    assert entries == {
        "model": "gpt2",
        "pre": "smollm",
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    entries = ggml(sentencepiece())
    assert entries.pop("tokens")[:3] == HEADS
    assert entries.pop("token_type") == [2, 3, 3] + [6] * 256 + [1] * len(PIECES)
    scores = dict(zip(PIECES, entries.pop("scores")[259:], strict=True))
    assert scores["\u2581a"] == 0 > scores["ab"] > scores["\u2581ab"] > scores["abc"] > scores["a"]
    assert entries == {
        "model": "llama",
        "pre": "default",
        "add_space_prefix": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": True,
        "add_eos_token": False,
    }


def test_rows_without_a_token_are_filled_and_tokens_without_a_row_are_told(caplog):
    tokenizer = byte_level()
    n = tokenizer.vocab_size
    padded = ggml(tokenizer, vocab_size=n + 2)
    assert padded["tokens"][n:] == [f"[PAD{n}]", f"[PAD{n + 1}]"]
    assert padded["token_type"][n:] == [5, 5]
    assert not caplog.records
    assert ggml(tokenizer, vocab_size=n - 1)["tokens"] == padded["tokens"][: n - 1]
    assert "'<think>' is left out: the model has no row" in caplog.text
    with pytest.raises(ModelError, match=rf"{n - 1:,} tokens, but the model has only {n - 2:,}"):
        gguf_metadata(tokenizer, vocab_size=n - 2)


def test_user_tokens_of_spaces_are_written_as_spaces():
    tokenizer = sentencepiece(has_prefix=False)
    tokenizer._backend.add_tokens([AddedToken("\u2581\u2581", normalized=False)])
    entries = ggml(tokenizer)
    i = len(entries["tokens"]) - 1
    assert (entries["tokens"][i], entries["token_type"][i]) == ("  ", 4)
    assert gguf_tokenizer(gguf_metadata(tokenizer)).encode("  a", add_bos=False)[0] == i


def test_all_that_ends_a_reply_comes_back():
    extra = ["<|im_end|>", "<stop>", "<halt>"]
    tokenizer = byte_level()
    tokenizer._backend.add_special_tokens(extra)
    ids = [tokenizer._backend.token_to_id(token) for token in extra]
    every = Tokenizer(tokenizer._backend, special_tokens=ROLES, eos_ids=ids)
    entries = ggml(every)
    # The first is known by its text.
    assert [entries[f"{end}_token_id"] for end in ("eos", "eot", "eom")] == [0, *ids[1:]]
    assert set(gguf_tokenizer(gguf_metadata(every)).eos_ids) == {0, *ids}
    with pytest.raises(ModelError, match=r"4 tokens end a reply, but GGUF can name three: .*'!'"):
        gguf_metadata(Tokenizer(tokenizer._backend, special_tokens=ROLES, eos_ids=[*ids, 2]))


def test_eos_is_added_where_the_tokenizer_does():
    tokenizer = byte_level()
    for single, flags in (("$A <|end|>", (False, True)), ("<|start|> $A <|end|>", (True, True))):
        tokenizer._backend.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<|end|>", 0), ("<|start|>", 1)]
        )
        entries = ggml(tokenizer)
        assert (entries["add_bos_token"], entries["add_eos_token"]) == flags


PHI3 = [
    AddedToken(token, normalized=False, rstrip=token not in HEADS[:2])
    for token in (*HEADS, "<|end|>")
]


def test_phi_3_s_tokens_swallow_space_in_models_of_that_name():
    tokenizer = sentencepiece()
    tokenizer._backend.add_special_tokens(PHI3)
    metadata = gguf_metadata(tokenizer)
    assert metadata["general.name"] == "Phi-3"
    again = gguf_tokenizer(metadata)
    again._backend.encode_special_tokens = tokenizer._backend.encode_special_tokens = False
    for each in (tokenizer, again):
        assert each.encode("a<|end|> \n a") == each.encode("a<|end|>a")
        assert each.encode("a<s> a") != each.encode("a<s>a")
    assert again.encode("a<|end|> \n a<s> a</s>  ") == tokenizer.encode("a<|end|> \n a<s> a</s>  ")
    by_family = {**metadata, "general.name": "mine", "general.architecture": "phi3"}
    assert gguf_tokenizer(by_family)._backend.to_str() == again._backend.to_str()


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_metaspace_is_written_and_its_difference_told(caplog, scheme):
    space = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    nothing = normalizers.Sequence([])
    tokenizer = changed(sentencepiece, normalizer=nothing, pre_tokenizer=space)
    assert ggml(tokenizer)["add_space_prefix"] == (scheme != "never")
    assert ("before a text that begins with one" in caplog.text) == (scheme != "never")
    assert ("and behind special tokens" in caplog.text) == (scheme == "first")


def test_gemma_s_idle_splitter_is_no_obstacle():
    splitter = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = changed(lambda: sentencepiece(has_prefix=False), pre_tokenizer=splitter)
    assert ggml(tokenizer)["add_space_prefix"] is False


def test_a_pattern_that_takes_all_may_be_spelt_as_removing_the_rest():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pattern = byte_level("qwen2").spec().pre_tokenizer[0]
    regex = Regex(pattern["pattern"]["Regex"])
    steps = [pre_tokenizers.Sequence([pre_tokenizers.Split(regex, "removed", invert=True)]), split]
    tokenizer = changed(lambda: byte_level("qwen2"), pre_tokenizer=pre_tokenizers.Sequence(steps))
    assert ggml(tokenizer)["pre"] == "qwen2"


def changed(make: Callable[[], Tokenizer], **parts: Any) -> Tokenizer:
    tokenizer = make()
    for name, part in parts.items():
        setattr(tokenizer._backend, name, part)
    return Tokenizer(tokenizer._backend, special_tokens=tokenizer.special_tokens)


def with_added(make: Callable[[], Tokenizer], **flags: bool) -> Tokenizer:
    tokenizer = make()
    tokenizer._backend.add_tokens([AddedToken("<x>", **flags)])
    return tokenizer


def with_model(model: Any, **roles: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer(model), special_tokens=roles)


def not_from_scores() -> Tokenizer:
    """Merges in an order that no scores give: "ab" is made before and after "abc"."""
    tokens = [*HEADS, *BYTES, "a", "b", "c", "ab", "bc", "abc"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [("b", "c"), ("a", "bc"), ("a", "b")]
    return changed(
        sentencepiece, model=models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>")
    )


plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
FAULTS: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "unigram": (lambda: with_model(models.Unigram([("a", 0.0)])), "its model is Unigram; only BPE"),
    "dropout": (
        lambda: changed(byte_level, model=models.BPE({"a": 0}, [], dropout=0.1)),
        "dropout = 0.1",
    ),
    "word ends": (
        lambda: changed(byte_level, model=models.BPE({"a": 0}, [], end_of_word_suffix="</w>")),
        "end_of_word_suffix = '</w>'",
    ),
    "splitter": (
        lambda: changed(byte_level, pre_tokenizer=pre_tokenizers.Whitespace()),
        "splits text by .*Whitespace.*no name that is known .*llama.cpp would split",
    ),
    "no splitter": (lambda: changed(byte_level, pre_tokenizer=None), "splits text by null"),
    "prefix": (
        lambda: changed(byte_level, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        'splits text by .*"add_prefix_space": true',
    ),
    "digits by three": (
        lambda: changed(
            byte_level,
            pre_tokenizer=pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), plain]
            ),
        ),
        "splits text by",
    ),
    "merges ignored": (
        lambda: changed(lambda: byte_level("llama-bpe"), pre_tokenizer=plain),
        "ignore_merges = True",
    ),
    "normalizer": (
        lambda: changed(byte_level, normalizer=normalizers.Lowercase()),
        "normalizer .*Lowercase",
    ),
    "no merges": (
        lambda: changed(byte_level, model=models.BPE({"<|start|>": 1, "<|end|>": 0, "a": 2}, [])),
        "has no merges",
    ),
    "space in a merge": (
        lambda: changed(byte_level, model=models.BPE({"a": 0, " ": 1, "a ": 2}, [("a", " ")])),
        "a space, which GGUF cannot write",
    ),
    "no eos": (lambda: byte_level(roles={"bos_token": "<|start|>"}), "names no eos_token"),
    "brackets": (
        lambda: changed(
            byte_level,
            post_processor=processors.TemplateProcessing(
                single="<|end|> $A", special_tokens=[("<|end|>", 0)]
            ),
        ),
        "encodes 'a' as",
    ),
    "lstrip": (lambda: with_added(byte_level, lstrip=True), "'<x>' has lstrip"),
    "single word": (lambda: with_added(byte_level, single_word=True), "'<x>' has single_word"),
    "rstrip": (lambda: with_added(byte_level, rstrip=True), "'<x>' swallows the space behind it"),
    "some rstrip": (lambda: with_added(sentencepiece, rstrip=True), "for Phi-3's tokens only"),
    "bytes missing": (
        lambda: changed(sentencepiece, model=models.BPE({"a": 0}, [], byte_fallback=True)),
        "has no token <0x00>",
    ),
    "strip": (
        lambda: changed(sentencepiece, normalizer=normalizers.Strip()),
        "normalizer .*Strip",
    ),
    "words": (
        lambda: changed(
            sentencepiece,
            normalizer=normalizers.Sequence([]),
            pre_tokenizer=pre_tokenizers.Metaspace(split=True),
        ),
        "Metaspace",
    ),
    "scores": (not_from_scores, "do not follow from scores"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_llama_cpp_would_do_otherwise_is_refused(name):
    make, message = FAULTS[name]
    with pytest.raises(ModelError, match=message):
        gguf_metadata(make())


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("my-phi3-bank", "my-phi_3-bank"),
        ("Phi-3", "Phi_3"),
        ("ModernModern-BERT", "ModernModern_BERT"),
        ("phi-4 and morphine", "phi-4 and morphine"),
    ],
)
def test_no_name_switches_on_rules_of_another_family(name, written):
    assert harmless_name(name) == written
    metadata = {**gguf_metadata(sentencepiece()), "general.name": harmless_name(name)}
    assert not any(token.rstrip for token in gguf_tokenizer(metadata).spec().added)


@pytest.mark.parametrize(
    ("text", "pre", "is_simpler"),
    [
        ("cafe\u0301", "qwen2", True),
        ("caf\u00e9 \u00c9COLE", "qwen2", False),
        ("cafe\u0301", "smollm", False),
        ("\u00c9COLE", "tekken", True),
        ("\u0939\u093f", "gpt-4o", True),
        ("ECOLE \u4f60", "gpt-4o", False),
        ("cafe\u0301", None, False),
    ],
)
def test_texts_that_llama_cpp_cuts_by_simpler_rules_are_known(text, pre, is_simpler):
    assert is_simplified(text, pre) is is_simpler
