"""The tokenizer inside a GGUF file: its vocabulary and merges as a `tokenizers.Tokenizer`.

A GGUF file names its pre-tokenizer instead of spelling it out. Only names whose rules are known
here are accepted: a wrong rule gives other tokens than the model was trained on, and no error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

from lmwright.core.errors import ModelError, suggestion
from lmwright.formats.settings import Settings, is_list, is_number, shown
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.sentencepiece import decoder, merges_from_scores, space_normalizers

# llama.cpp's token types (gguf.TokenType).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# The role in the tokenizer's settings, and the key that llama.cpp reads.
ROLE_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

# The patterns of the original tokenizer.json files.
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3_PATTERN = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
# A word is capitals, then small letters; either may be missing, but not both.
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Control tokens that end a reply even if the file does not say so, as in llama.cpp.
ENDS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
)
# Phi-3's special tokens swallow the space behind them, except for these.
PHI3_KEEP_SPACE = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class SplitRules:
    """What the name of a pre-tokenizer stands for."""

    split: Callable[[], Any]
    # A whole word that is in the vocabulary is one token, even where no merges lead to it.
    ignores_merges: bool = False
    # Characters are composed first (NFC).
    composes: bool = False
    # Whether a text begins with BOS if the file does not say.
    adds_bos: bool = False


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that a GGUF file carries in its metadata."""
    tokens = read_tokens(metadata)
    return Tokenizer(
        tokenizer_from_gguf(metadata),
        special_tokens={
            role: tokens[read_id(metadata, key, tokens)]
            for role, key in ROLE_KEYS.items()
            if metadata.get(f"tokenizer.ggml.{key}") is not None
        },
        eos_ids=end_ids(metadata),
        chat_template=Settings(metadata).text("tokenizer.chat_template"),
    )


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Return the tokenizer that a GGUF file's metadata describes; ids are those of the file.

    A file that wants BOS or EOS gets them from `encode(..., add_special_tokens=True)`.
    """
    kind = read(metadata, "model", str)
    if kind not in BUILDERS:
        raise ModelError(
            f"tokenizer.ggml.model = {shown(kind)}: this kind of tokenizer is not known"
            f"{suggestion(kind, BUILDERS)}"
        )
    tokens = read_tokens(metadata)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError("tokenizer.ggml.tokens: a token occurs twice; download the file again")
    types = read_each(metadata, "token_type", "types", len(tokens))
    tokenizer = BUILDERS[kind](metadata, vocabulary)
    # No key says so, only the family or the name.
    name = str(metadata.get("general.name")).lower()
    is_phi3 = metadata.get("general.architecture") == "phi3" or "phi-3" in name or "phi3" in name
    swallows = kind == "llama" and is_phi3
    specials = (CONTROL,) if kind == "gpt2" else (CONTROL, UNKNOWN)
    tokenizer.add_tokens(
        [
            AddedToken(
                token,
                normalized=False,
                special=type_ in specials,
                rstrip=swallows and token not in PHI3_KEEP_SPACE,
            )
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in (*specials, USER_DEFINED)
        ]
    )
    add_template(tokenizer, metadata, tokens)
    return tokenizer


def end_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Return the tokens that end a reply: those that the file names, then those known by text."""
    tokens = read_tokens(metadata)
    types = read_each(metadata, "token_type", "types", len(tokens))
    names = [f"{end}_token_id" for end in ("eos", "eot", "eom")]
    named = [
        read_id(metadata, name, tokens) for name in names if f"tokenizer.ggml.{name}" in metadata
    ]
    known = [
        i
        for i, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ == CONTROL and token in ENDS
    ]
    return list(dict.fromkeys(named + known))


def byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """Build GPT-2's kind: BPE over bytes, each byte written as a printable character."""
    name = read(metadata, "pre", str)
    if name == "default":
        raise ModelError(
            "tokenizer.ggml.pre = 'default': the converter did not know how this model splits text;"
            " convert the model again, with a newer llama.cpp or from its Hugging Face folder"
        )
    if name not in PRE_TOKENIZERS:
        raise ModelError(
            f"tokenizer.ggml.pre = {shown(name)}: this pre-tokenizer is not known, and a guess "
            f"would give wrong tokens; known: {', '.join(PRE_TOKENIZERS)}"
        )
    rules = PRE_TOKENIZERS[name]
    merges = read_merges(metadata, vocabulary)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, ignore_merges=rules.ignores_merges)
    )
    if rules.composes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = rules.split()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """Build Llama 2's kind: BPE over characters, with bytes for those that are not in it."""
    types = metadata["tokenizer.ggml.token_type"]
    if "tokenizer.ggml.merges" in metadata:
        merges = read_merges(metadata, vocabulary)
    else:
        # Text never becomes one of these, not even letter by letter.
        apart = {token for token, i in vocabulary.items() if types[i] in (UNKNOWN, CONTROL, BYTE)}
        scores = read_each(metadata, "scores", "scores", len(vocabulary))
        merges = merges_from_scores(vocabulary, scores, apart=apart)
    unknown = next((token for token, i in vocabulary.items() if types[i] == UNKNOWN), None)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    has_prefix = read(metadata, "add_space_prefix", bool, default=True)
    tokenizer.normalizer = normalizers.Sequence(space_normalizers(has_prefix=has_prefix))
    tokenizer.decoder = decoder(has_prefix=has_prefix, has_byte_fallback=True)
    return tokenizer


