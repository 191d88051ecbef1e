"""llama.cpp on other machines: what it tells, moved by what it differs from itself."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmwright.verification.remote import LlamaSubject, ToldToken
from lmwright.verification.subject import NextToken

# The largest difference of log-probabilities of the starter, decoded and read as a prompt, by the
# format of the file (benchmarks/agreement.py).
LARGEST = {"F16": 0.03, "BF16": 0.21, "Q8_0": 0.67, "Q4_0": 0.67}
MACHINES = (1, 2, 3)


class NoisyLlama(LlamaSubject):
    """Chooses by one set of moved numbers, and tells another one where it is asked again."""

    def __init__(self, *args: Any, machine: int, largest: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.machine, self.largest = machine, largest
        self.n_asked_again = 0

    def _continue(self, ids: Sequence[int], n_tokens: int) -> list[ToldToken]:
        row, made = list(ids), []
        while len(made) < n_tokens:
            for step in super()._continue(row, n_tokens - len(made)):
                assert step.next is not None
                chosen_by = told = self._moved(step.next, row, "decoded")
                if step.next.is_asked_again:
                    told = self._moved(step.next, row, "read")
                    self.n_asked_again += 1
                choice = int(chosen_by.ids[chosen_by.logprobs.argmax()])
                made.append(ToldToken(choice, told))
                row.append(choice)
                if choice != step.token_id:
                    break
            if made[-1].token_id in self.tokenizer.eos_ids:
                break
        return made

    def _moved(self, said: NextToken, row: Sequence[int], way: str) -> NextToken:
        """Move each number by up to half of the largest difference, a quarter of that on average.

        Which is what was measured: 0.09 nats on average in a file of Q8_0.
        """
        seed = zlib.crc32(f"{self.machine} {way} {row}".encode())
        by = self.largest / 2 * np.random.default_rng(seed).uniform(-1, 1, len(said.ids)) ** 3
        # Probabilities, still: what is not told stays as likely.
        p = np.exp(said.logprobs)
        by -= np.log((p * np.exp(by)).sum() + max(1 - p.sum(), 0.0))
        return replace(said, logprobs=said.logprobs + by)
