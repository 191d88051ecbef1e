"""A tokenizer as the metadata of a GGUF file: the way back from `reader`.

llama.cpp knows pre-tokenizers by name and has one algorithm for each kind of vocabulary. A
tokenizer that does not follow one of them is refused: llama.cpp would split text differently, and
say nothing.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

import tokenizers

from lmwright.core.errors import ModelError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf.reader import (
    BYTE,
    CONTROL,
    ENDS,
    NORMAL,
    PHI3_KEEP_SPACE,
    PRE_TOKENIZERS,
    ROLE_KEYS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from lmwright.tokenizer.sentencepiece import SPACE, merges_from_scores
from lmwright.tokenizer.spec import AddedTokenSpec, TextRule, TokenizerSpec, read_spec

log = logging.getLogger(__name__)

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
DIFFERENTLY = "llama.cpp would split text differently"
# In a model's name, in any case of letters, they make llama.cpp change special tokens.
RULED_NAMES = re.compile(r"(phi)-?(?=3)|(modern)-(?=bert)", re.IGNORECASE)
# Names whose rules llama.cpp follows with simpler patterns.
SIMPLER = ("tekken", "gpt-4o")


def gguf_metadata(tokenizer: Tokenizer, *, vocab_size: int | None = None) -> dict[str, Any]:
    """Return the `tokenizer.*` entries of a GGUF file for this tokenizer.

    `vocab_size` is how many rows the model's embedding has: ids without a token are filled up.
    Phi-3's tokenizer needs a `general.name`, too, which then must not be changed.
    """
    spec = tokenizer.spec()
    check_algorithm(spec)
    kind = "llama" if spec.options["byte_fallback"] else "gpt2"
    types = typed_tokens(spec, kind, vocab_size)
    entries: dict[str, Any] = {"model": kind}
    entries |= sentencepiece(spec, types) if kind == "llama" else byte_level(spec)
    entries |= {"tokens": list(types), "token_type": list(types.values())}
    entries |= special_ids(tokenizer, types)
    metadata = {f"tokenizer.ggml.{name}": value for name, value in entries.items()}
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template.source
    return metadata | names_for_space(spec.added, kind)


def check_algorithm(spec: TokenizerSpec) -> None:
    """Refuse what is no plain byte-pair encoding."""
    if spec.algorithm != "BPE":
        raise ModelError(
            f"tokenizer: its model is {spec.algorithm}; only BPE can be written to GGUF, which "
            "decoders use"
        )
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if spec.options.get(name):
            raise ModelError(f"tokenizer: {name} = {spec.options[name]!r}; {DIFFERENTLY}")


def typed_tokens(spec: TokenizerSpec, kind: str, vocab_size: int | None) -> dict[str, int]:
    """Return the tokens in order with llama.cpp's types; ids without one are filled as it does."""
    by_id = {i: (token, NORMAL) for token, i in spec.vocabulary.items()}
    n_needed = max(by_id) + 1
    if kind == "llama":
        lacking = [i for i in range(256) if f"<0x{i:02X}>" not in spec.vocabulary]
        if lacking:
            raise ModelError(f"tokenizer: has no token <0x{lacking[0]:02X}>; llama.cpp needs all")
        by_id |= {i: (t, BYTE) for i, (t, _) in by_id.items() if BYTE_TOKEN.fullmatch(t)}
    for token in spec.added:
        # llama.cpp looks for these before it turns spaces into SentencePiece's sign.
        is_text = kind == "llama" and not token.is_special
        text = token.text.replace(SPACE, " ") if is_text else token.text
        by_id[token.id] = text, CONTROL if token.is_special else USER_DEFINED
    unknown = spec.options["unk_token"]
    if kind == "llama" and unknown is not None:
        by_id[spec.vocabulary[unknown]] = unknown, UNKNOWN
    n = max(by_id) + 1 if vocab_size is None else vocab_size
    if n < n_needed:
        raise ModelError(f"tokenizer: {n_needed:,} tokens, but the model has only {n:,} rows")
    for i in sorted(i for i in by_id if i >= n):
        # Gemma 3's text models have one for images.
        log.warning("tokenizer: %r is left out: the model has no row %d", by_id[i][0], i)
    rows = [by_id.get(i, (f"[PAD{i}]", UNUSED)) for i in range(n)]
    types = dict(rows)
    if len(types) != n or "" in types:
        tokens = [token for token, _ in rows]
        twice = next(token for token in tokens if not token or tokens.count(token) > 1)
        raise ModelError(
            f"tokenizer: token {twice!r} is empty or occurs twice; llama.cpp wants all different"
        )
    return types


