"""POST /v1/embeddings: texts into vectors."""

import base64
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator

from lmwright.serving.route import Json, Piece, Route, Served, Submission
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


def _plan(request: EmbeddingRequest, served: Served) -> Submission:
    n_tokens = sum(len(served.encode(text)) for text in request.input)
    calls = [partial(served.model.embed, [text]) for text in request.input]
    return Submission(partial(_response, request, n_tokens), calls)


def _response(request: EmbeddingRequest, n_tokens: int, pieces: Sequence[Piece]) -> Json:
    data = [
        {"object": "embedding", "index": number, "embedding": _written(request, vector)}
        for number, vector in pieces
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "model": request.model, "data": data, "usage": usage}


def _written(request: EmbeddingRequest, vector: object) -> str | list[float]:
    packed = np.asarray(vector, dtype="<f4")  # base64 holds little-endian float32
    is_base64 = request.encoding_format == "base64"
    return base64.b64encode(packed.tobytes()).decode() if is_base64 else packed.tolist()


EMBEDDINGS = Route("POST", "/v1/embeddings", EmbeddingRequest, _plan)
