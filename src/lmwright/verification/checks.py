"""From what was found to checks that passed or failed."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmwright.verification.bounds import EXACT, Bound, is_coarser
from lmwright.verification.prompts import Selection
from lmwright.verification.tally import Tally
from lmwright.verification.tokens import compare_texts, compare_vocabularies
from lmwright.verification.verdict import Check
from lmwright.verification.witness import N_TOP, Witness

# Differences that are shown of many.
N_SHOWN = 3


@dataclass(frozen=True)
class TokenChecks:
    """What the tokenizers say."""

    checks: tuple[Check, ...]
    not_compared: tuple[str, ...]


def token_checks(a: Witness, b: Witness, chosen: Selection) -> TokenChecks:
    """Judge whether both cut the same texts into the same tokens, and end replies alike."""
    texts = compare_texts(a, b, chosen.prompts)
    checks, not_compared = [], list(texts.not_compared)
    if texts.n_same or texts.differences:
        found = f"{texts.n_same} texts and dialogues are the same tokens"
        checks.append(
            Check("tokens of texts", not texts.differences, _told(texts.differences, found))
        )
    if a.tokenizer is not None and b.tokenizer is not None:
        differences = compare_vocabularies(a.tokenizer, b.tokenizer)
        found = f"the same {a.tokenizer.vocab_size:,} tokens, the same end of a reply"
        checks.append(Check("vocabulary", not differences, _told(differences, found)))
    else:
        not_compared.append("the vocabularies, and which tokens end a reply")
    return TokenChecks(tuple(checks), tuple(not_compared))


def behaviour_checks(a: Witness, b: Witness, tally: Tally, bound: Bound) -> list[Check]:
    """Judge what the two chose and said by a bound."""
    if tally.largest is None:
        return [Check("log-probabilities", False, "there was nothing that both told")]
    what = "log-probabilities" if tally.scale is None else "logits"
    value, error = tally.largest[0], tally.relative_error
    kl = tally.kl / tally.n_positions
    allowed = bound.largest_allowed(tally.scale or 0.0)
    checks = [
        *_drifts(a, b, tally),
        _choices(tally),
        _limited(f"largest difference of {what}", value, allowed),
        _limited(f"relative error of {what}", 100 * error, _percent(bound.relative_error), " %"),
        _limited("mean divergence, nats a token", kl, bound.mean_kl),
        _agreement(tally, bound),
    ]
    if is_coarser(a, b) and any(check.is_passed is False for check in checks):
        advice = (
            f"{a.name} ({a.weights}) has fewer bits than {b.name} ({b.weights}): if the first was "
            "made from the second, name the original first"
        )
        checks.append(Check("order", None, advice))
    return checks


def untold(a: Witness, b: Witness, tally: Tally) -> Iterator[str]:
    """Say in words what could not be compared."""
    if tally.n_untold:
        total = tally.n_positions + tally.n_untold
        yield f"{tally.n_untold} of {total} next tokens: one of the two does not tell about them"
    if tally.n_empty:
        yield f"{tally.n_empty} prompts: {a.name} says nothing after them"
    if tally.largest is not None and tally.scale is None:
        names = " and ".join(w.name for w in (a, b) if w.engine != "lmwright")
        yield f"all but the {N_TOP} likeliest tokens: {names} tells no more"


def _drifts(a: Witness, b: Witness, tally: Tally) -> Iterator[Check]:
    """Judge whether each model says the same when it decodes with a cache, token by token."""
    for witness, drift in zip((a, b), tally.drifts, strict=True):
        if drift is not None:
            allowed = EXACT.largest_allowed(drift.scale)
            yield _limited(f"cached decoding of {witness.name}", drift.largest, allowed)


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


def _agreement(tally: Tally, bound: Bound) -> Check:
    found = f"{100 * tally.agreement:.1f} % of {tally.n_chosen} tokens"
    if bound.agreement is None:
        return Check("the same choice", None, found)
    is_enough = tally.agreement >= bound.agreement
    return Check("the same choice", is_enough, found, f"at least {100 * bound.agreement:g} %")


def _limited(name: str, value: float, allowed: float | None, unit: str = "") -> Check:
    found = f"{value:.3g}{unit}"
    if allowed is None:
        return Check(name, None, found)
    limit = "any number" if allowed == sys.float_info.max else f"{allowed:.3g}{unit}"
    return Check(name, value <= allowed, found, limit)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _told(differences: Sequence[str], same: str) -> str:
    if not differences:
        return same
    more = f" (and {len(differences) - N_SHOWN} more)" if len(differences) > N_SHOWN else ""
    return "; ".join(differences[:N_SHOWN]) + more