def byte_level(spec: TokenizerSpec) -> dict[str, Any]:
    """Return the entries of GPT-2's kind: the name of the pre-tokenizer, and the merges."""
    steps = canonical(spec.pre_tokenizer)
    ignores_merges = bool(spec.options.get("ignore_merges"))
    name = next(
        (
            name
            for name, rules in PRE_TOKENIZERS.items()
            if known_steps(name) == steps and rules.ignores_merges == ignores_merges
        ),
        None,
    )
    if name is None:
        raise ModelError(
            f"tokenizer: splits text by {json.dumps(spec.pre_tokenizer or None)[:300]} with "
            f"ignore_merges = {ignores_merges}, for which llama.cpp has no name that is known here "
            f"({', '.join(PRE_TOKENIZERS)}); {DIFFERENTLY}"
        )
    if name in SIMPLER:
        log.warning(
            "tokenizer: llama.cpp's patterns for %s know capitals only from A to Z, and no "
            "combining characters; such text gets other tokens there",
            name,
        )
    elif spec.normalizer:
        log.warning(
            "tokenizer: llama.cpp does not compose characters (NFC); text in which accents are "
            "characters of their own gets other tokens there"
        )
    if [rule["type"] for rule in spec.normalizer] not in ([], ["NFC"]):
        raise ModelError(f"tokenizer: normalizer {json.dumps(spec.normalizer)}; {DIFFERENTLY}")
    if not spec.merges:
        raise ModelError("tokenizer: has no merges; llama.cpp opens no such file")
    spaced = next((merge for merge in spec.merges if " " in "".join(merge)), None)
    if spaced is not None:
        raise ModelError(f"tokenizer: the merge {spaced} has a space, which GGUF cannot write")
    return {"pre": name, "merges": [" ".join(merge) for merge in spec.merges]}


def sentencepiece(spec: TokenizerSpec, types: Mapping[str, int]) -> dict[str, Any]:
    """Return the entries of Llama 2's kind: scores instead of merges, and what spaces become."""
    if spec.options.get("ignore_merges"):
        raise ModelError(f"tokenizer: ignore_merges with byte_fallback; {DIFFERENTLY}")
    return {
        "pre": "default",
        "add_space_prefix": has_space_prefix(spec),
        "scores": scores_from_merges(spec.merges, types),
    }


def has_space_prefix(spec: TokenizerSpec) -> bool:
    """Tell whether a text gets a space in front; refuse normalizers other than SentencePiece's."""
    normalizer, splitter = list(spec.normalizer), list(spec.pre_tokenizer)
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    # Without effect: the spaces are replaced by then. google/gemma-2-2b tokenizer.json
    idle = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
    if splitter in ([], [{**idle, "invert": False}]):
        if normalizer == [replaces]:
            return False
        if normalizer == [{"type": "Prepend", "prepend": SPACE}, replaces]:
            return True
    spaces = splitter[0] if len(splitter) == 1 and not normalizer else {}
    if spaces.get("type") == "Metaspace" and spaces["replacement"] == SPACE and not spaces["split"]:
        if spaces["prepend_scheme"] != "never":
            log.warning(
                "tokenizer: llama.cpp puts a space before every text, also where this tokenizer "
                "does not: before a text that begins with one%s",
                ", and behind special tokens" if spaces["prepend_scheme"] == "first" else "",
            )
        return spaces["prepend_scheme"] != "never"
    raise ModelError(
        f"tokenizer: normalizer {json.dumps(normalizer)[:200]} with pre_tokenizer "
        f"{json.dumps(splitter)[:200]}; {DIFFERENTLY}"
    )


def scores_from_merges(merges: Sequence[tuple[str, str]], types: Mapping[str, int]) -> list[float]:
    """Return scores that put merges into their order; refuse merges that no scores can tell.

    llama.cpp joins any two neighbours that are a token together, that of the best score first. So
    the merges must be all of these, and those that lead to one token must stand together.
    """
    normal = {token for token, type_ in types.items() if type_ == NORMAL}
    # The others are looked for before, or are not made of text.
    pairs = [(left, right) for left, right in merges if left + right in normal]
    order = list(dict.fromkeys(left + right for left, right in pairs))
    ranks = {token: rank for rank, token in enumerate(order)}
    in_order = [ranks[left + right] for left, right in pairs]
    lowest = -float(len(order))
    scores = [-float(ranks[token]) if token in ranks else lowest for token in types]
    implied = merges_from_scores(types, scores, apart=types.keys() - normal)
    if in_order != sorted(in_order) or set(implied) != set(pairs):
        odd = next(iter(set(implied) ^ set(pairs)), pairs[0] if pairs else ("", ""))
        raise ModelError(
            f"tokenizer: its merges do not follow from scores as SentencePiece's do (for example "
            f"{odd[0]!r} + {odd[1]!r}); {DIFFERENTLY}"
        )
    return scores


