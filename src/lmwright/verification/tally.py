"""What was found while two models were led along the same tokens, summed prompt by prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lmwright.verification.bounds import EXACT
from lmwright.verification.distributions import Gap, compare
from lmwright.verification.witness import END, Drift, Next, Trace, Witness


@dataclass
class Tally:
    """What was found so far."""

    # Next tokens that were compared, those that one of the two did not tell, and prompts whose
    # answer ended at once.
    n_positions: int = 0
    n_untold: int = 0
    n_empty: int = 0
    # Choices that were told by both, and those that were the same; prompts that were the same.
    n_chosen: int = 0
    n_same: int = 0
    n_prompts: int = 0
    n_same_prompts: int = 0
    # Sums over the next tokens; see `Gap`.
    kl: float = 0.0
    squares: float = 0.0
    squared_errors: float = 0.0
    # The largest logit, if logits were compared.
    scale: float | None = None
    # Value, prompt, position, token id.
    largest: tuple[float, int, int, int] | None = None
    # How far each of the two drifts from itself, at most.
    drifts: list[Drift | None] = field(default_factory=lambda: [None, None])
    # Choices that are not the likeliest by the chooser's own account, and by how many nats at most.
    n_unfaithful: int = 0
    worst_unfaithful: float = 0.0
    # The most that another choice of B costs by A's judgement, in nats.
    worst_loss: float = 0.0

    def add(self, gap: Gap, *, prompt: int, position: int) -> None:
        """Count one next token."""
        self.n_positions += 1
        self.kl += gap.kl
        self.squares += gap.squares
        self.squared_errors += gap.squared_errors
        if gap.scale is not None:
            self.scale = max(self.scale or 0.0, gap.scale)
        if self.largest is None or gap.largest > self.largest[0]:
            self.largest = (gap.largest, prompt, position, gap.token_id)

    @property
    def relative_error(self) -> float:
        """The root of squared errors over squares, of logits less their mean."""
        if not self.squares:
            return float(self.squared_errors > 0)
        return math.sqrt(self.squared_errors / self.squares)

    @property
    def agreement(self) -> float:
        """The share of places at which both chose the same token."""
        return self.n_same / self.n_chosen if self.n_chosen else 0.0

    def numbers(self) -> dict[str, float]:
        """Return the figures that bounds are about; none if nothing was compared."""
        if self.largest is None:
            return {}
        return {
            "largest_difference": self.largest[0],
            "relative_error": self.relative_error,
            "mean_kl": self.kl / self.n_positions,
            "agreement": self.agreement,
            "n_same_prompts": self.n_same_prompts,
        }


def count(tally: Tally, first: Trace, second: Trace, *, prompt: int, a: Witness) -> None:
    """Add what A and B said along A's tokens behind one prompt."""
    is_same = True
    ends = () if a.tokenizer is None else a.tokenizer.eos_ids
    for position, mine in enumerate(first.choices):
        said_a, said_b = first.nexts[position], second.nexts[position]
        if said_a is None or said_b is None:
            tally.n_untold += 1
        else:
            tally.add(compare(said_a, said_b), prompt=prompt, position=position)
        other = second.choices[position]
        for said, choice in ((said_a, mine), (said_b, other)):
            _count_faith(tally, said, choice)
        if mine is None or other is None:
            continue
        if other == END and mine in ends:
            other = mine
        tally.n_chosen += 1
        tally.n_same += mine == other
        is_same = is_same and mine == other
        if mine != other and said_a is not None:
            tally.worst_loss = max(tally.worst_loss, _lost(said_a, other, ends))
    tally.n_prompts += 1
    tally.n_same_prompts += is_same
    for i, new in enumerate((first.drift, second.drift)):
        if new is not None:
            old = tally.drifts[i] or new
            tally.drifts[i] = Drift(max(old.largest, new.largest), max(old.scale, new.scale))


def _count_faith(tally: Tally, said: Next | None, choice: int | None) -> None:
    """Count a choice that is not the likeliest token by the same witness's own account.

    If all are, then B chooses otherwise than A only between tokens that A holds to be closer than
    the two opinions are apart there, twice over.
    """
    if said is None or choice is None or choice == END:
        return
    lost = _lost(said, choice, ())
    scale = 0.0 if said.logits is None else float(np.abs(said.logits).max())
    slack = EXACT.largest_allowed(scale)
    assert slack is not None
    if lost > 2 * slack:
        tally.n_unfaithful += 1
        tally.worst_unfaithful = max(tally.worst_unfaithful, lost)


def _lost(said: Next, choice: int, ends: Sequence[int]) -> float:
    """Return how much less likely a choice is than the likeliest token, by one opinion.

    An END is the likeliest of the tokens that end a reply; what is not told costs nothing.
    """
    told = [said.logprob(i) for i in (ends if choice == END else (choice,))]
    known = [value for value in told if value is not None]
    return max(0.0, float(said.logprobs.max()) - max(known)) if known else 0.0
