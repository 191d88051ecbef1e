"""A translation into a language that nobody asked for looks fine to whoever cannot read it."""

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.translation import Translation

CODES = {"de_DE": 7, "en_XX": 8}
EOS = 2


def test_each_layout_puts_the_codes_where_its_models_have_them():
    behind = Translation("behind", CODES, source_lang="en_XX", target_lang="de_DE")
    assert behind.whole([5], EOS, side="source") == [5, EOS, 8]
    assert behind.whole([5], EOS, side="target") == [5, EOS, 7]
    before = Translation("before", CODES, source_lang="en_XX", target_lang="de_DE")
    assert before.whole([5], EOS, side="source") == [8, 5, EOS]
    assert before.whole([5], EOS, side="target") == [7, 5, EOS]
    marker = Translation("marker", CODES)
    assert (
        marker.whole([5], EOS, side="source") == marker.whole([5], EOS, side="target") == [5, EOS]
    )
    assert behind.split_marker(">>de_DE<<a") == ([], ">>de_DE<<a")


def test_a_marker_is_read_from_the_text_or_from_the_language():
    marker = Translation("marker", {"deu": 7, "fra": 8})
    assert marker.split_marker(">>deu<< a << b") == ([7], " a << b")
    french = marker.between(None, "fra")
    assert french.split_marker("a") == ([8], "a")
    assert french.split_marker(">>deu<<a") == ([7], "a")
    with pytest.raises(RequestError, match=r"begin the text with one, >>deu<<, .* deu, fra"):
        marker.split_marker("a")
    with pytest.raises(RequestError, match="'spa' is not one of this model's; known: deu, fra"):
        marker.split_marker(">>spa<<a")
    # A model of one pair has no codes: what looks like one is text.
    assert Translation("marker", {}).split_marker(">>a<<b") == ([], ">>a<<b")


@pytest.mark.parametrize(
    ("translation", "source", "target", "message"),
    [
        (Translation("behind", CODES), "de_DE", "xx", "'xx' is not one of this model's; known: de"),
        (Translation("before", CODES), "en_XY", None, "did you mean 'en_XX'"),
        (Translation("marker", {"deu": 7}), None, "due", "did you mean 'deu'"),
        (Translation("marker", {}, "en", "de"), None, "fr", "target language is fixed, 'de'"),
        (Translation("marker", {"deu": 7}, "en"), "fr", None, "source language is fixed, 'en'"),
        (Translation("marker", {}), "fr", None, "source language is fixed; leave it out"),
    ],
)
def test_languages_that_a_model_does_not_have_are_refused(translation, source, target, message):
    with pytest.raises(RequestError, match=message):
        translation.between(source, target)


def test_no_language_is_guessed():
    unset = Translation("behind", CODES)
    with pytest.raises(RequestError, match="needs the source_lang of a text; known: de_DE, en_XX"):
        unset.whole([5], EOS, side="source")
    with pytest.raises(RequestError, match="needs the target_lang"):
        unset.between("de_DE", None).whole([5], EOS, side="target")
    assert unset.between("de_DE", "en_XX").whole([5], EOS, side="source") == [5, EOS, 7]


def test_settings_name_the_languages_as_the_class_expects():
    assert Translation("before", CODES, "en_XX", "de_DE").settings() == {
        "src_lang": "en_XX",
        "tgt_lang": "de_DE",
    }
    assert Translation("marker", {}, "en", None).settings() == {"source_lang": "en"}
