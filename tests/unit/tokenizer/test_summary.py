"""A wrong special token or kind sends people looking for a fault where there is none."""

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.summary import SAMPLES, SpecialToken, summarise_tokenizer

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "b": 5, "##a": 6}


def word_piece() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    return Tokenizer(backend, special_tokens=roles)


def test_byte_level_bpe(tiny_tokenizer: Tokenizer) -> None:
    found = summarise_tokenizer(tiny_tokenizer, has_specials=False)
    assert (found.kind, found.n_tokens, found.ignores_case) == ("byte-level BPE", 300, False)
    assert found.special_tokens == (
        SpecialToken("bos", "<|im_start|>", 1), SpecialToken("eos", "<|im_end|>", 2)
    )  # fmt: skip
    assert found.around == ((), ())


def test_word_piece_and_its_frame() -> None:
    found = summarise_tokenizer(word_piece(), has_specials=True)
    assert (found.kind, found.ignores_case) == ("WordPiece", True)
    assert found.around == (("[CLS]",), ("[SEP]",))
    # Named, and not there.
    assert SpecialToken("mask", "[MASK]", None) in found.special_tokens


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0), "SentencePiece unigram"),
        (models.BPE({"<unk>": 0, "a": 1}, [], byte_fallback=True), "SentencePiece BPE"),
        (models.BPE({"<unk>": 0, "a": 1}, []), "BPE"),
        (models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"), "WordLevel"),
    ],
)
def test_kinds_are_told_by_the_model(model: models.Model, expected: str) -> None:
    backend = tokenizers.Tokenizer(model)
    found = summarise_tokenizer(Tokenizer(backend, special_tokens={}), has_specials=False)
    assert found.kind == expected


def test_further_ends_of_a_reply_are_named(tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.eos_ids = (2, 0)
    found = summarise_tokenizer(tiny_tokenizer, has_specials=False)
    assert found.special_tokens[-1] == SpecialToken("end", "<|endoftext|>", 0)


def test_characters_a_token_are_those_of_the_samples(tiny_tokenizer: Tokenizer) -> None:
    found = summarise_tokenizer(tiny_tokenizer, has_specials=False)
    assert list(found.characters_per_token) == ["English", "German", "Python"]
    n_tokens = len(tiny_tokenizer.encode(SAMPLES["English"]))
    assert found.characters_per_token["English"] == len(SAMPLES["English"]) / n_tokens
    assert all(150 < len(text) < 250 for text in SAMPLES.values())
