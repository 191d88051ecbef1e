"""Marian's tokenizer: a SentencePiece file a language, and a vocabulary for the ids of both."""

from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, models

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.pieces import unigram
from lmwright.tokenizer.huggingface.sentencepiece_file import CONTROL, UNIGRAM, read_sentencepiece
from lmwright.tokenizer.huggingface.settings import TokenizerFolder, with_ids
from lmwright.tokenizer.huggingface.vocabulary_files import read_vocabulary
from lmwright.tokenizer.literal import keep_literal
from lmwright.tokenizer.sentencepiece import decoder, mark_special
from lmwright.tokenizer.translation import Translation


def marian(folder: TokenizerFolder) -> tuple[Tokenizer, Translation]:
    """Return the vocabulary, which decodes, and the way from text to its pieces."""
    if folder.settings.flag("separate_vocabs", False):
        raise ModelError(f"{folder.path}: separate_vocabs (two vocabularies) is not known here")
    vocabulary = read_vocabulary(folder.file)
    codes = {
        token[2:-2]: id_
        for token, id_ in vocabulary.items()
        if token.startswith(">>") and token.endswith("<<")
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=folder.roles["unk_token"]))
    specials = with_ids(folder, backend, folder.tokens("eos", "unk", "pad"))
    backend.decoder = decoder(has_prefix=True, has_byte_fallback=False)
    mark_special(backend, [*(token for token, _ in specials), *(f">>{code}<<" for code in codes)])
    translation = Translation(
        layout="marker",
        codes=codes,
        source_lang=folder.settings.text("source_lang") or None,
        target_lang=folder.settings.text("target_lang") or None,
        source_pieces=_pieces(folder.path / "source.spm"),
        target_pieces=_pieces(folder.path / "target.spm"),
    )
    return backend, translation


def _pieces(path: Path) -> Callable[[str], list[str]]:
    model = read_sentencepiece(path, UNIGRAM)
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    backend = unigram(model, vocabulary, model.unk_id)
    mark_special(backend, [piece.text for piece in model.pieces if piece.type == CONTROL])
    backend.encode_special_tokens = True
    keep_literal(backend)
    # The text of a piece that the file does not know may stand in the vocabulary all the same.
    return lambda text: backend.encode(text, add_special_tokens=False).tokens
