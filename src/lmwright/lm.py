"""A model with its tokenizer behind a few methods, wherever it runs. NumPy at the border."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from lmwright.core.errors import RequestError
from lmwright.engine.forest import Scored, plant
from lmwright.engine.generation import generate
from lmwright.engine.request import (
    Chunk,
    Completion,
    Message,
    Prompt,
    Sampling,
    Score,
    ScoreRequest,
)
from lmwright.tokenizer.encode import Tokenizer

if TYPE_CHECKING:
    from lmwright.core.device import Precision
    from lmwright.model.transformer import DecoderLM

# Tokens scored together in one row: enough to keep the matrix products busy on a CPU.
SCORE_NODES = 768


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, before anything is measured."""

    architecture: str
    n_params: int
    # Bytes of the weight files on disk, and 8 * bytes / parameters.
    size_bytes: int
    bits_per_weight: float
    context_length: int
    # The number format that it computes with here.
    dtype: str
    device: str


class LanguageModel(Protocol):
    """Local torch, later the native engine and hosted endpoints: all answer to these methods."""

    name: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        ...

    @property
    def facts(self) -> ModelFacts:
        """Size, number format and context length."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept, batching is internal."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept, batching is internal."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece; no piece ends inside a character or a stop string."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32: mean of the last hidden states."""
        ...


class LocalModel:
    """A model in this process, on torch."""

    def __init__(
        self,
        model: "DecoderLM",
        tokenizer: Tokenizer,
        *,
        name: str,
        path: Path | None = None,
    ) -> None:
        """`path` is the folder or file that holds just these weights, if there is one."""
        from lmwright.engine.torch_backend import TorchBackend

        self.name = name
        self.model = model
        self._tokenizer = tokenizer
        self._path = path
        self._backend = TorchBackend(model)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return self._tokenizer

    @property
    def facts(self) -> ModelFacts:
        """Size, number format and context length."""
        parameters = list(self.model.parameters())
        n_params = sum(parameter.numel() for parameter in parameters)
        size_bytes = (
            weight_bytes(self._path)
            if self._path
            else sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        )
        return ModelFacts(
            architecture=self.model.config.family,
            n_params=n_params,
            size_bytes=size_bytes,
            bits_per_weight=8 * size_bytes / n_params,
            context_length=self._backend.context_length,
            dtype=str(self.model.compute_dtype).removeprefix("torch."),
            device=str(self._backend.device),
        )

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept, batching is internal.

        Context and continuation are encoded together, as the model would meet them. A token
        that reaches over the border between them counts as continuation. Without any token
        before it (an empty context and a model without BOS) the first token is not scored.
        """
        sequences = [self._scored(request) for request in requests]
        scores: list[Score | None] = [None] * len(requests)
        for forest in plant(sequences, SCORE_NODES):
            logprobs, greedy = self._backend.score(forest)
            for number, edges in forest.sequences:
                ids = sequences[number].token_ids[sequences[number].n_context :]
                scores[number] = Score(ids, logprobs[edges], bool(greedy[edges].all()))
        return cast(list[Score], scores)  # every sequence stands in exactly one forest

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept, batching is internal."""
        ids = [self._checked(prompt, sampling) for prompt in prompts]
        completions: list[Completion | None] = [None] * len(prompts)
        for number, chunk in generate(self._backend, self._tokenizer, ids, sampling):
            if chunk.completion is not None:
                completions[number] = chunk.completion
        return cast(list[Completion], completions)  # the loop ends when all have ended

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece; no piece ends inside a character or a stop string."""
        ids = self._checked(prompt, sampling)
        return (chunk for _, chunk in generate(self._backend, self._tokenizer, [ids], sampling))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32: mean of the last hidden states."""
        ids = [self._tokenizer.encode(text) for text in texts]
        for i, tokens in enumerate(ids):
            self._check_length(len(tokens), f"texts[{i}]")
        return self._backend.embed(ids)

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that transformers opens.

        A model that came from a folder is copied as it lies there: a quantised one stays so.
        """
        from lmwright.model.checkpoint import save

        if self._path is not None and self._path.is_dir():
            shutil.copytree(self._path, folder, dirs_exist_ok=True)
            return
        save(self.model, Path(folder), self.model.compute_dtype)
        self._tokenizer.save(Path(folder))

    def _scored(self, request: ScoreRequest) -> Scored:
        if not request.continuation:
            raise RequestError("score: the continuation is empty; nothing to score")
        if isinstance(request.context, str):
            context = self._tokenizer.encode(request.context)
            ids = self._tokenizer.encode(request.context + request.continuation)
            n_context = _n_common(context, ids)
        else:
            context = prompt_ids(request.context, self._tokenizer)
            ids = [*context, *self._tokenizer.encode(request.continuation, add_bos=False)]
            n_context = len(context)
        self._check_length(len(ids), "context and continuation")
        if len(ids) < 2:
            raise RequestError(
                f"score: {request.continuation!r} is a single token with nothing before it"
            )
        return Scored(tuple(ids), max(n_context, 1))

    def _checked(self, prompt: Prompt, sampling: Sampling) -> list[int]:
        ids = prompt_ids(prompt, self._tokenizer)
        self._check_length(len(ids) + sampling.max_tokens, f"{len(ids)} prompt tokens + max_tokens")
        return ids

    def _check_length(self, n_tokens: int, what: str) -> None:
        limit = self._backend.context_length
        if not 1 <= n_tokens <= limit:
            raise RequestError(
                f"{what}: {n_tokens} tokens; {self.name} takes 1 to {limit}. Shorten it"
            )


def prompt_ids(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """Return a prompt as token ids, whichever of its three forms it has."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    if not len(prompt):
        raise RequestError("the prompt is empty")
    if isinstance(prompt[0], dict):
        return tokenizer.chat(cast(Sequence[Message], prompt))
    ids = cast(Sequence[int], prompt)
    for i, id_ in enumerate(ids):
        if isinstance(id_, bool) or not isinstance(id_, int | np.integer):
            raise RequestError(f"prompt[{i}] = {id_!r}: expected a token id")
        if not 0 <= id_ < tokenizer.vocab_size:
            raise RequestError(f"prompt[{i}] = {id_}: token ids go to {tokenizer.vocab_size - 1}")
    return [int(id_) for id_ in ids]


def load(
    model: str | Path, *, precision: "Precision" = "auto", name: str | None = None
) -> LocalModel:
    """Open `starter`, a folder, a .gguf, hub:ORG/NAME or a step of a run.

    precision "auto" computes in bf16 where the device does so natively, "fp32" exactly.
    """
    from lmwright.core.device import best_device, compute_dtype
    from lmwright.formats.gguf import open_gguf
    from lmwright.hub import resolve
    from lmwright.model import checkpoint
    from lmwright.tokenizer.load import gguf_tokenizer, load_tokenizer

    path = resolve(str(model))
    device = best_device()
    dtype = compute_dtype(precision, device)
    if path.suffix == ".gguf":
        file = open_gguf(path)
        decoder, tokenizer = checkpoint.load_gguf(file, dtype), gguf_tokenizer(file.metadata)
    else:
        decoder, tokenizer = checkpoint.load_folder(path, dtype), load_tokenizer(path)
    return LocalModel(
        decoder.to(device),
        tokenizer,
        name=name or str(model),
        path=path,
    )


def weight_bytes(path: Path) -> int:
    """Return the size on disk of a model's weights."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _n_common(first: Sequence[int], second: Sequence[int]) -> int:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))