def gpt2() -> Any:
    """Split like GPT-2."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def smollm() -> Any:
    """Split like GPT-2, each digit for itself. HuggingFaceTB/SmolLM2-135M tokenizer.json"""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


def by_pattern(pattern: str) -> Any:
    """Split into the matches of a pattern, then write bytes as characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


BUILDERS: dict[str, Callable[[Mapping[str, Any], dict[str, int]], tokenizers.Tokenizer]] = {
    "gpt2": byte_level,
    "llama": sentencepiece,
}
# Names from llama.cpp's convert_hf_to_gguf.py, with the families that use them.
PRE_TOKENIZERS: dict[str, SplitRules] = {
    "gpt-2": SplitRules(gpt2),
    "smollm": SplitRules(smollm),
    # Llama 3
    "llama-bpe": SplitRules(lambda: by_pattern(LLAMA3_PATTERN), ignores_merges=True, adds_bos=True),
    # OLMo 2
    "dbrx": SplitRules(lambda: by_pattern(LLAMA3_PATTERN)),
    # Qwen 2, 2.5 and 3
    "qwen2": SplitRules(lambda: by_pattern(QWEN2_PATTERN), composes=True),
    # Mistral Nemo and later
    "tekken": SplitRules(lambda: by_pattern(TEKKEN_PATTERN), ignores_merges=True, adds_bos=True),
    # Phi-4-mini
    "gpt-4o": SplitRules(lambda: by_pattern(GPT4O_PATTERN)),
}


def add_template(
    tokenizer: tokenizers.Tokenizer, metadata: Mapping[str, Any], tokens: list[str]
) -> None:
    """Let the tokenizer add BOS and EOS where the file says so (llama.cpp's defaults if silent)."""
    name = metadata["tokenizer.ggml.model"]
    adds_bos = name == "llama" or PRE_TOKENIZERS[metadata["tokenizer.ggml.pre"]].adds_bos
    pieces, ids = ["$A"], []
    if read(metadata, "add_bos_token", bool, default=adds_bos):
        bos = read_id(metadata, "bos_token_id", tokens)
        pieces.insert(0, tokens[bos])
        ids.append((tokens[bos], bos))
    if read(metadata, "add_eos_token", bool, default=False):
        eos = read_id(metadata, "eos_token_id", tokens)
        pieces.append(tokens[eos])
        ids.append((tokens[eos], eos))
    if ids:
        template = processors.TemplateProcessing(single=pieces, special_tokens=sorted(set(ids)))
        tokenizer.post_processor = template


def read_merges(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges, each of two tokens that together are one."""
    merges: list[tuple[str, str]] = []
    for i, merge in enumerate(read(metadata, "merges", list)):
        # The first half may be a space itself, hence from the second character on.
        cut = merge.find(" ", 1) if isinstance(merge, str) else -1
        left, right = (merge[:cut], merge[cut + 1 :]) if cut > 0 else ("", "")
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise ModelError(
                f"tokenizer.ggml.merges, item {i + 1}: {merge!r} does not merge two tokens of the "
                "vocabulary into a third; download the file again"
            )
        merges.append((left, right))
    return merges


def read_tokens(metadata: Mapping[str, Any]) -> list[str]:
    """Return the tokens in the order of their ids."""
    tokens = read(metadata, "tokens", list)
    if not tokens or not is_list(tokens, str):
        raise ModelError("tokenizer.ggml.tokens: expected a list of texts; use another file")
    return tokens


def read_each(metadata: Mapping[str, Any], name: str, what: str, n_tokens: int) -> list[float]:
    """Return a number for each token."""
    numbers = read(metadata, name, list)
    if not all(map(is_number, numbers)):
        raise ModelError(f"tokenizer.ggml.{name}: expected a list of numbers; use another file")
    if len(numbers) != n_tokens:
        raise ModelError(
            f"tokenizer.ggml.{name}: {len(numbers):,} {what} for {n_tokens:,} tokens; "
            "download the file again"
        )
    return numbers


def read_id(metadata: Mapping[str, Any], name: str, tokens: list[str]) -> int:
    """Return a token id that is in the vocabulary."""
    token_id = read(metadata, name, int)
    if not 0 <= token_id < len(tokens):
        raise ModelError(f"tokenizer.ggml.{name} = {token_id}: there are {len(tokens):,} tokens")
    return token_id


def read(metadata: Mapping[str, Any], name: str, type_: type, *, default: Any = None) -> Any:
    """Return `tokenizer.ggml.<name>` if it has the right type."""
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, default)
    if value is None:
        raise ModelError(f"{key} is missing: the file has no complete tokenizer; use another")
    if type(value) is not type_:
        raise ModelError(f"{key}: expected {type_.__name__}, found {type(value).__name__}")
    return value
