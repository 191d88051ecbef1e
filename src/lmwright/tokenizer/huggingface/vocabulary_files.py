"""Tokenizers from plain vocabularies: vocab.txt (BERT), vocab.json with merges.txt (GPT-2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.settings import read_settings, setting


def word_piece(
    folder: Path, settings: Mapping[str, Any], roles: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Build BERT's kind: words and punctuation, each cut into the longest pieces from the left."""
    path = folder / "vocab.txt"
    tokens = _read_text(path).removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError(f"{path}: a token occurs twice; download the file again")
    ids = role_ids(path, vocabulary, roles, ("unk_token", "cls_token", "sep_token"))
    if not setting(settings, "do_basic_tokenize", True):
        raise ModelError(f"{folder}: do_basic_tokenize = false is not known here")
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=setting(settings, "tokenize_chinese_chars", True),
        # Accents go where letters are lowered, if the folder does not say.
        strip_accents=None if settings.get("strip_accents") is None
        else setting(settings, "strip_accents", True),
        lowercase=setting(settings, "do_lower_case", True),
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = roles["cls_token"], roles["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(cls, ids["cls_token"]), (sep, ids["sep_token"])],
    )
    return tokenizer


def gpt2(
    folder: Path, settings: Mapping[str, Any], roles: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Build GPT-2's kind: BPE over bytes, with nothing around a text."""
    tokenizer, _ = _byte_level(folder, settings)
    if setting(settings, "add_bos_token", False):
        bos = role_ids(folder / "vocab.json", tokenizer.get_vocab(), roles, ("bos_token",))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[roles["bos_token"], "$A"],
            special_tokens=[(roles["bos_token"], bos["bos_token"])],
        )
    return tokenizer


def roberta(
    folder: Path, settings: Mapping[str, Any], roles: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Build RoBERTa's and BART's kind: GPT-2's between <s> and </s>."""
    tokenizer, has_prefix = _byte_level(folder, settings)
    vocabulary = tokenizer.get_vocab()
    ids = role_ids(folder / "vocab.json", vocabulary, roles, ("sep_token", "cls_token"))
    tokenizer.post_processor = processors.RobertaProcessing(
        (roles["sep_token"], ids["sep_token"]),
        (roles["cls_token"], ids["cls_token"]),
        trim_offsets=True,
        add_prefix_space=has_prefix,
    )
    return tokenizer


def role_ids(
    path: Path, vocabulary: Mapping[str, int], roles: Mapping[str, str], wanted: tuple[str, ...]
) -> dict[str, int]:
    """Return the ids of the tokens that a framing needs."""
    for role in wanted:
        if roles[role] not in vocabulary:
            raise ModelError(
                f"{path} has no {roles[role]!r}, the {role}; name the right one in "
                f"{path.parent / 'tokenizer_config.json'}"
            )
    return {role: vocabulary[roles[role]] for role in wanted}


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return the tokens of a vocab.json and their ids, which are 0, 1, 2, ..."""
    vocabulary = read_settings(path)
    if not vocabulary or set(vocabulary.values()) != set(range(len(vocabulary))):
        raise ModelError(f"{path}: expected tokens with the ids 0 to {len(vocabulary) - 1}")
    if any(type(id_) is not int for id_ in vocabulary.values()):
        raise ModelError(f"{path}: expected whole numbers as ids")
    return vocabulary


def _byte_level(folder: Path, settings: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, bool]:
    vocabulary = read_vocabulary(folder / "vocab.json")
    merges = _read_merges(folder / "merges.txt", vocabulary)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    has_prefix = setting(settings, "add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, has_prefix


def _read_merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.rstrip(" ").partition(" ")
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise ModelError(
                f"{path}, line {number}: {line!r} does not merge two tokens of the vocabulary "
                "into a third; download the file again"
            )
        merges.append((left, right))
    return merges


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8: {error}") from None
