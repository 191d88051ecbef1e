"""Two models, the same token ids: do they choose the same tokens, with the same probabilities?"""

import time
from collections.abc import Sequence

from lmwright.core.progress import Bar, bar
from lmwright.engine.request import Prompt
from lmwright.verification.bounds import Bound, bound_for
from lmwright.verification.checks import behaviour_checks, token_checks, untold
from lmwright.verification.prompts import Selection, select
from lmwright.verification.tally import Tally, count
from lmwright.verification.verdict import Check, Place, Verdict
from lmwright.verification.weights import compare_weights
from lmwright.verification.witness import Witness

N_TOKENS = 16
# Prompts that are continued together; their logits are held at the same time.
BATCH = 8
# Characters of a prompt that are shown.
N_SHOWN = 30


def verify(
    a: Witness,
    b: Witness,
    *,
    prompts: Sequence[Prompt] | None = None,
    n_prompts: int | None = None,
    n_tokens: int = N_TOKENS,
    bound: Bound | None = None,
) -> Verdict:
    """Compare a model with what claims to be a copy of it.

    `prompts` None are the built-in ones, of which `n_prompts` takes only the first that fit.

    Both are led along A's likeliest tokens, so that one near-tie early does not hide the rest.
    """
    started = time.perf_counter()
    weights = compare_weights(a, b)
    has_same_weights = None if weights is None else weights.are_same
    bound = bound or bound_for(a, b, has_same_weights=has_same_weights)
    chosen = select(a, b, prompts, n_tokens=n_tokens, n_prompts=n_prompts)
    tokens = token_checks(a, b, chosen)
    checks = [*tokens.checks, *(weights.checks(bound) if weights is not None else ())]
    not_compared = [*chosen.left_out, *tokens.not_compared]
    if weights is None:
        names = " and ".join(w.name for w in (a, b) if w.engine != "lmwright")
        not_compared.append(f"the weights themselves: {names} does not show them")
    tally = Tally()
    largest_id = max(map(max, chosen.ids))
    if b.n_ids is not None and largest_id >= b.n_ids:
        found = f"{b.name} has {b.n_ids:,} tokens; a prompt of {a.name} has token {largest_id}"
        checks.append(Check("tokens known to both", False, found))
        not_compared.append("what the two say: one does not know the other's tokens")
    else:
        with bar("verify", total=2 * len(chosen.ids)) as progress:
            _compare_all(a, b, chosen, n_tokens=n_tokens, tally=tally, progress=progress)
        checks += behaviour_checks(a, b, tally, bound)
        not_compared += untold(a, b, tally)
    numbers = tally.numbers()
    if weights is not None and weights.shapes is None:
        numbers["weight_error"] = weights.error
    return Verdict(
        a=a.name,
        b=b.name,
        bound=bound.name,
        checks=tuple(checks),
        not_compared=tuple(not_compared),
        largest=_place(a, b, tally, chosen),
        numbers=numbers,
        n_prompts=len(chosen.ids),
        n_positions=tally.n_positions,
        seconds=time.perf_counter() - started,
    )


def _compare_all(
    a: Witness, b: Witness, chosen: Selection, *, n_tokens: int, tally: Tally, progress: Bar
) -> None:
    # Prompts of like length together, so that little is computed for padding.
    order = sorted(range(len(chosen.ids)), key=lambda i: len(chosen.ids[i]))
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        of_a = a.trace([chosen.ids[i] for i in numbers], n_tokens)
        progress.advance(len(numbers), a.name)
        # A server may end a reply at once; there is nothing to lead anybody along.
        begun = [(i, trace) for i, trace in zip(numbers, of_a, strict=True) if trace.token_ids]
        tally.n_empty += len(numbers) - len(begun)
        ids, along = [chosen.ids[i] for i, _ in begun], [trace.token_ids for _, trace in begun]
        of_b = b.trace(ids, n_tokens, along=along) if begun else []
        progress.advance(len(numbers), b.name)
        for (i, first), second in zip(begun, of_b, strict=True):
            count(tally, first, second, prompt=i, a=a)


def _place(a: Witness, b: Witness, tally: Tally, chosen: Selection) -> Place | None:
    if tally.largest is None:
        return None
    value, prompt, position, token_id = tally.largest
    tokenizer = a.tokenizer or b.tokenizer
    assert tokenizer is not None  # `select` asks for one
    return Place(
        value=value,
        prompt=prompt,
        position=position,
        token_id=token_id,
        token=tokenizer.token(token_id),
        text=tokenizer.decode(chosen.ids[prompt])[-N_SHOWN:],
    )