def special_ids(tokenizer: Tokenizer, types: Mapping[str, int]) -> dict[str, Any]:
    """Return the ids of the roles, what ends a reply, and whether BOS and EOS are added."""
    tokens = list(types)
    ids = {token: i for i, token in enumerate(tokens)}
    entries: dict[str, Any] = {}
    for role, key in ROLE_KEYS.items():
        token = tokenizer.special_tokens.get(role)
        if token is not None:
            if token not in ids:
                raise ModelError(f"tokenizer: {role} {token!r} has no row in the model")
            entries[key] = ids[token]
    ends = [i for i in tokenizer.eos_ids if i < len(tokens)]
    if not ends:
        raise ModelError(
            "tokenizer: names no eos_token; llama.cpp would end a reply at some token of its own"
        )
    entries.setdefault("eos_token_id", ends[0])
    # llama.cpp finds the usual ones by their text, and has two keys for others.
    others = [
        i
        for i in ends
        if i != entries["eos_token_id"] and not (types[tokens[i]] == CONTROL and tokens[i] in ENDS)
    ]
    if len(others) > 2:
        raise ModelError(
            f"tokenizer: {len(others) + 1} tokens end a reply, but GGUF can name three: the "
            f"eos_token and {[tokens[i] for i in others]}"
        )
    entries |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    return entries | added_around(tokenizer, entries)


def added_around(tokenizer: Tokenizer, entries: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether BOS and EOS are put around a text, found by encoding one."""
    plain, whole = tokenizer.encode("a", add_bos=False), tokenizer.encode_input("a").ids
    for has_bos, has_eos in product((False, True), repeat=2):
        bos = [entries.get("bos_token_id")] if has_bos else []
        eos = [entries["eos_token_id"]] if has_eos else []
        if whole == [*bos, *plain, *eos]:
            return {"add_bos_token": has_bos, "add_eos_token": has_eos}
    raise ModelError(
        f"tokenizer: encodes 'a' as {whole}; GGUF knows only its bos_token before, and its "
        "eos_token behind a text"
    )


def is_simplified(text: str, pre: str | None) -> bool:
    """Tell whether llama.cpp's rules of this name treat a text otherwise than the model's own.

    `byte_level` warns of them when a file is written.
    """
    if pre in SIMPLER:
        kinds = {unicodedata.category(c) for c in text if not c.isascii()}
        return any(kind in ("Lu", "Lt") or kind.startswith("M") for kind in kinds)
    rules = PRE_TOKENIZERS.get(pre or "")
    return rules is not None and rules.composes and not unicodedata.is_normalized("NFC", text)


def harmless_name(name: str) -> str:
    """Return a model's name without what llama.cpp takes for a family with rules of its own."""
    return RULED_NAMES.sub(lambda found: f"{found[1] or found[2]}_", name)


def names_for_space(added: Sequence[AddedTokenSpec], kind: str) -> dict[str, str]:
    """Return what makes llama.cpp let special tokens swallow space as these do."""
    for token in added:
        if token.single_word or token.lstrip:
            flag = "single_word" if token.single_word else "lstrip"
            raise ModelError(f"tokenizer: {token.text!r} has {flag}; {DIFFERENTLY}")
    swallowing = {token.text for token in added if token.rstrip}
    if not swallowing:
        return {}
    if kind == "llama" and swallowing == {token.text for token in added} - set(PHI3_KEEP_SPACE):
        return {"general.name": "Phi-3"}
    raise ModelError(
        f"tokenizer: {min(swallowing)!r} swallows the space behind it (rstrip), which llama.cpp "
        f"does for Phi-3's tokens only; {DIFFERENTLY}"
    )


def canonical(pre_tokenizer: Sequence[TextRule]) -> list[TextRule]:
    """Return a pre-tokenizer as steps that are equal if they split alike."""
    steps = []
    for step in pre_tokenizer:
        # It says where a token lies, not what it is.
        step = {key: value for key, value in step.items() if key != "trim_offsets"}
        # The known patterns match every character, so that nothing lies between the matches.
        if (step.get("behavior"), step.get("invert")) == ("Removed", True):
            step |= {"behavior": "Isolated", "invert": False}
        steps.append(step)
    return steps


@cache
def known_steps(name: str) -> list[TextRule]:
    """Return the steps of a pre-tokenizer that llama.cpp has a name for."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = PRE_TOKENIZERS[name].split()
    return canonical(read_spec(backend).pre_tokenizer)
