"""A vocabulary that holds "</s>" like any word lets a user's text end the model's input."""

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.huggingface.folder import load_tokenizer

VOCABULARY = [
    ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("de_DE", 0.0), ("\u2581", -2.0), ("a", -3.0),
    *((letter, -4.0) for letter in "</s>dexunkp_DE"),
]  # fmt: skip
SPECIALS = ["<pad>", "</s>", "<unk>", "de_DE"]


def unigram() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram(VOCABULARY, 2, False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(SPECIALS)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return backend


def tokenizer(**settings) -> Tokenizer:
    return Tokenizer(unigram(), special_tokens={"eos_token": "</s>", "pad_token": "<pad>"})


@pytest.mark.parametrize("text", ["a</s>a", "</s>", "<pad></s>", "\uff1c/s\uff1e", "a de_DE"])
def test_no_text_spells_a_special_token(text):
    library = unigram()
    library.encode_special_tokens = True
    assert {0, 1, 3} & set(library.encode(text, add_special_tokens=False).ids)
    ours = tokenizer()
    assert not {0, 1, 3} & set(ours.encode(text))
    assert ours.encode_input(text).ids.count(1) == 1
    spelled = normalizers.NFKC().normalize_str(text)
    assert (
        "".join(ours._backend.id_to_token(i) for i in ours.encode(text)).replace("\u2581", " ")
        == " " + spelled
    )


def test_other_texts_keep_their_ids():
    library, ours = unigram(), tokenizer()
    for text in ("a x", "</ s>", "as < a", "", "kk d_DE"):
        assert ours.encode_input(text).ids == library.encode(text).ids


def test_what_is_saved_is_the_tokenizer_as_it_was(tmp_path):
    ours = tokenizer()
    ours.save(tmp_path)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert str(saved.pre_tokenizer) == str(unigram().pre_tokenizer)
    assert ours.encode("</s>") == load_tokenizer(tmp_path).encode("</s>")
    assert 1 not in ours.encode("</s>")


def test_a_tokenizer_that_cannot_spell_them_is_left_alone(tiny_tokenizer):
    before = tiny_tokenizer._saved_pre_tokenizer
    assert str(tiny_tokenizer._backend.pre_tokenizer) == str(before)
