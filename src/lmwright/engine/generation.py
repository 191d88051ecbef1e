"""The loop that continues prompts: prefill, then one token a row until each row has ended."""

from collections.abc import Iterator, Sequence

import numpy as np

from lmwright.core.errors import LmwrightError
from lmwright.engine.backend import Backend, Rules
from lmwright.engine.request import Chunk, Completion, FinishReason, Sampling, TokenLogprob
from lmwright.engine.sampler import choose, log_probabilities, penalise, random_numbers
from lmwright.tokenizer.encode import Tokenizer

# Rows that are decoded together. More rows give more tokens a second and need more memory.
MAX_ROWS = 32


def generate(
    backend: Backend, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], sampling: Sampling
) -> Iterator[tuple[int, Chunk]]:
    """Continue prompts of token ids; yield (number of the prompt, piece) as pieces are certain."""
    rules = backend.rules
    # Prompts of like length share a batch, so that little is computed for padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), MAX_ROWS):
        numbers = order[start : start + MAX_ROWS]
        sequences = [
            _Sequence(
                i,
                prompts[i],
                before=backend.before(prompts[i]),
                tokenizer=tokenizer,
                sampling=sampling,
                rules=rules,
            )
            for i in numbers
        ]
        yield from _run_batch(backend, sequences)


def _run_batch(backend: Backend, sequences: list["_Sequence"]) -> Iterator[tuple[int, Chunk]]:
    rows, logits = backend.prefill([sequence.prompt for sequence in sequences])
    while True:
        for sequence, row in zip(sequences, logits, strict=True):
            chunk = sequence.advance(row)
            if chunk.text or chunk.logprobs or chunk.completion:
                yield sequence.number, chunk
        running = [i for i, sequence in enumerate(sequences) if not sequence.is_finished]
        if not running:
            return
        if len(running) < len(sequences):
            rows.select(running)
            sequences = [sequences[i] for i in running]
        logits = rows.decode([sequence.token_ids[-1] for sequence in sequences])


def check_finite(logits: np.ndarray) -> None:
    """Refuse logits that no sound model gives."""
    if not np.isfinite(logits).all():
        raise LmwrightError("the model's logits are not finite: its weights are damaged")


class _Sequence:
    """One prompt with what has been said so far."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        *,
        before: Sequence[int],
        tokenizer: Tokenizer,
        sampling: Sampling,
        rules: Rules,
    ) -> None:
        self.number, self.prompt = number, prompt
        self._before, self._rules = before, rules
        self.token_ids: list[int] = []
        self.is_finished = False
        self._tokenizer, self._sampling = tokenizer, sampling
        self._random = random_numbers(sampling.seed)
        self._decoder = tokenizer.stream()
        self._text = StopText(sampling.stop)
        self._logprobs: list[TokenLogprob] = []

    def advance(self, logits: np.ndarray) -> Chunk:
        """Choose the next token from logits (V,) and return the text that is certain by now."""
        check_finite(logits)
        sampling = self._sampling
        seen = (*self._before, *self.token_ids) if sampling.repetition_penalty != 1.0 else ()
        penalised = penalise(logits, seen, sampling.repetition_penalty)
        penalised = self._rules.allow(penalised, len(self.token_ids))
        token = choose(penalised, sampling, self._random)
        is_end = token in self._tokenizer.eos_ids and not sampling.ignore_eos
        if is_end:
            return self._finish("stop", self._text.push(self._decoder.finish()))
        self.token_ids.append(token)
        logprobs = () if sampling.logprobs is None else (self._logprob(penalised, token),)
        self._logprobs.extend(logprobs)
        text = self._text.push(self._decoder.push(token))
        if not self._text.is_stopped and len(self.token_ids) == sampling.max_tokens:
            text += self._text.push(self._decoder.finish())
            return self._finish("stop" if self._text.is_stopped else "length", text, logprobs)
        if self._text.is_stopped:
            return self._finish("stop", text, logprobs)
        return Chunk(text, logprobs)

    def _finish(
        self, reason: FinishReason, text: str, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> Chunk:
        self.is_finished = True
        text += self._text.finish()
        completion = Completion(
            text=self._text.told,
            token_ids=tuple(self.token_ids),
            finish_reason=reason,
            n_prompt_tokens=len(self.prompt),
            logprobs=tuple(self._logprobs),
        )
        return Chunk(text, logprobs, completion)

    def _logprob(self, logits: np.ndarray, token: int) -> TokenLogprob:
        logprobs = log_probabilities(logits)
        n_top = self._sampling.logprobs or 0
        top = np.argsort(-logprobs, kind="stable")[:n_top]
        text = self._tokenizer.token
        possible = [int(i) for i in top if logprobs[i] > -np.inf]
        alternatives = tuple((i, text(i), float(logprobs[i])) for i in possible)
        return TokenLogprob(token, text(token), float(logprobs[token]), alternatives)


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
        n_safe = len(self._held) - self._n_open()
        return self._tell(n_safe)

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
