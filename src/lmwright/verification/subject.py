"""What can be verified: a model, wherever it runs, that says which token comes next.

A subject is given token ids and tells which token it would choose and how likely the tokens are
that may come next: all of them where the model runs here, the likeliest ones elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.backend import WritingBackend
from lmwright.engine.request import Prompt
from lmwright.engine.rows import Rows
from lmwright.lm import LocalModel, load_local, modules
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification.stored import StoredWeights, stored_weights

# Shapes: B prompts, T tokens of a continuation, V vocabulary.

# Token ids of B prompts, or of their continuations.
IdRows = Sequence[Sequence[int]]
# How many log-probabilities a step are asked of a subject that does not tell them all.
N_TOP = 20
# In place of a token's id: the reply ended here, by a token that is not told.
END = -2


@dataclass(frozen=True)
class NextToken:
    """What a model says about the token that comes next."""

    ids: np.ndarray  # (K,) int64, distinct
    logprobs: np.ndarray  # (K,) float64, natural
    # Whether these are all tokens of the vocabulary, in order.
    is_complete: bool
    # No token that is not told is likelier than this; None: not known.
    floor: float | None
    # (K,) float32, where the subject tells them.
    logits: np.ndarray | None = None
    # Whether the choice was made by another computation than this, which rounds in its own way.
    is_asked_again: bool = False

    @classmethod
    def complete(cls, logits: np.ndarray) -> "NextToken":
        """Make it from the logits (V,) of a whole vocabulary."""
        wide = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # an infinite logit leaves no probabilities
            wide -= wide.max()
            logprobs = wide - np.log(np.exp(wide).sum())
        ids = np.arange(len(logits))
        return cls(ids, logprobs, is_complete=True, floor=-np.inf, logits=logits)

    @classmethod
    def likeliest(
        cls,
        told: Sequence[tuple[int, float]],
        *,
        is_gapless: bool = True,
        is_asked_again: bool = False,
    ) -> "NextToken":
        """Make it from some (token id, log-probability); gapless: the likeliest of all."""
        columns = zip(*told, strict=True)
        ids, logprobs = (np.array(c, dtype=t) for c, t in zip(columns, (int, float), strict=True))
        floor = float(logprobs.min()) if is_gapless else None
        return cls(ids, logprobs, False, floor, is_asked_again=is_asked_again)

    def logprob(self, token_id: int) -> float | None:
        """Return what is said of one token (at most this, if it is not told), or None."""
        rows = np.flatnonzero(self.ids == token_id)
        return float(self.logprobs[rows[0]]) if len(rows) else self.floor


@dataclass(frozen=True)
class Drift:
    """How far a model's logits move when it decodes with a cache, from one pass over all tokens."""

    largest: float
    # The largest logit without its sign: rounding grows with it.
    scale: float


@dataclass(frozen=True)
class Trace:
    """One prompt with a continuation, and what the subject said before each token of it."""

    # The subject's own continuation (its likeliest tokens), or the teacher-forced one.
    token_ids: tuple[int, ...]
    # What it would have chosen in place of each of them; None where it does not say.
    choices: tuple[int | None, ...]
    nexts: tuple[NextToken | None, ...]
    drift: Drift | None = None


@dataclass(frozen=True)
class PromptTokens:
    """How a subject reads a prompt: the ids, or only how many tokens it counts."""

    n_tokens: int
    ids: tuple[int, ...] | None = None
    # What its chat template says of a dialogue that it does not take.
    refusal: str = ""
    # Whether the program is known to follow simpler rules for such a text than the model's own.
    is_simplified: bool = False


class Subject(Protocol):
    """A model that answers, wherever it runs; None stands for what it does not say."""

    # What the user calls it, and what computes: "lmwright", "llama.cpp" or "server".
    name: str
    engine: str
    # How its weights are stored: "fp32", "bf16", "int4", "Q8_0"; and whether in a GGUF file, whose
    # tokenizer says less than a folder's.
    weights: str | None
    is_gguf: bool
    # The tokens that a prompt and its continuation may have, and the token ids there are, from 0.
    context_length: int | None
    n_ids: int | None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of its files; None where there are none here."""
        ...

    @property
    def here(self) -> "LocalSubject | None":
        """The same files opened in lmwright, which shows their weights, or None."""
        ...

    def encode(self, prompt: Prompt) -> PromptTokens | None:
        """Read a text or a dialogue; None: it does not say. A dialogue that it refuses raises."""
        ...

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or teacher-forced by given ones."""
        ...


