"""A model with its tokenizer behind a few methods, wherever it runs. NumPy at the border."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from lmwright.core.errors import ContextLengthError, ModelError, RequestError, UnsupportedError
from lmwright.engine.backend import Backend, Capability, ClassifyingBackend, WritingBackend
from lmwright.engine.beam import beam_search
from lmwright.engine.info import ModelInfo
from lmwright.engine.prompts import pair, prompt_ids, scored
from lmwright.engine.request import (
    DEFAULT_MAX_TOKENS,
    Admitted,
    Chunk,
    Classification,
    Completion,
    Prompt,
    Sampling,
    Score,
    ScoreRequest,
    TokenClass,
)
from lmwright.engine.scheduler import DEFAULT_LIMITS, Engine, EngineLimits
from lmwright.hosted.address import is_hosted
from lmwright.hosted.config import Hosted
from lmwright.tokenizer.encode import Encoding, Tokenizer

if TYPE_CHECKING:
    from lmwright.core.device import Precision
    from lmwright.formats.sentence_transformers import Pooling
    from lmwright.model.transformer import DecoderLM, Model

# What each capability lets a model do, as its refusal says it.
LACKS: dict[Capability, str] = {
    "generate": "writes no text",
    "score": "scores no text",
    "embed": "makes no vectors",
    "classify": "has no head that classifies whole texts",
    "classify_tokens": "has no head that classifies tokens",
}


class LanguageModel(Protocol):
    """Local torch, hosted endpoints, later the native engine: all answer to these methods.

    What a model cannot do at all raises `UnsupportedError`.
    """

    name: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        ...

    @property
    def can_chat(self) -> bool:
        """Whether a prompt may be a dialogue."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Size, number format and context length."""
        ...

    def encode(self, prompt: Prompt) -> list[int]:
        """Return a prompt as the token ids that the model reads."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept, batching is internal."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept, batching is internal."""
        ...

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield (its number, from 0, and the answer) as soon as one ends."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece; no piece ends inside a character or a stop string."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32, pooled as the model wants it."""
        ...

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classification]:
        """Say of each text, or of it with its partner in `pairs`, what the model was taught to."""
        ...


class LocalModel:
    """A model in this process, on any backend: a decoder, an encoder or an encoder-decoder."""

    def __init__(
        self, backend: Backend, tokenizer: Tokenizer, *, name: str, path: Path | None = None
    ) -> None:
        """`path` is the folder or file that holds just these weights, if there is one."""
        self.name, self.backend, self.tokenizer = name, backend, tokenizer
        self._path = path

    @property
    def can_chat(self) -> bool:
        """Whether a prompt may be a dialogue."""
        return self.tokenizer.chat_template is not None

    @property
    def kind(self) -> str:
        """Whether it is a decoder, an encoder or an encoder-decoder."""
        return self.backend.info.kind or "decoder"

    @property
    def context_length(self) -> int:
        """How many tokens the model reads at most."""
        assert self.backend.info.context_length is not None, "a backend knows its model"
        return self.backend.info.context_length

    @property
    def info(self) -> ModelInfo:
        """Size, number format and context length."""
        info = self.backend.info
        if self._path is None or not info.n_params:
            return info
        size_bytes = weight_bytes(self._path)
        bits = 8 * size_bytes / info.n_params
        return replace(info, size_bytes=size_bytes, bits_per_weight=bits)

    def encode(self, prompt: Prompt) -> list[int]:
        """Return a prompt as the token ids that the model reads."""
        is_source, n_ids = self.kind != "decoder", self.backend.info.vocab_size
        return prompt_ids(prompt, self.tokenizer, is_source=is_source, n_ids=n_ids)

    def admit(self, prompt: Prompt, sampling: Sampling) -> Admitted:
        """Return a prompt as token ids that fit the context together with their answer.

        What does not fit raises `ContextLengthError`, what is no prompt `RequestError`.
        """
        backend = cast(WritingBackend, self._able("generate"))
        ids = self.encode(prompt)
        self._check_length(len(ids), "the prompt")
        n_prefix = len(backend.decoder_prefix(ids))
        n_new = sampling.max_tokens
        if n_new is None:
            n_new = max(1, min(DEFAULT_MAX_TOKENS, self.context_length - n_prefix))
        self._check_length(n_prefix + n_new, f"{n_prefix} prompt tokens + max_tokens")
        return Admitted(tuple(ids), replace(sampling, max_tokens=n_new))

    def engine(self, limits: EngineLimits = DEFAULT_LIMITS) -> Engine:
        """Return an engine that writes several answers together."""
        return Engine(cast(WritingBackend, self._able("generate")), self.tokenizer, limits)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept, batching is internal."""
        backend = cast(WritingBackend, self._able("score"))
        tokenizer, n_ids = self.tokenizer, self.backend.info.vocab_size
        if self.kind == "encoder-decoder":
            [start_id] = backend.decoder_prefix(())
            pairs = [pair(r, tokenizer, start_id=start_id, n_ids=n_ids) for r in requests]
            for each in pairs:
                self._check_length(len(each.source_ids), "context")
                self._check_length(len(each.answer.token_ids), "continuation")
        else:
            pairs = [scored(request, tokenizer, n_ids=n_ids) for request in requests]
            for each in pairs:
                self._check_length(len(each.answer.token_ids), "context and continuation")
        found = backend.score(pairs, max(request.n_top for request in requests)) if pairs else []
        return [
            Score(
                asked.answer.scored_ids,
                each.logprobs,
                is_greedy=bool(each.is_greedy.all()),
                top=each.top(request.n_top),
            )
            for request, asked, each in zip(requests, pairs, found, strict=True)
        ]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept, batching is internal."""
        completions = dict(self.completions(prompts, sampling))
        return [completions[i] for i in range(len(prompts))]

    def completions(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield (its number, from 0, and the answer) as soon as one ends."""
        pieces = self.stream_all(prompts, sampling)
        return ((i, c.completion) for i, c in pieces if c.completion is not None)

    def stream_all(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, Chunk]]:
        """Continue each prompt, many at a time; yield (its number, from 0, and its next piece)."""
        backend = cast(WritingBackend, self._able("generate"))
        admitted = [self.admit(prompt, sampling) for prompt in prompts]
        if sampling.n_beams > 1:
            found = beam_search(backend, self.tokenizer, admitted) if admitted else ()
            return ((i, Chunk("", completion=completion)) for i, completion in found)
        engine = self.engine()
        for each in admitted:  # numbered from 0
            engine.add(each.prompt_ids, [each.sampling])
        return _chunks(engine)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece; no piece ends inside a character or a stop string."""
        if sampling.n_beams > 1:
            raise RequestError(
                f"n_beams = {sampling.n_beams}: which beam wins is known at the end only, so that "
                "nothing can be streamed; use generate"
            )
        admitted, engine = self.admit(prompt, sampling), self.engine()
        engine.add(admitted.prompt_ids, [admitted.sampling])
        return (chunk for _, chunk in _chunks(engine))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32, pooled as the model's folder says.

        Else it is the mean of the last hidden states (of an encoder-decoder, the encoder's).
        """
        backend = self._able("embed")
        ids = [self._embedded_ids(text) for text in texts]
        for i, tokens in enumerate(ids):
            self._check_length(len(tokens), f"texts[{i}]")
        return backend.embed(ids)

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classification]:
        """Say of each text, or of it with its partner in `pairs`, what the model was taught to."""
        backend = cast(ClassifyingBackend, self._able("classify"))
        if pairs is not None and len(pairs) != len(texts):
            raise RequestError(f"classify: {len(texts)} texts and {len(pairs)} pairs; one each")
        return backend.classify(self._framed(texts, pairs))

    def classify_tokens(self, texts: Sequence[str]) -> list[list[TokenClass]]:
        """Say of each token of each text what the model was taught to (names, parts of speech)."""
        backend = cast(ClassifyingBackend, self._able("classify_tokens"))
        framed = self._framed(texts)
        return [
            [
                TokenClass(start, end, answer)
                for (start, end), answer in zip(text.spans, answers, strict=True)
                if start < end  # not [CLS], [SEP] and the like
            ]
            for text, answers in zip(framed, backend.classify_tokens(framed), strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder; one that the model came from is copied as it is."""
        if self._path is not None and self._path.is_dir():
            shutil.copytree(self._path, folder, dirs_exist_ok=True)
            return
        self.backend.save(Path(folder))
        self.tokenizer.save(Path(folder))

    def _embedded_ids(self, text: str) -> list[int]:
        pooling = self.backend.pooling
        if pooling is None:
            return self.encode(text)
        text = pooling.prompt + text
        return self.tokenizer.encode_input(text.lower() if pooling.lowers_case else text).ids

    def _framed(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        partners = [None] * len(texts) if pairs is None else pairs
        framed = [self.tokenizer.encode_input(*both) for both in zip(texts, partners, strict=True)]
        for i, text in enumerate(framed):
            self._check_length(len(text.ids), f"texts[{i}]")
        return framed

    def _able(self, capability: Capability) -> Backend:
        """Return the backend, which has the methods of a capability; refuse what it cannot."""
        if capability not in self.backend.capabilities:
            can = [each for each in LACKS if each in self.backend.capabilities]
            what = LACKS[capability]
            raise UnsupportedError(
                f"{self.name} ({self.kind}, {self.backend.info.architecture}) {what}; "
                f"it can {', '.join(can)}",
                reason=f"the {self.kind} {what}",
            )
        return self.backend

    def _check_length(self, n_tokens: int, what: str) -> None:
        limit = self.context_length
        if not 1 <= n_tokens <= limit:
            kind = ContextLengthError if n_tokens else RequestError
            raise kind(f"{what}: {n_tokens} tokens; {self.name} takes 1 to {limit}. Shorten it")


def _chunks(engine: Engine) -> Iterator[tuple[int, Chunk]]:
    while not engine.is_idle:
        yield from engine.step()


def load(
    model: str | Path,
    *,
    precision: "Precision" = "auto",
    name: str | None = None,
    hosted: Hosted | None = None,
) -> LanguageModel:
    """Open `starter`, a folder, a .gguf, hub:ORG/NAME, a step of a run or openai:MODEL[@URL].

    precision "auto" computes in bf16 where the device does so natively, "fp32" exactly. `hosted`
    says how a hosted model is asked, and is for those only.
    """
    if is_hosted(str(model)):
        from lmwright.hosted.model import HostedModel

        return HostedModel(str(model), hosted or Hosted(), name=name)
    if hosted is not None:
        raise ModelError(f"{model}: hosted = ... is for models such as openai:MODEL@URL only")
    return load_local(model, precision=precision, name=name)


def load_local(
    model: str | Path, *, precision: "Precision" = "auto", name: str | None = None
) -> LocalModel:
    """Open a model whose weights are here, or can be fetched: see `load`."""
    from lmwright.engine.torch.modules import open_backend
    from lmwright.hub import resolve

    path = resolve(str(model))
    backend, tokenizer = open_backend(path, precision)
    return LocalModel(backend, tokenizer, name=name or str(model), path=path)


def local_model(
    modules: "Model", tokenizer: Tokenizer, *, name: str, pooling: "Pooling | None" = None
) -> LocalModel:
    """Return torch modules as a model; `pooling` makes one vector of a text's, else their mean."""
    from lmwright.engine.torch.modules import torch_backend

    return LocalModel(torch_backend(modules, tokenizer, pooling), tokenizer, name=name)


def local(model: LanguageModel) -> LocalModel:
    """Return the model itself if its weights are in this process; else say that they are not."""
    if not isinstance(model, LocalModel):
        raise ModelError(f"{model.name}: its weights are not here, so that they cannot be changed")
    return model


def modules(model: LanguageModel) -> "Model":
    """Return the torch modules of a model that is here; of others say that there are none."""
    from lmwright.engine.torch.modules import TorchBackend

    backend = local(model).backend
    if not isinstance(backend, TorchBackend):
        raise ModelError(f"{model.name}: runs without torch, so that it cannot be changed")
    return backend.model


def decoder(model: LanguageModel, *, to_be: str) -> "DecoderLM":
    """Return the modules of a decoder; of others say that they are not `to_be` (fine-tuned)."""
    from lmwright.model.transformer import DecoderLM

    found = modules(model)
    if not isinstance(found, DecoderLM):
        kind = local(model).kind
        raise UnsupportedError(
            f"{model.name} ({kind}, {found.config.family}) cannot be {to_be}; decoders can",
            reason=f"an {kind} cannot be {to_be}",
        )
    return found


def weight_bytes(path: Path) -> int:
    """Return the size on disk of a model's weights."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)
