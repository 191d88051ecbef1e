"""Two models, the same token ids: do they choose the same tokens, with the same probabilities?"""

import time
from collections.abc import Iterator, Sequence

from lmwright.core.progress import Bar, bar
from lmwright.engine.request import Prompt
from lmwright.verification.compare import Tally, count
from lmwright.verification.inputs import ChosenPrompts, choose, compare_texts
from lmwright.verification.result import Check, Place, VerificationResult, limited
from lmwright.verification.subject import N_TOP, Subject
from lmwright.verification.tolerances import (
    ASSUMED,
    EXACT,
    Tolerance,
    is_coarser,
    own_noise,
    tolerance_for,
)
from lmwright.verification.vocabularies import compare_templates, compare_vocabularies
from lmwright.verification.weights import compare_weights

N_TOKENS = 16
# Prompts that are continued together; their logits are held at the same time.
BATCH = 8
# Characters of a prompt, and differences of many, that are shown.
N_SHOWN_CHARACTERS = 30
N_SHOWN = 3


def verify(
    a: Subject,
    b: Subject,
    *,
    prompts: Sequence[Prompt] | None = None,
    n_prompts: int | None = None,
    n_tokens: int = N_TOKENS,
    tolerance: Tolerance | None = None,
) -> VerificationResult:
    """Compare a model with what claims to be a copy of it.

    `prompts` None are the built-in ones, of which `n_prompts` takes only the first that fit.

    Both are teacher-forced along A's likeliest tokens: one near-tie early does not hide the rest.
    """
    started = time.perf_counter()
    weights = compare_weights(a, b)
    has_same_weights = None if weights is None else weights.are_same
    tolerance = tolerance or tolerance_for(a, b, has_same_weights=has_same_weights)
    chosen = choose(a, b, prompts, n_tokens=n_tokens, n_prompts=n_prompts)
    checks, not_compared = token_checks(a, b, chosen.prompts)
    not_compared = [*chosen.left_out, *not_compared]
    if weights is None:
        not_compared.append(f"the weights themselves: {_elsewhere(a, b)} does not show them")
    else:
        checks += weights.checks(tolerance)
    largest_id = max(map(max, chosen.ids))
    if b.n_ids is not None and largest_id >= b.n_ids:
        found = f"{b.name} has {b.n_ids:,} tokens; a prompt of {a.name} has token {largest_id}"
        checks.append(Check("tokens known to both", False, found))
        not_compared.append("what the two say: one does not know the other's tokens")
        tally = Tally()
    else:
        with bar("verify", total=2 * len(chosen.ids)) as progress:
            tally = _compared(a, b, chosen, n_tokens, progress)
        checks += behaviour_checks(a, b, tally, tolerance)
        not_compared += untold(a, b, tally)
    numbers = tally.numbers()
    if weights is not None and weights.shapes is None:
        numbers["weight_error"] = weights.error
    return VerificationResult(
        a=a.name,
        b=b.name,
        tolerance=tolerance.name,
        checks=tuple(checks),
        not_compared=tuple(not_compared),
        largest=_place(a, b, tally, chosen),
        numbers=numbers,
        n_prompts=len(chosen.ids),
        n_positions=tally.n_positions,
        seconds=time.perf_counter() - started,
    )


def token_checks(
    a: Subject, b: Subject, prompts: Sequence[Prompt]
) -> tuple[list[Check], list[str]]:
    """Judge whether both encode the same texts alike and end replies alike; say what is unknown."""
    n_same, differences, not_compared = compare_texts(a, b, prompts)
    checks = []
    if n_same or differences:
        found = f"{n_same} texts and dialogues are the same tokens"
        checks.append(Check("tokens of texts", not differences, _told(differences, found)))
    if a.tokenizer is not None and b.tokenizer is not None:
        differences = compare_vocabularies(a, b)
        found = f"the same {a.tokenizer.vocab_size:,} tokens, the same merges and ends of a reply"
        checks.append(Check("vocabulary", not differences, _told(differences, found)))
        difference = compare_templates(a.tokenizer, b.tokenizer)
        if a.tokenizer.chat_template is not None or difference is not None:
            checks.append(Check("chat template", difference is None, difference or "the same"))
    else:
        not_compared.append("the vocabularies, chat templates, and which tokens end a reply")
    return checks, not_compared


