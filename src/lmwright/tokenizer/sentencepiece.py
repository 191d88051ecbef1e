"""SentencePiece's ways, whatever file tells of them: spaces as a sign, bytes, special tokens."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers

SPACE = "\u2581"  # how SentencePiece writes a space


def space_normalizers(*, has_prefix: bool) -> list[Any]:
    """Return the steps that write spaces as a sign, with one in front of a text if it is wanted."""
    prefix = [normalizers.Prepend(SPACE)] if has_prefix else []
    return [*prefix, normalizers.Replace(" ", SPACE)]


def decoder(*, has_prefix: bool, has_byte_fallback: bool) -> Any:
    """Return what makes text of pieces again."""
    steps: list[Any] = [decoders.Replace(SPACE, " ")]
    if has_byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if has_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def mark_special(tokenizer: tokenizers.Tokenizer, tokens: Iterable[str], **flags: bool) -> None:
    """Make these tokens special; they are looked for in the text as it was given."""
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True, **flags) for token in tokens]
    )


def merges_from_scores(
    vocabulary: Collection[str], scores: Sequence[float], *, apart: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Recover the merges of a SentencePiece vocabulary: a better score was merged earlier.

    The same order as Hugging Face's converter: by score, then by the lengths of both halves. No
    merges lead to the tokens in `apart`.
    """
    merges: list[tuple[float, int, int, str, str]] = []
    for token, score in zip(vocabulary, scores, strict=True):
        if token in apart:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((score, len(left), len(right), left, right))
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in merges]
