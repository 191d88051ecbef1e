"""Tokenizers from SentencePiece files, family by family: who renumbers pieces, who adds which.

Ids follow the checkpoints' own code (fairseq for XLM-R and mBART); text is cut as SentencePiece
itself cuts it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
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
from lmwright.tokenizer.huggingface.settings import setting
from lmwright.tokenizer.translation import MBART50_LANGUAGES, MBART_LANGUAGES

SPACE = "\u2581"  # how SentencePiece writes a space

Settings = Mapping[str, Any]
Roles = Mapping[str, str]
Vocabulary = Sequence[tuple[str, float]]


def t5(folder: Path, settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build T5's kind: the file's pieces, then <extra_id_99> ... <extra_id_0>; text </s>."""
    path = folder / "spiece.model"
    model = _read(path, UNIGRAM)
    n_extra = setting(settings, "extra_ids", 100)
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    extra = [f"<extra_id_{i}>" for i in range(n_extra - 1, -1, -1)]
    tokenizer = unigram(model, [*vocabulary, *((token, 0.0) for token in extra)], model.unk_id)
    _add(tokenizer, path, [roles[r] for r in ("pad_token", "eos_token", "unk_token")])
    _add(tokenizer, path, extra)
    eos = roles["eos_token"]
    return _framed(tokenizer, path, single=["$A", eos], pair=["$A", eos, "$B", eos])


def xlm_roberta(folder: Path, _settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build XLM-RoBERTa's kind: fairseq's four specials first, <mask> last; <s> text </s>."""
    path = folder / "sentencepiece.bpe.model"
    tokenizer = _fairseq(path, roles, [])
    bos, eos = roles["bos_token"], roles["eos_token"]
    return _framed(tokenizer, path, single=[bos, "$A", eos], pair=[bos, "$A", eos, eos, "$B", eos])


def mbart(folder: Path, _settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build mBART's kind: as XLM-RoBERTa's, with 25 language codes before <mask>."""
    path = folder / "sentencepiece.bpe.model"
    tokenizer = _fairseq(path, roles, MBART_LANGUAGES)
    # The language's code, which the text's own language decides, follows where text is framed.
    return _framed(tokenizer, path, single=["$A", roles["eos_token"]])


def mbart50(folder: Path, _settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build mBART-50's kind: as mBART's, with 52 language codes."""
    path = folder / "sentencepiece.bpe.model"
    tokenizer = _fairseq(path, roles, MBART50_LANGUAGES)
    return _framed(tokenizer, path, single=["$A", roles["eos_token"]])


def llama(folder: Path, settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build Llama 2's and Mistral's kind: BPE that falls back to bytes; <s> text."""
    path = folder / "tokenizer.model"
    model = _read(path, BPE)
    tokenizer = _bpe(model)
    has_prefix = setting(settings, "add_prefix_space", model.adds_dummy_prefix)
    # A folder that does not say is older than the setting, and means what was done then: a space
    # in front of whatever follows a special token, too.
    if setting(settings, "legacy", True):
        tokenizer.normalizer = _normalizer(model, has_prefix=has_prefix)
    else:
        tokenizer.normalizer = _normalizer(model, has_prefix=False)
        if has_prefix:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = _decoder(model, has_prefix=has_prefix)
    _add_types(tokenizer, model, specials=set(roles.values()))
    return _with_bos_and_eos(tokenizer, path, settings, roles)


def gemma(folder: Path, settings: Settings, roles: Roles) -> tokenizers.Tokenizer:
    """Build Gemma's kind: as Llama 2's, without a space in front; <bos> text."""
    path = folder / "tokenizer.model"
    model = _read(path, BPE)
    tokenizer = _bpe(model)
    tokenizer.normalizer = _normalizer(model, has_prefix=False)
    tokenizer.decoder = _decoder(model, has_prefix=False)
    # The file has these as ordinary symbols, but a dialogue is built from them.
    turns = {"<start_of_turn>", "<end_of_turn>"}
    _add_types(tokenizer, model, specials=turns | set(roles.values()))
    return _with_bos_and_eos(tokenizer, path, settings, roles)


def unigram(model: SentencePieceModel, vocabulary: Vocabulary, unk_id: int) -> tokenizers.Tokenizer:
    """Return the pieces of a Unigram file as a tokenizer with this order of ids."""
    tokenizer = tokenizers.Tokenizer(
        models.Unigram(list(vocabulary), unk_id, model.has_byte_fallback)
    )
    tokenizer.normalizer = _normalizer(model, has_prefix=model.adds_dummy_prefix)
    if model.splits_at_spaces:
        # The same pieces as without, since none has a space inside; the search becomes short.
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    tokenizer.decoder = _decoder(model, has_prefix=model.adds_dummy_prefix)
    symbols = [piece.text for piece in model.pieces if piece.type == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(symbol, normalized=False) for symbol in symbols])
    return tokenizer


def _bpe(model: SentencePieceModel) -> tokenizers.Tokenizer:
    vocabulary = {piece.text: i for i, piece in enumerate(model.pieces)}
    # Control tokens and bytes are never the result of a merge: a text cannot spell them.
    ranks = {
        piece.text: (-piece.score, i)
        for i, piece in enumerate(model.pieces)
        if piece.type in (NORMAL, USER_DEFINED)
    }
    merges = [
        (rank, cut, token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    merges.sort()
    return tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            [(left, right) for *_, left, right in merges],
            unk_token=model.pieces[model.unk_id].text,
            fuse_unk=True,
            byte_fallback=model.has_byte_fallback,
        )
    )


def _normalizer(model: SentencePieceModel, *, has_prefix: bool) -> Any:
    """Normalise in SentencePiece's order: replacements, superfluous spaces, the space in front."""
    steps: list[Any] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.removes_extra_spaces:
        # Only spaces: other white space is a character like any other.
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if has_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def _decoder(model: SentencePieceModel, *, has_prefix: bool) -> Any:
    steps: list[Any] = [decoders.Replace(SPACE, " ")]
    if model.has_byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if has_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _fairseq(path: Path, roles: Roles, languages: Sequence[str]) -> tokenizers.Tokenizer:
    """Number pieces as fairseq does: <s> <pad> </s> <unk>, pieces from the third, codes, <mask>."""
    model = _read(path, UNIGRAM)
    if [piece.type == NORMAL for piece in model.pieces[:4]] != [False, False, False, True]:
        raise ModelError(f"{path}: expected <unk>, <s> and </s> as the first three pieces")
    first = [roles[r] for r in ("cls_token", "pad_token", "eos_token", "unk_token")]
    last = [*languages, roles["mask_token"]]
    vocabulary = [
        *((token, 0.0) for token in first),
        *((piece.text, piece.score) for piece in model.pieces[3:]),
        *((token, 0.0) for token in last),
    ]
    tokenizer = unigram(model, vocabulary, 3)
    _add(tokenizer, path, [*first, *languages])
    tokenizer.add_special_tokens(
        [AddedToken(roles["mask_token"], lstrip=True, normalized=False, special=True)]
    )
    return tokenizer


def _read(path: Path, algorithm: int) -> SentencePieceModel:
    model = read_sentencepiece(path)
    if model.algorithm != algorithm:
        kind = "unigram" if algorithm == UNIGRAM else "bpe"
        raise ModelError(f"{path}: expected a {kind} model for this kind of tokenizer")
    return model


def _add(tokenizer: tokenizers.Tokenizer, path: Path, tokens: Sequence[str]) -> None:
    """Mark tokens of the vocabulary as special."""
    for token in tokens:
        if tokenizer.token_to_id(token) is None:
            raise ModelError(f"{path} has no piece {token!r}, which this kind of tokenizer needs")
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in tokens]
    )


