"""Whether the server answers, and which model it serves."""

from lmwright.serving.route import Json, Route, Served
from lmwright.serving.schema import ApiRequest, Body


def describe(served: Served) -> Json:
    """Return the model as OpenAI's list of models shows one."""
    name = served.model.name
    return {"id": name, "object": "model", "created": served.created, "owned_by": "lmwright"}


HEALTH = Route("GET", "/health", Body, lambda _, __: {"status": "ok"}, needs_key=False)
MODELS = Route(
    "GET", "/v1/models", Body, lambda _, served: {"object": "list", "data": [describe(served)]}
)
# The name of a model may have slashes.
MODEL = Route("GET", "/v1/models/{model:path}", ApiRequest, lambda _, served: describe(served))