class LocalSubject:
    """A model that `open_path` opened, of any kind: all logits, in fp32, with a cache and without.

    A decoder continues a prompt, an encoder-decoder answers it. An encoder does neither: what it
    says of each token of the prompt stands in the place of what comes next.
    """

    engine: str = "lmwright"

    def __init__(self, model: LocalModel, stored: StoredWeights | None = None) -> None:
        """`stored` says how its weights are stored, if not as they are held in memory."""
        if model.info.dtype != "float32":
            raise RequestError(
                f"{model.name}: computes in {model.info.dtype}, whose rounding hides what "
                'differs; open it with precision="fp32"'
            )
        self.name = model.name
        self.stored = stored or StoredWeights()
        self.weights: str | None = self.stored.most
        self.is_gguf = self.stored.is_gguf
        self.tokenizer = model.tokenizer
        self.context_length: int | None = model.context_length
        self.model = modules(model)
        self.n_ids: int | None = self.model.config.vocab_size
        self._local = model

    @property
    def here(self) -> "LocalSubject":
        """This one."""
        return self

    def encode(self, prompt: Prompt) -> PromptTokens:
        """Read a text or a dialogue."""
        ids = tuple(self._local.encode(prompt))
        return PromptTokens(len(ids), ids)

    def trace(self, prompts: IdRows, n_tokens: int, forced: IdRows | None = None) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or teacher-forced by given ones.

        What is told comes from one pass over all tokens, the choices from decoding with a cache.
        """
        if self._local.kind == "encoder":
            return [self._read(prompt) for prompt in prompts]
        if forced is not None:
            n_tokens = max(map(len, forced))
        cached, taken = self._decode(prompts, n_tokens, forced)
        traces = []
        for i, prompt in enumerate(prompts):
            tokens = tuple(forced[i]) if forced is not None else self._until_end(taken[i])
            full = self._logits(prompt, tokens)  # (T, V)
            mine = cached[: len(tokens), i]  # (T, V)
            traces.append(
                Trace(
                    token_ids=tokens,
                    choices=tuple(map(int, mine.argmax(axis=1))),
                    nexts=tuple(map(NextToken.complete, full)),
                    drift=_drift(mine, full),
                )
            )
        return traces

    def _decode(
        self, prompts: IdRows, n_tokens: int, forced: IdRows | None
    ) -> tuple[np.ndarray, list[list[int]]]:
        """Return the logits (T, B, V) of decoding all prompts together, and the tokens taken."""
        rows = Rows(self._backend, prompts, max_rows=len(prompts))
        logits = rows.logits
        told, taken = [logits], [[] for _ in prompts]
        for step in range(n_tokens):
            for i, best in enumerate(logits.argmax(axis=1)):
                # A row that has ended goes on with any token: nobody looks at it any more.
                ahead = None if forced is None else forced[i][step : step + 1]
                taken[i].append(int(best) if ahead is None else ahead[0] if ahead else 0)
            if step + 1 < n_tokens:
                logits = rows.decode([tokens[-1] for tokens in taken])
                told.append(logits)
        return np.stack(told), taken

    @property
    def _backend(self) -> WritingBackend:
        return cast(WritingBackend, self._local.backend)  # encoders are traced without it

    def _until_end(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Cut behind the first token that ends a reply."""
        ends = [i for i, token in enumerate(tokens) if token in self.tokenizer.eos_ids]
        return tuple(tokens[: ends[0] + 1] if ends else tokens)

    def _logits(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Return the logits (T, V) before each token, of one pass over all."""
        prefix = list(self._backend.decoder_prefix(prompt))
        row = [*prefix, *tokens[:-1]]
        # An encoder-decoder reads the prompt, and only the answer stands in its decoder.
        inputs = [row] if self._local.kind == "decoder" else [prompt, row]
        return self._pass(*inputs)[len(prefix) - 1 :]

    def _read(self, prompt: Sequence[int]) -> Trace:
        """Return what an encoder says of each token, or once of the whole prompt."""
        said = self._pass(prompt)  # (T, V), or (1, K)
        choices = tuple(map(int, said.argmax(axis=1)))
        return Trace(tuple(prompt[: len(said)]), choices, tuple(map(NextToken.complete, said)))

    def _pass(self, *inputs: Sequence[int]) -> np.ndarray:
        """Return what the modules say of one row, (T, V) or (1, K)."""
        import torch

        device = next(self.model.parameters()).device
        with torch.inference_mode():
            said = self.model(*(torch.tensor([ids], device=device) for ids in inputs))
        return said.float().reshape(-1, said.shape[-1]).cpu().numpy()


def open_path(path: Path, *, name: str | None = None) -> LocalSubject:
    """Open a folder or a .gguf file in lmwright, in fp32."""
    model = load_local(path, precision="fp32", name=name or str(path))
    return LocalSubject(model, stored_weights(path))


def _drift(mine: np.ndarray, full: np.ndarray) -> Drift:
    """Return how far apart logits (T, V) of two computations of one model are."""
    largest, scale = (float(np.abs(values).max()) for values in (mine - full, full))
    return Drift(np.inf if np.isnan(largest) else largest, 0.0 if np.isnan(scale) else scale)
