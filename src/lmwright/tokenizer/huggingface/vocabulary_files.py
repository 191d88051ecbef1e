"""Tokenizers from plain vocabularies: vocab.txt (BERT), vocab.json with merges.txt (GPT-2)."""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lmwright.core.errors import ModelError
from lmwright.formats.settings import is_token
from lmwright.tokenizer.huggingface.settings import TokenizerFolder, read_settings, with_ids


def word_piece(folder: TokenizerFolder) -> Tokenizer:
    """Build BERT's kind: words and punctuation, each cut into the longest pieces from the left."""
    tokens = _read_text(folder.file).removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError(f"{folder.file}: a token occurs twice; download the file again")
    if not folder.settings.flag("do_basic_tokenize", True):
        raise ModelError(f"{folder.path}: do_basic_tokenize = false is not known here")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=folder.roles["unk_token"]))
    _, sep, cls = with_ids(folder, tokenizer, folder.tokens("unk", "sep", "cls"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=folder.settings.flag("tokenize_chinese_chars", True),
        # Accents go where letters are lowered, if the folder does not say.
        strip_accents=folder.settings.flag("strip_accents"),
        lowercase=folder.settings.flag("do_lower_case", True),
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    return tokenizer


def gpt2(folder: TokenizerFolder) -> Tokenizer:
    """Build GPT-2's kind: BPE over bytes, with nothing around a text."""
    tokenizer = _byte_level(folder)
    if folder.settings.flag("add_bos_token", False):
        [bos] = with_ids(folder, tokenizer, folder.tokens("bos"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos[0], "$A"], special_tokens=[bos]
        )
    return tokenizer


def roberta(folder: TokenizerFolder) -> Tokenizer:
    """Build RoBERTa's and BART's kind: GPT-2's between <s> and </s>."""
    tokenizer = _byte_level(folder)
    sep, cls = with_ids(folder, tokenizer, folder.tokens("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(
        sep,
        cls,
        trim_offsets=True,
        add_prefix_space=folder.settings.flag("add_prefix_space", False),
    )
    return tokenizer


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return the tokens of a vocab.json and their ids, which are 0, 1, 2, ..."""
    vocabulary = dict(read_settings(path).values)
    if not all(map(is_token, vocabulary.values())):
        raise ModelError(f"{path}: expected whole numbers as ids")
    if not vocabulary or set(vocabulary.values()) != set(range(len(vocabulary))):
        raise ModelError(f"{path}: expected tokens with the ids 0 to {len(vocabulary) - 1}")
    return vocabulary


def _byte_level(folder: TokenizerFolder) -> Tokenizer:
    vocabulary = read_vocabulary(folder.file)
    merges = _read_merges(folder.path / "merges.txt", vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    has_prefix = folder.settings.flag("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


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
