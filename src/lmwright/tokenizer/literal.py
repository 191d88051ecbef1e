"""Special tokens that a user writes stay text, also for models that would spell them in one piece.

With `encode_special_tokens` the library no longer looks for special tokens in a text. But a
Unigram model (T5, mBART) has them in its vocabulary like any other piece, and takes them for the
likeliest way to write "</s>": there, such a text is cut behind its first character.
"""

import re
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers


def keep_literal(backend: tokenizers.Tokenizer) -> Any:
    """Make the backend cut what spells a special token; return its pre-tokenizer from before.

    It has to have `encode_special_tokens` set. Where no text can spell one, nothing is changed.
    """
    before = backend.pre_tokenizer
    added = backend.get_added_tokens_decoder()
    rests: dict[str, list[str]] = {}
    for id_, token in added.items():
        text = token.content
        if not token.special or len(text) == 1:  # a token of one character is that character
            continue
        if id_ in backend.encode(text, add_special_tokens=False).ids:
            rests.setdefault(text[0], []).append(re.escape(text[1:]))
    if rests:
        pattern = "|".join(
            f"{re.escape(first)}(?={'|'.join(sorted(rest))})" for first, rest in rests.items()
        )
        cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        backend.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])
    return before
