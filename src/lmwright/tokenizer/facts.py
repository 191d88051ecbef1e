"""What a tokenizer is: its kind, its special tokens, how many characters it makes a token of."""

from dataclasses import dataclass

import tokenizers
from tokenizers import models

from lmwright.core.errors import RequestError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.settings import ROLES

# A model with a larger vocabulary, or trained on the language, needs fewer tokens for the same.
SAMPLES = {
    "English": (
        "The ferry leaves at 7:45 and takes about forty minutes. If the sea is rough, it waits in "
        "the harbour until the wind drops; passengers are told by loudspeaker, and nobody has to "
        "buy a second ticket."
    ),
    "German": (
        "Die F\u00e4hre legt um 7.45 Uhr ab und braucht etwa vierzig Minuten. Bei hohem Seegang "
        "wartet sie im Hafen, bis der Wind nachl\u00e4sst; die Fahrg\u00e4ste erfahren es "
        "\u00fcber Lautsprecher, und niemand muss eine zweite Fahrkarte l\u00f6sen."
    ),
    "Python": (
        "def departures(rows: list[dict]) -> list[str]:\n"
        '    """Return the names of ferries that still run today."""\n'
        "    return [row['name'].strip() for row in rows if row['wind_kmh'] < 60]\n"
    ),
}


@dataclass(frozen=True)
class SpecialToken:
    """A token with a role; the id is None if the vocabulary does not have it."""

    role: str
    text: str
    id: int | None


@dataclass(frozen=True)
class TokenizerFacts:
    """What a tokenizer is."""

    kind: str
    n_tokens: int
    # Those with a role; "end" are further tokens that end a reply.
    special_tokens: tuple[SpecialToken, ...]
    # What the model reads before and behind a text; None where it depends on a language to choose.
    around: tuple[tuple[str, ...], tuple[str, ...]] | None
    ignores_case: bool
    # Of the samples above.
    characters_per_token: dict[str, float]


def tokenizer_facts(tokenizer: Tokenizer, *, is_framed: bool) -> TokenizerFacts:
    """Return what a tokenizer is; `is_framed` for models that read texts as `frame` gives them."""
    return TokenizerFacts(
        kind=_kind(tokenizer),
        n_tokens=tokenizer.vocab_size,
        special_tokens=_special_tokens(tokenizer),
        around=_around(tokenizer, is_framed=is_framed),
        ignores_case=_plain(tokenizer, "Aa") == _plain(tokenizer, "aa"),
        characters_per_token={
            name: len(text) / len(_plain(tokenizer, text)) for name, text in SAMPLES.items()
        },
    )


def _kind(tokenizer: Tokenizer) -> str:
    backend: tokenizers.Tokenizer = tokenizer._backend
    if tokenizer.translation is not None and tokenizer.translation.source_pieces is not None:
        return "SentencePiece unigram, one for each side"
    if not isinstance(backend.model, models.BPE):
        names = {models.Unigram: "SentencePiece unigram", models.WordPiece: "WordPiece"}
        return names.get(type(backend.model), type(backend.model).__name__)
    # What puts the text together again tells what it was taken apart into.
    if "ByteLevel" in str(backend.decoder):
        return "byte-level BPE"
    return "SentencePiece BPE" if backend.model.byte_fallback else "BPE"


def _special_tokens(tokenizer: Tokenizer) -> tuple[SpecialToken, ...]:
    backend: tokenizers.Tokenizer = tokenizer._backend
    found = [
        SpecialToken(role.removesuffix("_token"), text, backend.token_to_id(text))
        for role in ROLES
        if (text := tokenizer.special_tokens.get(role)) is not None
    ]
    named = {token.id for token in found if token.role == "eos"}
    ends = [
        SpecialToken("end", backend.id_to_token(id_) or "", id_)
        for id_ in tokenizer.eos_ids
        if id_ not in named
    ]
    return (*found, *ends)


def _around(
    tokenizer: Tokenizer, *, is_framed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    inside = _plain(tokenizer, "a")
    try:
        ids = tokenizer.frame("a").ids if is_framed else tokenizer.encode("a")
    except RequestError:  # a language must be named first
        return None
    texts = [tokenizer._backend.id_to_token(id_) or "" for id_ in ids]
    n_before = next(i for i in range(len(ids)) if ids[i : i + len(inside)] == inside)
    return tuple(texts[:n_before]), tuple(texts[n_before + len(inside) :])


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_bos=False)
