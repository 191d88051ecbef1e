"""POST /v1/embeddings: texts into vectors."""

import base64
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator

from lmwright.lm import LocalModel
from lmwright.serving.route import Json, Route, Served, Submission
from lmwright.serving.schema import ApiRequest, Off, read_prompts


def _texts(value: Any) -> list[Any]:
    inputs = read_prompts(value)
    if not all(isinstance(text, str) for text in inputs):
        raise ValueError("expected a string or a list of strings; token ids are not supported yet")
    return inputs


class EmbeddingRequest(ApiRequest):
    """The body of the request."""

    OFF: ClassVar[Off] = {"dimensions": ()}
    PROMPT: ClassVar[str | None] = "input"

    input: Annotated[list[str], BeforeValidator(_texts)]
    encoding_format: Literal["float", "base64"] = "float"


class EmbeddingReply:
    """The vectors of all texts; base64 holds little-endian float32."""

    def __init__(self, model: str, *, is_base64: bool, n_tokens: int) -> None:
        self._model, self._is_base64, self._n_tokens = model, is_base64, n_tokens
        self._data: list[Json] = []

    def add(self, number: int, piece: object) -> list[Json]:
        """Take a vector, (d_model,) float32; nothing is streamed."""
        assert isinstance(piece, np.ndarray)
        packed = piece.astype("<f4")
        vector = base64.b64encode(packed.tobytes()).decode() if self._is_base64 else packed.tolist()
        self._data.append({"object": "embedding", "index": number, "embedding": vector})
        return []

    def whole(self) -> Json:
        """Return the response."""
        usage = {"prompt_tokens": self._n_tokens, "total_tokens": self._n_tokens}
        return {"object": "list", "model": self._model, "data": self._data, "usage": usage}


def _plan(request: EmbeddingRequest, served: Served) -> Submission:
    model = served.model
    n_tokens = sum(len(served.encode(text)) for text in request.input)
    is_base64 = request.encoding_format == "base64"
    reply = EmbeddingReply(model.name, is_base64=is_base64, n_tokens=n_tokens)
    return Submission(reply, calls=[partial(_embed, model, text) for text in request.input])


def _embed(model: LocalModel, text: str) -> Iterable[np.ndarray]:
    return model.embed([text])


EMBEDDINGS = Route("POST", "/v1/embeddings", EmbeddingRequest, _plan)