def behaviour_checks(a: Subject, b: Subject, tally: Tally, tolerance: Tolerance) -> list[Check]:
    """Judge what the two chose and said by a tolerance."""
    numbers = tally.numbers()
    if not numbers:
        return [Check("log-probabilities", False, "there was nothing that both told")]
    what = "log-probabilities" if tally.scale is None else "logits"
    checks = [
        # Whether each model says the same when it decodes with a cache, token by token.
        *(
            limited(f"cached decoding of {s.name}", d.largest, EXACT.largest_allowed(d.scale))
            for s, d in zip((a, b), tally.drifts, strict=True)
            if d is not None
        ),
        _choices(tally),
        limited(
            f"largest difference of {what}",
            numbers["largest_difference"],
            tolerance.largest_allowed(tally.scale or 0.0),
        ),
        limited(
            f"relative error of {what}",
            numbers["relative_error"],
            tolerance.relative_error,
            is_share=True,
        ),
        limited("mean divergence, nats a token", numbers["mean_kl"], tolerance.mean_kl),
        _agreement(tally, tolerance),
    ]
    if is_coarser(a, b) and any(check.is_passed is False for check in checks):
        advice = (
            f"{a.name} ({a.weights}) has fewer bits than {b.name} ({b.weights}): if the first was "
            "made from the second, name the original first"
        )
        checks.append(Check("order", None, advice))
    return checks


def untold(a: Subject, b: Subject, tally: Tally) -> Iterator[str]:
    """Say in words what could not be compared."""
    for subject in (a, b):
        if subject.engine == "server" and subject.weights is None:
            yield (
                f"how {subject.name} stores its weights: taken for {ASSUMED}; if you know better, "
                "name it (--server-weights)"
            )
    if tally.n_untold:
        total = tally.n_positions + tally.n_untold
        yield f"{tally.n_untold} of {total} next tokens: one of the two does not tell about them"
    if tally.n_empty:
        yield f"{tally.n_empty} prompts: {a.name} says nothing after them"
    if tally.largest is not None and tally.scale is None:
        yield f"all but the {N_TOP} likeliest tokens: {_elsewhere(a, b)} tells no more"


def _compared(a: Subject, b: Subject, chosen: ChosenPrompts, n_tokens: int, progress: Bar) -> Tally:
    tally = Tally()
    noises = own_noise(a), own_noise(b)
    # Prompts of like length together, so that little is computed for padding.
    order = sorted(range(len(chosen.ids)), key=lambda i: len(chosen.ids[i]))
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        of_a = a.trace([chosen.ids[i] for i in numbers], n_tokens)
        progress.advance(len(numbers), a.name)
        # A server may end a reply at once; then there is nothing to force anybody along.
        begun = [(i, trace) for i, trace in zip(numbers, of_a, strict=True) if trace.token_ids]
        tally.n_empty += len(numbers) - len(begun)
        ids, forced = [chosen.ids[i] for i, _ in begun], [trace.token_ids for _, trace in begun]
        of_b = b.trace(ids, n_tokens, forced=forced) if begun else []
        progress.advance(len(numbers), b.name)
        for (i, first), second in zip(begun, of_b, strict=True):
            count(tally, first, second, prompt=i, a=a, noises=noises)
    return tally


def _place(a: Subject, b: Subject, tally: Tally, chosen: ChosenPrompts) -> Place | None:
    if tally.largest is None:
        return None
    value, prompt, position, token_id = tally.largest
    tokenizer = a.tokenizer or b.tokenizer
    assert tokenizer is not None  # `choose` asks for one
    text = tokenizer.decode(chosen.ids[prompt])[-N_SHOWN_CHARACTERS:]
    return Place(value, prompt, position, token_id, token=tokenizer.token(token_id), text=text)


def _choices(tally: Tally) -> Check:
    found = f"{tally.n_same_prompts} of {tally.n_prompts} continuations are the same"
    if tally.n_same < tally.n_chosen:
        found += f"; by A, other choices cost up to {tally.worst_loss:.2g} nats"
    if tally.n_unfaithful:
        found += (
            f"; {tally.n_unfaithful} choices are not the likeliest by the chooser's own account, "
            f"but up to {tally.worst_unfaithful:.2g} nats less likely"
        )
    return Check("greedy tokens", not tally.n_unfaithful, found, "each the likeliest by its model")


def _agreement(tally: Tally, tolerance: Tolerance) -> Check:
    found = f"{100 * tally.agreement:.1f} % of {tally.n_chosen} tokens"
    if tolerance.agreement is None:
        return Check("the same choice", None, found)
    is_enough = tally.agreement >= tolerance.agreement
    return Check("the same choice", is_enough, found, f"at least {100 * tolerance.agreement:g} %")


def _elsewhere(a: Subject, b: Subject) -> str:
    return " and ".join(s.name for s in (a, b) if s.engine != "lmwright")


def _told(differences: Sequence[str], same: str) -> str:
    if not differences:
        return same
    more = f" (and {len(differences) - N_SHOWN} more)" if len(differences) > N_SHOWN else ""
    return "; ".join(differences[:N_SHOWN]) + more
