"""Two formats hold SentencePiece models: their texts must come back alike from both."""

import pytest
import tokenizers
from tokenizers import models, normalizers

from lmwright.tokenizer.sentencepiece import SPACE, decoder, mark_special, space_normalizers


@pytest.mark.parametrize("has_prefix", [False, True])
def test_decoding_undoes_what_normalising_did_to_spaces(has_prefix):
    normalizer = normalizers.Sequence(space_normalizers(has_prefix=has_prefix))
    written = normalizer.normalize_str(" a  b")
    assert written == has_prefix * SPACE + f"{SPACE}a{SPACE}{SPACE}b"
    decode = decoder(has_prefix=has_prefix, has_byte_fallback=False).decode
    assert decode(list(written)) == " a  b"


def test_bytes_are_characters_again():
    assert (
        decoder(has_prefix=False, has_byte_fallback=True).decode(["<0xC3>", "<0xA9>"]) == "\u00e9"
    )


def test_special_tokens_are_marked_with_their_flags():
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<m>": 1}, unk_token="a"))
    mark_special(backend, ["<m>"], lstrip=True)
    [(id_, token)] = backend.get_added_tokens_decoder().items()
    assert (id_, token.content) == (1, "<m>")
    assert (token.special, token.normalized, token.lstrip) == (True, False, True)
