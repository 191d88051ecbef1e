"""Marian's tokenizer: a SentencePiece file a language, and a vocabulary for the ids of both."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.pieces import SPACE, unigram
from lmwright.tokenizer.huggingface.sentencepiece_file import CONTROL, UNIGRAM, read_sentencepiece
from lmwright.tokenizer.huggingface.settings import setting
from lmwright.tokenizer.huggingface.vocabulary_files import read_vocabulary, role_ids
from lmwright.tokenizer.literal import keep_literal
from lmwright.tokenizer.translation import Translation

FILES = ("source.spm", "target.spm", "vocab.json")


def marian(
    folder: Path, settings: Mapping[str, Any], roles: Mapping[str, str]
) -> tuple[tokenizers.Tokenizer, Translation]:
    """Return the vocabulary, which decodes, and the way from text to its pieces."""
    if setting(settings, "separate_vocabs", False):
        raise ModelError(f"{folder}: separate_vocabs (two vocabularies) is not known here")
    vocabulary = read_vocabulary(folder / "vocab.json")
    specials = ("eos_token", "unk_token", "pad_token")
    role_ids(folder / "vocab.json", vocabulary, roles, specials)
    codes = {
        token[2:-2]: id_
        for token, id_ in vocabulary.items()
        if token.startswith(">>") and token.endswith("<<")
    }
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=roles["unk_token"]))
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(
        [AddedToken(roles[role], normalized=False, special=True) for role in specials]
        + [AddedToken(f">>{code}<<", normalized=False, special=True) for code in codes]
    )
    translation = Translation(
        layout="marker",
        codes=codes,
        source_lang=setting(settings, "source_lang", "") or None,
        target_lang=setting(settings, "target_lang", "") or None,
        source_pieces=_pieces(folder / "source.spm"),
        target_pieces=_pieces(folder / "target.spm"),
    )
    return backend, translation


def _pieces(path: Path) -> Callable[[str], list[str]]:
    model = read_sentencepiece(path)
    if model.algorithm != UNIGRAM:
        raise ModelError(f"{path}: expected a unigram model")
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    backend = unigram(model, vocabulary, model.unk_id)
    controls = [piece.text for piece in model.pieces if piece.type == CONTROL]
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in controls]
    )
    backend.encode_special_tokens = True
    keep_literal(backend)
    # The text of a piece that the file does not know may stand in the vocabulary all the same.
    return lambda text: backend.encode(text, add_special_tokens=False).tokens
