"""Whether the server answers, and which model it serves."""

from lmwright.serving.route import Json, Route, Served
from lmwright.serving.schema import ApiRequest, Body


def describe(served: Served) -> Json:
    """Return the model as OpenAI's list of models shows one, with what it can do."""
    model = served.model
    can_chat = {"chat"} if model.can_chat and "generate" in model.backend.capabilities else set()
    return {
        "id": model.name,
        "object": "model",
        "created": served.created,
        "owned_by": "lmwright",
        "capabilities": sorted(model.backend.capabilities | can_chat),
        "context_length": model.context_length,
    }


HEALTH = Route("GET", "/health", Body, lambda _, __: {"status": "ok"}, needs_key=False)
MODELS = Route(
    "GET", "/v1/models", Body, lambda _, served: {"object": "list", "data": [describe(served)]}
)
# The name of a model may have slashes.
MODEL = Route("GET", "/v1/models/{model:path}", ApiRequest, lambda _, served: describe(served))
