"""The tokenizer inside a GGUF file: its vocabulary and merges as a `tokenizers.Tokenizer`.

A GGUF file names its pre-tokenizer instead of spelling it out. Only names whose rules are known
here are accepted: a wrong rule gives other tokens than the model was trained on, and no error.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from lmwright.core.errors import ModelError, suggestion

# llama.cpp's token types (gguf.TokenType).
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
SPACE = "\u2581"  # how SentencePiece writes a space

# The patterns of the original tokenizer.json files.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that a GGUF file's metadata describes; ids are those of the file.

    A file that wants BOS or EOS gets them from `encode(..., add_special_tokens=True)`.
    """
    kind = read(metadata, "model", str)
    if kind not in BUILDERS:
        raise ModelError(
            f"tokenizer.ggml.model = {kind!r}: this kind of tokenizer is not known"
            f"{suggestion(kind, BUILDERS)}"
        )
    tokens = read(metadata, "tokens", list)
    if not tokens or type(tokens[0]) is not str:
        raise ModelError("tokenizer.ggml.tokens: expected a list of texts; use another file")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError("tokenizer.ggml.tokens: a token occurs twice; download the file again")
    types = read(metadata, "token_type", list)
    if len(types) != len(tokens):
        raise ModelError(
            f"tokenizer.ggml.token_type: {len(types):,} types for {len(tokens):,} tokens; "
            "download the file again"
        )
    tokenizer = BUILDERS[kind](metadata, vocabulary)
    specials = {CONTROL} if kind == "gpt2" else {CONTROL, UNKNOWN}
    for chosen, add in (
        (specials, tokenizer.add_special_tokens),
        ({USER_DEFINED}, tokenizer.add_tokens),
    ):
        is_special = chosen is specials
        add(
            [
                AddedToken(token, normalized=False, special=is_special)
                for token, type_ in zip(tokens, types, strict=True)
                if type_ in chosen
            ]
        )
    add_template(tokenizer, metadata, tokens)
    return tokenizer


def byte_level(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Tokenizer:
    """Build GPT-2's kind: BPE over bytes, each byte written as a printable character."""
    name = read(metadata, "pre", str)
    if name not in PRE_TOKENIZERS:
        raise ModelError(
            f"tokenizer.ggml.pre = {name!r}: this pre-tokenizer is not known, and a guess would "
            f"give wrong tokens; known: {', '.join(PRE_TOKENIZERS)}"
        )
    merges = read_merges(metadata, vocabulary)
    # Llama 3 takes a whole word that is in the vocabulary even where no merges lead to it.
    ignores_merges = PRE_TOKENIZERS[name] is llama3
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignores_merges))
    if PRE_TOKENIZERS[name] is qwen2:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Tokenizer:
    """Build Llama 2's kind: BPE over characters, with bytes for those that are not in it."""
    if "tokenizer.ggml.merges" in metadata:
        merges = read_merges(metadata, vocabulary)
    else:
        merges = merges_from_scores(vocabulary, read(metadata, "scores", list))
    types = metadata["tokenizer.ggml.token_type"]
    unknown = next((token for token, i in vocabulary.items() if types[i] == UNKNOWN), None)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    has_prefix = read(metadata, "add_space_prefix", bool, default=True)
    steps: list[Any] = [normalizers.Prepend(SPACE)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if has_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def gpt2() -> Any:
    """Split like GPT-2."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def smollm() -> Any:
    """Split like GPT-2, each digit for itself. HuggingFaceTB/SmolLM2-135M tokenizer.json"""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


def llama3() -> Any:
    """Split like Llama 3. meta-llama/Meta-Llama-3-8B tokenizer.json"""
    return by_pattern(LLAMA3_PATTERN)


def qwen2() -> Any:
    """Split like Qwen 2. Qwen/Qwen2-7B tokenizer.json"""
    return by_pattern(QWEN2_PATTERN)


def by_pattern(pattern: str) -> Any:
    """Split into the matches of a pattern, then write bytes as characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


BUILDERS: dict[str, Callable[[Mapping[str, Any], dict[str, int]], Tokenizer]] = {
    "gpt2": byte_level,
    "llama": sentencepiece,
}
# Names from llama.cpp's convert_hf_to_gguf.py; "default" is what it once wrote for GPT-2's.
PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "default": gpt2,
    "gpt-2": gpt2,
    "llama-bpe": llama3,
    "qwen2": qwen2,
    "smollm": smollm,
}


def add_template(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str]) -> None:
    """Let the tokenizer add BOS and EOS where the file says so (llama.cpp's defaults if silent)."""
    name = metadata["tokenizer.ggml.model"]
    pre = metadata.get("tokenizer.ggml.pre")
    is_llama = name == "llama" or PRE_TOKENIZERS.get(str(pre)) is llama3
    pieces, ids = ["$A"], []
    if read(metadata, "add_bos_token", bool, default=is_llama):
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


def merges_from_scores(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Recover the merges of a SentencePiece vocabulary: a better score was merged earlier.

    The same order as Hugging Face's converter: by score, then by the lengths of both halves.
    """
    if len(scores) != len(vocabulary):
        raise ModelError(
            f"tokenizer.ggml.scores: {len(scores):,} scores for {len(vocabulary):,} tokens; "
            "download the file again"
        )
    merges: list[tuple[float, int, int, str, str]] = []
    for token, score in zip(vocabulary, scores, strict=True):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((score, len(left), len(right), left, right))
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in merges]


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
