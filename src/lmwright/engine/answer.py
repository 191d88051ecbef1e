"""One answer while it is written: its tokens, its text, and when it ends."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from lmwright.core.errors import LmwrightError
from lmwright.engine.backend import LogitConstraints
from lmwright.engine.request import Chunk, Completion, Sampling, TokenLogprob
from lmwright.engine.sampler import choose, log_probabilities, penalise, random_numbers
from lmwright.tokenizer.encode import Tokenizer


def check_finite(logits: np.ndarray) -> None:
    """Refuse logits that no sound model gives."""
    if not np.isfinite(logits).all():
        raise LmwrightError("the model's logits are not finite: its weights are damaged")


class RunningAnswer:
    """One answer to a prompt, with what has been said so far."""

    def __init__(
        self,
        number: int,
        n_prompt_tokens: int,
        *,
        prefix: Sequence[int],
        tokenizer: Tokenizer,
        sampling: Sampling,
        constraints: LogitConstraints,
    ) -> None:
        """`prefix` stands before the answer in its row: see `Backend.decoder_prefix`."""
        self.number, self.sampling = number, sampling
        self.token_ids: list[int] = []
        self.is_finished = False
        self._n_prompt_tokens = n_prompt_tokens
        self._prefix, self._constraints = prefix, constraints
        self._tokenizer = tokenizer
        self._random = random_numbers(sampling.seed)
        self._decoder = tokenizer.stream()
        self._text = StopText(sampling.stop)
        self._logprobs: list[TokenLogprob] = []

    def advance(self, logits: np.ndarray) -> Chunk:
        """Choose the next token from logits (V,) and return the text that is certain by now."""
        check_finite(logits)
        sampling = self.sampling
        seen = chain(self._prefix, self.token_ids)
        penalised = penalise(logits, seen, sampling.repetition_penalty)
        penalised = self._constraints.allow(penalised, len(self.token_ids))
        token = choose(penalised, sampling, self._random)
        text, logprobs = "", ()
        is_end = token in self._tokenizer.eos_ids and not sampling.ignore_eos
        if not is_end:
            self.token_ids.append(token)
            text = self._text.push(self._decoder.push(token))
            if sampling.logprobs is not None:
                logprobs = (self._logprob(penalised, token),)
                self._logprobs.extend(logprobs)
        is_full = len(self.token_ids) == sampling.max_tokens
        if not (is_end or is_full or self._text.is_stopped):
            return Chunk(text, logprobs)
        self.is_finished = True
        text += self._text.push(self._decoder.finish()) + self._text.finish()
        completion = Completion(
            text=self._text.told,
            token_ids=tuple(self.token_ids),
            finish_reason="stop" if is_end or self._text.is_stopped else "length",
            n_prompt_tokens=self._n_prompt_tokens,
            logprobs=tuple(self._logprobs),
        )
        return Chunk(text, logprobs, completion)

    def _logprob(self, logits: np.ndarray, token: int) -> TokenLogprob:
        logprobs, text = log_probabilities(logits), self._tokenizer.token
        top = np.argsort(-logprobs, kind="stable")[: self.sampling.logprobs].tolist()
        possible = tuple((i, text(i), float(logprobs[i])) for i in top if logprobs[i] > -np.inf)
        return TokenLogprob(token, text(token), float(logprobs[token]), possible)


class StopText:
    """Text that ends before the first stop string; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.told = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Take more text and return what cannot be part of a stop string any more."""
        if self.is_stopped:
            return ""
        self._held += text
        # The one that is complete first, so that it does not matter how the text was cut in pieces.
        found = [(i + len(s), i) for s in self._stops if (i := self._held.find(s)) >= 0]
        if found:
            self.is_stopped = True
            self._held = self._held[: min(found)[1]]
            return self.finish()
        return self._tell(len(self._held) - self._n_open())

    def finish(self) -> str:
        """Return what was held back."""
        return self._tell(len(self._held))

    def _tell(self, n_characters: int) -> str:
        text, self._held = self._held[:n_characters], self._held[n_characters:]
        self.told += text
        return text

    def _n_open(self) -> int:
        """Count the characters at the end that a stop string could begin with."""
        for n in range(min(len(self._held), max(map(len, self._stops), default=0)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stops):
                return n
        return 0
