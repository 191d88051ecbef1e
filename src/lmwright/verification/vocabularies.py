"""Do two tokenizers have the same tokens, merges, roles, ends of a reply and chat template?

Texts alone do not tell: each reaches only some of the tokens, merges and branches of a template.
"""

from collections.abc import Iterator, Sequence

from lmwright.tokenizer.encode import ROLES, Tokenizer
from lmwright.tokenizer.gguf.reader import ENDS, ROLE_KEYS
from lmwright.tokenizer.spec import TokenizerSpec
from lmwright.verification.subject import Subject

# Characters of a template that are shown where it differs.
N_SHOWN = 30

Merges = Sequence[tuple[str, str]]


def compare_vocabularies(a: Subject, b: Subject) -> list[str]:
    """Return what differs between the tokens of two subjects that show theirs, and their roles."""
    assert a.tokenizer is not None
    assert b.tokenizer is not None
    specs = a.tokenizer.spec(), b.tokenizer.spec()
    # What has no row in the model cannot come up; a converter leaves it out.
    n_rows = min((s.n_ids for s in (a, b) if s.n_ids is not None), default=None)
    ids = [{i for i, text in spec.tokens.items() if n_rows is None or i < n_rows} for spec in specs]
    return [
        *_tokens(a.tokenizer, b.tokenizer, *ids),
        *_merges(*specs, is_exact=not (a.is_gguf or b.is_gguf)),
        *_ends(a, b, a.tokenizer, b.tokenizer),
        *_roles(a, b, a.tokenizer, b.tokenizer),
    ]


def compare_templates(a: Tokenizer, b: Tokenizer) -> str | None:
    """Return where two chat templates differ."""
    if a.chat_template is None or b.chat_template is None:
        if a.chat_template is b.chat_template:
            return None
        return "only one of the two has a chat template"
    # Jinja drops one line break at the end.
    first, second = (t.chat_template.source.removesuffix("\n") for t in (a, b))  # type: ignore
    if first == second:
        return None
    pairs = zip(first, second, strict=False)
    place = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(first), len(second)))
    shown = (repr(text[place : place + N_SHOWN]) for text in (first, second))
    return f"from character {place + 1:,} on: {', against '.join(shown)}"


def named(tokenizer: Tokenizer, ids: Sequence[int] | set[int]) -> str:
    """Return token ids with their texts."""
    return ", ".join(f"{i} {tokenizer.token(i)!r}" for i in sorted(ids)) or "no token"


def _tokens(a: Tokenizer, b: Tokenizer, ids_a: set[int], ids_b: set[int]) -> Iterator[str]:
    for ids, others, tokenizer, which in ((ids_a, ids_b, a, "A"), (ids_b, ids_a, b, "B")):
        # llama.cpp wants a token for each row: those without one are filled up with these.
        only = sorted(i for i in ids - others if tokenizer.token(i) != f"[PAD{i}]")
        if only:
            yield f"{len(only):,} tokens are only in {which}: {named(tokenizer, only[:1])}, ..."
    others = [i for i in sorted(ids_a & ids_b) if a.token(i) != b.token(i)]
    if others:
        first = others[0]
        yield (
            f"{len(others):,} tokens have another text, the first is {first}: "
            f"{a.token(first)!r}, against {b.token(first)!r}"
        )


def _merges(a: TokenizerSpec, b: TokenizerSpec, *, is_exact: bool) -> Iterator[str]:
    if a.algorithm != b.algorithm:
        yield f"the tokens are found by {a.algorithm}, against {b.algorithm}"
        return
    added = {token.text for spec in (a, b) for token in spec.added}
    orders = [spec.merges for spec in (a, b)]
    if not is_exact and a.options.get("byte_fallback"):
        # A GGUF has scores of tokens in their place: of those that lead to one token the order is
        # not said, and none is needed that leads to a token which is looked for beforehand.
        orders = [_by_token(merges, added) for merges in orders]
    if orders[0] != orders[1]:
        pairs = zip(*orders, strict=False)
        n = min(map(len, orders))
        place = next((i for i, (x, y) in enumerate(pairs) if x != y), n)
        shown = (repr(order[place]) if place < len(order) else "none" for order in orders)
        yield f"merge {place + 1:,} is {', against '.join(shown)}"


def _by_token(merges: Merges, apart: set[str]) -> Merges:
    """Return merges in the order of the tokens that they lead to, those of one token sorted."""
    ranks: dict[str, int] = {}
    for left, right in merges:
        ranks.setdefault(left + right, len(ranks))
    kept = [pair for pair in merges if "".join(pair) not in apart]
    return sorted(kept, key=lambda pair: (ranks["".join(pair)], pair))


def _ends(a: Subject, b: Subject, of_a: Tokenizer, of_b: Tokenizer) -> Iterator[str]:
    expected, found = set(of_a.eos_ids), set(of_b.eos_ids)
    if b.is_gguf and not a.is_gguf:
        # llama.cpp knows some ends by their names, and a GGUF ends replies with them, too.
        expected |= {i for i in found if of_b.token(i) in ENDS}
    if expected != found:
        yield f"a reply ends with {named(of_a, of_a.eos_ids)}, against {named(of_b, found)}"


def _roles(a: Subject, b: Subject, of_a: Tokenizer, of_b: Tokenizer) -> Iterator[str]:
    for role in ROLE_KEYS if a.is_gguf or b.is_gguf else ROLES:
        if role == "eos_token":  # among the ends
            continue
        first, second = (of.special_tokens.get(role) for of in (of_a, of_b))
        if first != second:
            yield f"the {role} is {first!r}, against {second!r}"
