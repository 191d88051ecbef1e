"""Tokenizers from SentencePiece files, family by family: who renumbers pieces, who adds which.

Ids follow the checkpoints' own code (fairseq for XLM-R and mBART); text is cut as SentencePiece
itself cuts it.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.sentencepiece_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    USER_DEFINED,
    SentencePieceModel,
    read_sentencepiece,
)
from lmwright.tokenizer.huggingface.settings import TokenizerFolder, with_ids
from lmwright.tokenizer.sentencepiece import (
    decoder,
    mark_special,
    merges_from_scores,
    space_normalizers,
)


def t5(folder: TokenizerFolder) -> Tokenizer:
    """Build T5's kind: the file's pieces, then <extra_id_99> ... <extra_id_0>; text </s>."""
    model = read_sentencepiece(folder.file, UNIGRAM)
    n_extra = folder.settings.whole("extra_ids", 100, bounds=range(1001))
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    extra = [f"<extra_id_{i}>" for i in range(n_extra - 1, -1, -1)]
    tokenizer = unigram(model, [*vocabulary, *((token, 0.0) for token in extra)], model.unk_id)
    specials = [*folder.tokens("pad", "eos", "unk"), *extra]
    with_ids(folder, tokenizer, specials)
    mark_special(tokenizer, specials)
    [eos] = folder.tokens("eos")
    return _with_template(tokenizer, folder, single=["$A", eos], pair=["$A", eos, "$B", eos])


def xlm_roberta(folder: TokenizerFolder) -> Tokenizer:
    """Build XLM-RoBERTa's kind: fairseq's four specials first, <mask> last; <s> text </s>."""
    tokenizer = _fairseq(folder, [])
    bos, eos = folder.tokens("bos", "eos")
    return _with_template(
        tokenizer, folder, single=[bos, "$A", eos], pair=[bos, "$A", eos, eos, "$B", eos]
    )


def mbart(folder: TokenizerFolder, languages: Sequence[str]) -> Tokenizer:
    """Build mBART's kind: as XLM-RoBERTa's, with language codes before <mask>."""
    # The code of the text's own language is put behind or before it where a text is encoded.
    return _with_template(_fairseq(folder, languages), folder, single=["$A", *folder.tokens("eos")])


def llama(folder: TokenizerFolder) -> Tokenizer:
    """Build Llama 2's and Mistral's kind: BPE that falls back to bytes; <s> text."""
    model = read_sentencepiece(folder.file, BPE)
    has_prefix = folder.settings.flag("add_prefix_space", model.adds_dummy_prefix)
    tokenizer = _bpe(folder, model, has_prefix=has_prefix)
    # A folder that does not say is older than the setting, and means what was done then: a space
    # in front of whatever follows a special token, too.
    if not folder.settings.flag("legacy", True) and has_prefix:
        tokenizer.normalizer = _normalizer(model, has_prefix=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def gemma(folder: TokenizerFolder) -> Tokenizer:
    """Build Gemma's kind: as Llama 2's, without a space in front; <bos> text."""
    model = read_sentencepiece(folder.file, BPE)
    # The file has these as ordinary symbols, but a dialogue is built from them.
    turns = ("<start_of_turn>", "<end_of_turn>")
    return _bpe(folder, model, has_prefix=False, turns=turns)


def unigram(
    model: SentencePieceModel, vocabulary: Sequence[tuple[str, float]], unk_id: int
) -> Tokenizer:
    """Return the pieces of a Unigram file as a tokenizer with this order of ids."""
    tokenizer = Tokenizer(models.Unigram(list(vocabulary), unk_id, model.has_byte_fallback))
    tokenizer.normalizer = _normalizer(model, has_prefix=model.adds_dummy_prefix)
    if model.splits_at_spaces:
        # The same pieces as without, since none has a space inside; the search becomes short.
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    tokenizer.decoder = decoder(
        has_byte_fallback=model.has_byte_fallback, has_prefix=model.adds_dummy_prefix
    )
    symbols = [piece.text for piece in model.pieces if piece.type == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    return tokenizer


def _bpe(
    folder: TokenizerFolder,
    model: SentencePieceModel,
    *,
    has_prefix: bool,
    turns: Sequence[str] = (),
) -> Tokenizer:
    """Return the pieces of a BPE file as a tokenizer; `turns` are special as the roles' tokens."""
    # Control tokens and bytes are never the result of a merge: a text cannot spell them.
    scores = {p.text: p.score for p in model.pieces if p.type in (NORMAL, USER_DEFINED)}
    tokenizer = Tokenizer(
        models.BPE(
            {piece.text: i for i, piece in enumerate(model.pieces)},
            merges_from_scores(scores, list(scores.values())),
            unk_token=model.pieces[model.unk_id].text,
            fuse_unk=True,
            byte_fallback=model.has_byte_fallback,
        )
    )
    tokenizer.normalizer = _normalizer(model, has_prefix=has_prefix)
    tokenizer.decoder = decoder(has_byte_fallback=model.has_byte_fallback, has_prefix=has_prefix)
    specials = {*folder.roles.values(), *turns}
    tokens = []
    for piece in model.pieces:
        is_special = piece.type == CONTROL or (piece.type != BYTE and piece.text in specials)
        if is_special or piece.type == USER_DEFINED:
            tokens.append(AddedToken(piece.text, normalized=False, special=is_special))
    tokenizer.add_tokens(tokens)
    before = folder.tokens("bos") if folder.settings.flag("add_bos_token", True) else []
    behind = folder.tokens("eos") if folder.settings.flag("add_eos_token", False) else []
    return _with_template(tokenizer, folder, single=[*before, "$A", *behind])


def _normalizer(model: SentencePieceModel, *, has_prefix: bool) -> Any:
    """Normalise in SentencePiece's order: replacements, superfluous spaces, the space in front."""
    steps: list[Any] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.removes_extra_spaces:
        # Only spaces: other white space is a character like any other.
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    return normalizers.Sequence([*steps, *space_normalizers(has_prefix=has_prefix)])


def _fairseq(folder: TokenizerFolder, languages: Sequence[str]) -> Tokenizer:
    """Number pieces as fairseq does: <s> <pad> </s> <unk>, pieces from the third, codes, <mask>."""
    model = read_sentencepiece(folder.file, UNIGRAM)
    if [piece.type == NORMAL for piece in model.pieces[:4]] != [False, False, False, True]:
        raise ModelError(f"{folder.file}: expected <unk>, <s> and </s> as the first three pieces")
    first, [mask] = folder.tokens("cls", "pad", "eos", "unk"), folder.tokens("mask")
    vocabulary = [
        *((token, 0.0) for token in first),
        *((piece.text, piece.score) for piece in model.pieces[3:]),
        *((token, 0.0) for token in (*languages, mask)),
    ]
    tokenizer = unigram(model, vocabulary, 3)
    mark_special(tokenizer, [*first, *languages])
    mark_special(tokenizer, [mask], lstrip=True)
    return tokenizer


def _with_template(
    tokenizer: Tokenizer,
    folder: TokenizerFolder,
    *,
    single: list[str],
    pair: list[str] | None = None,
) -> Tokenizer:
    """Let the tokenizer put these tokens around a text."""
    specials = sorted({token for token in single + (pair or []) if not token.startswith("$")})
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=with_ids(folder, tokenizer, specials)
    )
    return tokenizer
