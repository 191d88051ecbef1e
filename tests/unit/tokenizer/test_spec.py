"""Whoever writes a tokenizer for another program reads its rules here: one left out is lost."""

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.spec import AddedTokenSpec, read_spec


def test_every_part_is_there_and_sequences_are_unfolded() -> None:
    backend = tokenizers.Tokenizer(
        models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], ignore_merges=True)
    )
    inner = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.normalizer = normalizers.Sequence([inner, normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    backend.add_tokens([AddedToken("<x>", lstrip=True, single_word=True)])
    spec = read_spec(backend)
    assert [rule["type"] for rule in spec.normalizer] == ["NFC", "Lowercase", "Strip"]
    assert [rule["type"] for rule in spec.pre_tokenizer] == ["Whitespace"]
    assert [rule["type"] for rule in spec.decoder] == ["Fuse"]
    assert (spec.algorithm, spec.options["ignore_merges"]) == ("BPE", True)
    assert (spec.vocabulary, spec.merges) == ({"a": 0, "b": 1, "ab": 2}, (("a", "b"),))
    assert spec.added == (
        AddedTokenSpec(3, "<x>", is_special=False, lstrip=True, rstrip=False, single_word=True),
    )
    assert spec.tokens == {0: "a", 1: "b", 2: "ab", 3: "<x>"}


def test_what_keeps_special_tokens_text_is_no_part_of_the_tokenizer() -> None:
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", -1.0)], unk_id=0))
    backend.add_special_tokens(["</s>"])
    before = read_spec(backend)
    tokenizer = Tokenizer(backend, special_tokens={"eos_token": "</s>"})
    assert read_spec(backend).pre_tokenizer != before.pre_tokenizer == ()
    assert tokenizer.spec() == before
    assert (before.algorithm, before.vocabulary) == ("Unigram", {"<unk>": 0, "</s>": 1})
