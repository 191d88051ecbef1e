"""A model in this process as a witness: all logits, in fp32, with a cache and without."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.backend import WritingBackend
from lmwright.engine.request import Prompt
from lmwright.engine.rows import Rows
from lmwright.lm import LocalModel, modules
from lmwright.verification.witness import Drift, Encoded, Next, Trace

# Shapes: B prompts, T tokens of a continuation, V vocabulary.


class LocalWitness:
    """A model that `lmwright.lm.load_local(..., precision="fp32")` opened, of any kind.

    A decoder continues a prompt, an encoder-decoder answers it. An encoder does neither: what it
    says of each token of the prompt stands in the place of what comes next.
    """

    engine = "lmwright"

    def __init__(self, model: LocalModel, weights: str | None = None) -> None:
        """`weights` says how they are stored, if not as they are held in memory."""
        if model.info.dtype != "float32":
            raise RequestError(
                f"{model.name}: computes in {model.info.dtype}, whose rounding hides what "
                'differs; open it with precision="fp32"'
            )
        self.name = model.name
        self.weights = weights or "fp32"
        self.tokenizer = model.tokenizer
        self.context_length = model.context_length
        self.model = modules(model)
        self.n_ids = self.model.config.vocab_size
        self._local = model
        self._device = next(self.model.parameters()).device

    @property
    def _backend(self) -> WritingBackend:
        return cast(WritingBackend, self._local.backend)  # encoders are traced without it

    def encode(self, prompt: Prompt) -> Encoded:
        """Read a text or a dialogue."""
        ids = tuple(self._local.encode(prompt))
        return Encoded(len(ids), ids)

    def trace(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        *,
        along: Sequence[Sequence[int]] | None = None,
    ) -> list[Trace]:
        """Continue each prompt by its likeliest tokens, or be led along given ones.

        What is told comes from one pass over all tokens, the choices from decoding with a cache.
        """
        if self._local.kind == "encoder":
            return [self._read(prompt) for prompt in prompts]
        if along is not None:
            n_tokens = max(map(len, along))
        cached, taken = self._decode(prompts, n_tokens, along)
        traces = []
        for i, prompt in enumerate(prompts):
            tokens = tuple(along[i]) if along is not None else self._until_end(taken[i])
            full = self._logits(prompt, tokens)  # (T, V)
            mine = cached[: len(tokens), i]  # (T, V)
            traces.append(
                Trace(
                    token_ids=tokens,
                    choices=tuple(int(token) for token in mine.argmax(axis=1)),
                    nexts=tuple(map(Next.complete, full)),
                    drift=_drift(mine, full),
                )
            )
        return traces

    def _decode(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        along: Sequence[Sequence[int]] | None,
    ) -> tuple[np.ndarray, list[list[int]]]:
        """Return the logits (T, B, V) of decoding all prompts together, and the tokens taken."""
        rows = Rows(self._backend, prompts, max_rows=len(prompts))
        logits = rows.logits
        told, taken = [logits], [[] for _ in prompts]
        for step in range(n_tokens):
            for i, best in enumerate(logits.argmax(axis=1)):
                # A row that has ended goes on with any token: nobody looks at it any more.
                ahead = None if along is None else along[i][step : step + 1]
                taken[i].append(int(best) if ahead is None else ahead[0] if ahead else 0)
            if step + 1 < n_tokens:
                logits = rows.decode([tokens[-1] for tokens in taken])
                told.append(logits)
        return np.stack(told), taken

    def _until_end(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Cut behind the first token that ends a reply."""
        ends = [i for i, token in enumerate(tokens) if token in self.tokenizer.eos_ids]
        return tuple(tokens[: ends[0] + 1] if ends else tokens)

    def _logits(self, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Return the logits (T, V) before each token, of one pass over all."""
        prefix = list(self._backend.decoder_prefix(prompt))
        told = [*prefix, *tokens[:-1]]
        # An encoder-decoder reads the prompt, and only the answer stands in its decoder.
        inputs = (told,) if self._local.kind == "decoder" else (prompt, told)
        return self._pass(*inputs)[len(prefix) - 1 :]

    def _read(self, prompt: Sequence[int]) -> Trace:
        """Return what an encoder says of each token, or once of the whole prompt."""
        said = self._pass(prompt)  # (T, V), or (1, K)
        choices = tuple(int(choice) for choice in said.argmax(axis=1))
        return Trace(tuple(prompt[: len(said)]), choices, tuple(map(Next.complete, said)))

    def _pass(self, *inputs: Sequence[int]) -> np.ndarray:
        """Return what the modules say of one row, (T, V) or (1, K)."""
        import torch

        with torch.inference_mode():
            tensors = [torch.tensor([ids], device=self._device) for ids in inputs]
            said = self.model(*tensors)
        return said.float().reshape(-1, said.shape[-1]).cpu().numpy()


def weights_of(path: Path) -> str:
    """Say how most of the weights in a folder or a .gguf file are stored."""
    sizes: Counter[str] = Counter()
    if path.suffix == ".gguf":
        from lmwright.formats.gguf import open_gguf

        for tensor in open_gguf(path).tensors.values():
            sizes[tensor.type_name] += math.prod(tensor.shape)
    else:
        from lmwright.formats.packed import read_schemes
        from lmwright.formats.safetensors_folder import read_weights
        from lmwright.model.checkpoint import read_config

        quantization = read_config(path).get("quantization_config")
        if quantization is not None:
            bits = min(scheme.bits for scheme in read_schemes(quantization).values())
            return f"int{bits}"
        for entry in read_weights(path).entries.values():
            sizes[entry.dtype] += math.prod(entry.shape)
    [(name, _)] = sizes.most_common(1)
    return PLAIN.get(name, name)


# One name for what safetensors and GGUF both have; GGUF's other types keep theirs (Q4_0).
PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


def _drift(mine: np.ndarray, full: np.ndarray) -> Drift:
    """Return how far apart logits (T, V) of two computations of one model are."""
    largest, scale = (float(np.abs(values).max()) for values in (mine - full, full))
    return Drift(np.inf if np.isnan(largest) else largest, 0.0 if np.isnan(scale) else scale)
