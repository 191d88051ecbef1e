"""What a tokenizer is: its kind, its special tokens, how many characters it makes a token of."""

from dataclasses import dataclass

from lmwright.core.errors import RequestError
from lmwright.tokenizer.encode import ROLES, Tokenizer
from lmwright.tokenizer.spec import TokenizerSpec

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
class TokenizerSummary:
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


def summarise_tokenizer(tokenizer: Tokenizer, *, has_specials: bool) -> TokenizerSummary:
    """Return what a tokenizer is; `has_specials`: its model reads what `encode_input` returns."""
    spec = tokenizer.spec()
    return TokenizerSummary(
        kind=_kind(tokenizer, spec),
        n_tokens=tokenizer.vocab_size,
        special_tokens=_special_tokens(tokenizer, spec),
        around=_around(tokenizer, spec, has_specials=has_specials),
        ignores_case=_plain(tokenizer, "Aa") == _plain(tokenizer, "aa"),
        characters_per_token={
            name: len(text) / len(_plain(tokenizer, text)) for name, text in SAMPLES.items()
        },
    )


def _kind(tokenizer: Tokenizer, spec: TokenizerSpec) -> str:
    if tokenizer.translation is not None and tokenizer.translation.source_pieces is not None:
        return "SentencePiece unigram, one for each side"
    if spec.algorithm != "BPE":
        return "SentencePiece unigram" if spec.algorithm == "Unigram" else spec.algorithm
    # What puts the text together again tells what it was taken apart into.
    if any(rule["type"] == "ByteLevel" for rule in spec.decoder):
        return "byte-level BPE"
    return "SentencePiece BPE" if spec.options["byte_fallback"] else "BPE"


def _special_tokens(tokenizer: Tokenizer, spec: TokenizerSpec) -> tuple[SpecialToken, ...]:
    ids = {token: id_ for id_, token in spec.tokens.items()}
    found = [
        SpecialToken(role.removesuffix("_token"), text, ids.get(text))
        for role in ROLES
        if (text := tokenizer.special_tokens.get(role)) is not None
    ]
    named = {token.id for token in found if token.role == "eos"}
    ends = [id_ for id_ in tokenizer.eos_ids if id_ not in named]
    return (*found, *(SpecialToken("end", spec.tokens.get(id_, ""), id_) for id_ in ends))


def _around(
    tokenizer: Tokenizer, spec: TokenizerSpec, *, has_specials: bool
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    inside = _plain(tokenizer, "a")
    try:
        ids = tokenizer.encode_input("a").ids if has_specials else tokenizer.encode("a")
    except RequestError:  # a language must be named first
        return None
    texts = [spec.tokens.get(id_, "") for id_ in ids]
    n_before = next(i for i in range(len(ids)) if ids[i : i + len(inside)] == inside)
    return tuple(texts[:n_before]), tuple(texts[n_before + len(inside) :])


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_bos=False)
