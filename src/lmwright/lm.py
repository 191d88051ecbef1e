"""A model with its tokenizer behind a few methods, wherever it runs. NumPy at the border."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from lmwright.core.errors import ModelError, RequestError, UnsupportedError
from lmwright.engine.beam import beam_search
from lmwright.engine.generation import generate
from lmwright.engine.info import ModelInfo
from lmwright.engine.prompts import pair, prompt_ids, scored
from lmwright.engine.request import (
    Chunk,
    Classification,
    Completion,
    Prompt,
    Sampling,
    Score,
    ScoreRequest,
    TokenClass,
)
from lmwright.engine.scoring import score_pairs, score_sequences
from lmwright.hosted.address import is_hosted
from lmwright.hosted.config import Hosted
from lmwright.tokenizer.encode import Tokenizer

if TYPE_CHECKING:
    from lmwright.core.device import Precision
    from lmwright.engine.torch.decoder import TorchBackend
    from lmwright.engine.torch.encoder import EncoderBackend
    from lmwright.engine.torch.seq2seq import Seq2SeqBackend
    from lmwright.formats.sentence_transformers import Pooling
    from lmwright.model.transformer import DecoderLM, Model

KINDS = {"DecoderLM": "decoder", "EncoderLM": "encoder", "EncoderDecoderLM": "encoder-decoder"}


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
    """A model in this process, on torch: a decoder, an encoder or an encoder-decoder."""

    def __init__(
        self,
        model: "Model",
        tokenizer: Tokenizer,
        *,
        name: str,
        path: Path | None = None,
        pooling: "Pooling | None" = None,
    ) -> None:
        """`path` is the folder or file that holds just these weights, if there is one.

        `pooling` makes one vector of a text's many; without it, `embed` takes their mean.
        """
        self.name = name
        self.model = model
        self.pooling = pooling
        self._tokenizer = tokenizer
        self._path = path
        self._backend = _backend(model, tokenizer, pooling)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return self._tokenizer

    @property
    def can_chat(self) -> bool:
        """Whether a prompt may be a dialogue."""
        return self._tokenizer.chat_template is not None

    @property
    def kind(self) -> str:
        """Whether it is a decoder, an encoder or an encoder-decoder."""
        return KINDS[type(self.model).__name__]

    @property
    def context_length(self) -> int:
        """How many tokens the model reads at most."""
        return self._backend.context_length

    @property
    def info(self) -> ModelInfo:
        """Size, number format and context length."""
        parameters = list(self.model.parameters())
        n_params = sum(parameter.numel() for parameter in parameters)
        size_bytes = (
            weight_bytes(self._path)
            if self._path
            else sum(parameter.numel() * parameter.element_size() for parameter in parameters)
        )
        return ModelInfo(
            architecture=self.model.config.family,
            n_params=n_params,
            size_bytes=size_bytes,
            bits_per_weight=8 * size_bytes / n_params,
            context_length=self.context_length,
            dtype=str(self.model.compute_dtype).removeprefix("torch."),
            device=str(self._backend.device),
            kind=self.kind,
        )

    def encode(self, prompt: Prompt) -> list[int]:
        """Return a prompt as the token ids that the model reads."""
        return prompt_ids(prompt, self._tokenizer, is_source=self.kind != "decoder")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score each continuation given its context; order is kept, batching is internal.

        A decoder's context and continuation are encoded together, as it would meet them; a token
        that reaches over the border counts as continuation. An encoder-decoder reads the context,
        and the continuation is its answer, without the EOS behind it.
        """
        from lmwright.engine.torch.seq2seq import Seq2SeqBackend

        backend, tokenizer = self._writing("scores no text"), self._tokenizer
        n_tops = [request.n_top for request in requests]
        if isinstance(backend, Seq2SeqBackend):
            pairs = [pair(r, tokenizer, start_id=backend.start_id) for r in requests]
            for each in pairs:
                self._check_length(len(each.source_ids), "context")
                self._check_length(len(each.answer.token_ids), "continuation")
            return score_pairs(backend, pairs, n_tops=n_tops)
        sequences = [scored(request, tokenizer) for request in requests]
        for sequence in sequences:
            self._check_length(len(sequence.token_ids), "context and continuation")
        return score_sequences(backend, sequences, n_tops=n_tops)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt; order is kept, batching is internal."""
        backend = self._writing("writes no text")
        ids = [self._checked(prompt, sampling) for prompt in prompts]
        completions: list[Completion | None] = [None] * len(prompts)
        if sampling.n_beams > 1:
            for number, completion in beam_search(backend, self._tokenizer, ids, sampling):
                completions[number] = completion
        else:
            for number, chunk in generate(backend, self._tokenizer, ids, sampling):
                if chunk.completion is not None:
                    completions[number] = chunk.completion
        return cast(list[Completion], completions)  # the loop ends when all have ended

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Chunk]:
        """Continue one prompt piece by piece; no piece ends inside a character or a stop string."""
        backend = self._writing("writes no text")
        if sampling.n_beams > 1:
            raise RequestError(
                f"n_beams = {sampling.n_beams}: which beam wins is known at the end only, so that "
                "nothing can be streamed; use generate"
            )
        ids = self._checked(prompt, sampling)
        return (chunk for _, chunk in generate(backend, self._tokenizer, [ids], sampling))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector a text, (N, d_model) float32, pooled as the model's folder says.

        Else it is the mean of the last hidden states (of an encoder-decoder, the encoder's).
        """
        ids = [self._embedded_ids(text) for text in texts]
        for i, tokens in enumerate(ids):
            self._check_length(len(tokens), f"texts[{i}]")
        return self._backend.embed(ids)

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classification]:
        """Say of each text, or of it with its partner in `pairs`, what the model was taught to."""
        backend, config = self._classifying("sequence"), self.model.config
        if pairs is not None and len(pairs) != len(texts):
            raise RequestError(f"classify: {len(texts)} texts and {len(pairs)} pairs; one each")
        partners = [None] * len(texts) if pairs is None else pairs
        framed = [self._tokenizer.encode_input(*both) for both in zip(texts, partners, strict=True)]
        for i, text in enumerate(framed):
            self._check_length(len(text.ids), f"texts[{i}]")
        return [
            Classification(config.labels, tuple(map(float, values)), config.problem)
            for values in backend.classify(framed)
        ]

    def classify_tokens(self, texts: Sequence[str]) -> list[list[TokenClass]]:
        """Say of each token of each text what the model was taught to (names, parts of speech)."""
        backend, config = self._classifying("tokens"), self.model.config
        framed = [self._tokenizer.encode_input(text) for text in texts]
        for i, text in enumerate(framed):
            self._check_length(len(text.ids), f"texts[{i}]")
        return [
            [
                TokenClass(
                    start,
                    end,
                    Classification(config.labels, tuple(map(float, values)), config.problem),
                )
                for (start, end), values in zip(text.spans, rows, strict=True)
                if start < end  # not [CLS], [SEP] and the like
            ]
            for text, rows in zip(framed, backend.classify(framed), strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder; one that the model came from is copied as it is."""
        from lmwright.formats.sentence_transformers import write_pooling
        from lmwright.model.checkpoint import save

        if self._path is not None and self._path.is_dir():
            shutil.copytree(self._path, folder, dirs_exist_ok=True)
            return
        save(self.model, Path(folder), self.model.compute_dtype)
        self._tokenizer.save(Path(folder))
        if self.pooling is not None:
            write_pooling(Path(folder), self.pooling, d_model=self.model.config.d_model)

    def _checked(self, prompt: Prompt, sampling: Sampling) -> list[int]:
        ids = self.encode(prompt)
        self._check_length(len(ids), "the prompt")
        n_before = len(self._writing("writes no text").before(ids))
        self._check_length(n_before + sampling.max_tokens, f"{n_before} prompt tokens + max_tokens")
        return ids

    def _embedded_ids(self, text: str) -> list[int]:
        if self.pooling is None:
            return self.encode(text)
        text = self.pooling.prompt + text
        return self._tokenizer.encode_input(text.lower() if self.pooling.lowers_case else text).ids

    def _writing(self, what: str) -> "TorchBackend | Seq2SeqBackend":
        """Return the backend if it can write; `what` says what it lacks else."""
        from lmwright.engine.torch.encoder import EncoderBackend

        if isinstance(self._backend, EncoderBackend):
            raise self._unable(what)
        return self._backend

    def _classifying(self, head: str) -> "EncoderBackend":
        from lmwright.engine.torch.encoder import EncoderBackend

        if not isinstance(self._backend, EncoderBackend) or self.model.config.head != head:
            what = "whole texts" if head == "sequence" else "tokens"
            raise self._unable(f"has no head that classifies {what}")
        return self._backend

    def _unable(self, what: str) -> UnsupportedError:
        config = self.model.config
        can = ["embed"] if self.kind == "encoder" else ["generate", "score", "embed"]
        can += {"sequence": ["classify"], "tokens": ["classify_tokens"]}.get(config.head, [])
        return UnsupportedError(
            f"{self.name} ({self.kind}, {config.family}) {what}; it can {', '.join(can)}",
            reason=f"the {self.kind} {what}",
        )

    def _check_length(self, n_tokens: int, what: str) -> None:
        limit = self.context_length
        if not 1 <= n_tokens <= limit:
            raise RequestError(
                f"{what}: {n_tokens} tokens; {self.name} takes 1 to {limit}. Shorten it"
            )


def _backend(
    model: "Model", tokenizer: Tokenizer, pooling: "Pooling | None"
) -> "TorchBackend | EncoderBackend | Seq2SeqBackend":
    from lmwright.engine.torch.decoder import TorchBackend
    from lmwright.engine.torch.encoder import EncoderBackend
    from lmwright.engine.torch.seq2seq import Seq2SeqBackend
    from lmwright.model.transformer import EncoderDecoderLM, EncoderLM

    if isinstance(model, EncoderLM):
        return EncoderBackend(model, pooling)
    if isinstance(model, EncoderDecoderLM):
        return Seq2SeqBackend(model, tokenizer, pooling)
    return TorchBackend(model, pooling)


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
    from lmwright.core.device import best_device, compute_dtype
    from lmwright.formats.gguf import open_gguf
    from lmwright.formats.sentence_transformers import read_pooling
    from lmwright.hub import resolve
    from lmwright.model import checkpoint
    from lmwright.tokenizer.gguf.reader import gguf_tokenizer
    from lmwright.tokenizer.huggingface.folder import load_tokenizer

    path = resolve(str(model))
    device = best_device()
    dtype = compute_dtype(precision, device)
    if path.suffix == ".gguf":
        file = open_gguf(path)
        # First: what it needs for a moment does not come on top of the weights.
        tokenizer = gguf_tokenizer(file.metadata)
        modules, pooling = checkpoint.load_gguf(file, dtype), None
    else:
        modules, tokenizer = checkpoint.load_folder(path, dtype), load_tokenizer(path)
        pooling = read_pooling(path)
    # A GGUF, or a generation_config.json, may know more ends of a reply than the configuration.
    ends = tokenizer.eos_ids or modules.config.eos_ids
    modules.config = replace(modules.config, eos_ids=ends)
    return LocalModel(
        modules.to(device), tokenizer, name=name or str(model), path=path, pooling=pooling
    )


def local(model: LanguageModel) -> LocalModel:
    """Return the model itself if its weights are in this process; else say that they are not."""
    if not isinstance(model, LocalModel):
        raise ModelError(f"{model.name}: its weights are not here, so that they cannot be changed")
    return model


def decoder(model: LocalModel, *, to_be: str) -> "DecoderLM":
    """Return the modules of a decoder; of others say that they are not `to_be` (fine-tuned)."""
    from lmwright.model.transformer import DecoderLM

    if not isinstance(model.model, DecoderLM):
        raise UnsupportedError(
            f"{model.name} ({model.kind}, {model.model.config.family}) cannot be {to_be}; "
            "decoders can",
            reason=f"an {model.kind} cannot be {to_be}",
        )
    return model.model


def weight_bytes(path: Path) -> int:
    """Return the size on disk of a model's weights."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)