def _add_types(
    tokenizer: tokenizers.Tokenizer, model: SentencePieceModel, *, specials: set[str]
) -> None:
    """Add what the file itself marks: control tokens as special, symbols as whole tokens."""
    tokens = []
    for piece in model.pieces:
        is_special = piece.type == CONTROL or (piece.type != BYTE and piece.text in specials)
        if is_special or piece.type == USER_DEFINED:
            tokens.append(AddedToken(piece.text, normalized=False, special=is_special))
    tokenizer.add_tokens(tokens)


def _with_bos_and_eos(
    tokenizer: tokenizers.Tokenizer, path: Path, settings: Settings, roles: Roles
) -> tokenizers.Tokenizer:
    single = ["$A"]
    if setting(settings, "add_bos_token", True):
        single.insert(0, roles["bos_token"])
    if setting(settings, "add_eos_token", False):
        single.append(roles["eos_token"])
    return _framed(tokenizer, path, single=single)


def _framed(
    tokenizer: tokenizers.Tokenizer,
    path: Path,
    *,
    single: list[str],
    pair: list[str] | None = None,
) -> tokenizers.Tokenizer:
    """Let the tokenizer put these tokens around a text."""
    specials = sorted({token for token in single + (pair or []) if not token.startswith("$")})
    ids = [(token, tokenizer.token_to_id(token)) for token in specials]
    missing = [token for token, id_ in ids if id_ is None]
    if missing:
        raise ModelError(f"{path} has no piece {missing[0]!r}, which stands around every text")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=ids
    )
    return tokenizer
