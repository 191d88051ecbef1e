"""What all requests share: strict JSON, OpenAI's fields, and errors that name the field.

What is not honoured is refused. Absent fields mean what they mean at OpenAI.
"""

from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from lmwright.core.errors import suggestion
from lmwright.serving import limits
from lmwright.serving.errors import ApiError, echo, invalid

# Accepted and ignored: they say who asks and how to account for it, not what to answer.
IGNORED = frozenset({
    "metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "service_tier", "store", "user",
})  # fmt: skip

# Fields of OpenAI's API that would change the answer and are not honoured here: only null and the
# values that switch them off are accepted.
Off = dict[str, tuple[Any, ...]]

CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported_parameter": "unsupported_parameter",
}


class Body(BaseModel):
    """Strict JSON: no conversions, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    OFF: ClassVar[Off] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    # The field that the model reads: where the model refuses it, the error names this field.
    PROMPT: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, fields: Any) -> Any:
        """Drop what is ignored, absent (null) or switched off; refuse what is switched on."""
        if not isinstance(fields, dict):
            return fields
        settled = {}
        for key, value in fields.items():
            if key in cls.OFF:
                if value is not None and not any(_is_same(value, off) for off in cls.OFF[key]):
                    raise _unsupported(key, cls.OFF[key])
            elif key not in cls.IGNORED and (value is not None or key not in cls.model_fields):
                settled[key] = value
        return settled


class ApiRequest(Body):
    """A request to the one model that is served; any other name is answered with a 404."""

    IGNORED: ClassVar[frozenset[str]] = IGNORED

    model: str


R = TypeVar("R", bound=Body)


def read_request(kind: type[R], fields: dict[str, Any]) -> R:
    """Validate a request; the error names the field, what is wrong and what fits."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _explain(error, kind) from None


def read_prompts(value: Any) -> list[Any]:
    """Return the prompts of a field: one string, one list of token ids, or a list of either."""
    if not isinstance(value, str | list):
        raise ValueError("expected a string, token ids, or a list of one of them")
    is_one = isinstance(value, str) or (value and _is_ids(value))
    prompts = [value] if is_one else list(value)
    if not 1 <= len(prompts) <= limits.MAX_PROMPTS:
        raise ValueError(f"{len(prompts):,} prompts; expected 1 to {limits.MAX_PROMPTS}")
    if not all(isinstance(prompt, str) for prompt in prompts) and not all(map(_is_ids, prompts)):
        raise ValueError("expected strings, or lists of token ids (integers), not a mixture")
    if not all(prompts):
        raise ValueError("a prompt is empty; expected at least one token")
    return prompts


def _is_ids(value: Any) -> bool:
    # bool is a subclass of int.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _is_same(value: Any, neutral: Any) -> bool:
    # False == 0 and True == 1 in Python, but not in JSON.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _unsupported(key: str, neutral: tuple[Any, ...]) -> ValidationError:
    allowed = {"allowed": " or ".join(["null", *map(repr, neutral)])}
    reason = "not supported yet; leave it out or give {allowed}"
    fault = PydanticCustomError("unsupported_parameter", reason, allowed)
    details = InitErrorDetails(type=fault, loc=(key,), input=None)
    return ValidationError.from_exception_data("Body", [details])


def _explain(error: ValidationError, kind: type[Body]) -> ApiError:
    # The first fault is enough, and a hostile body may have a million.
    fault = error.errors(include_url=False, include_input=False)[0]
    param = ""
    for step in fault["loc"]:
        param += f"[{step}]" if isinstance(step, int) else f".{echo(step)}"
    param = param.removeprefix(".")
    if fault["type"] == "extra_forbidden":
        known = [*kind.model_fields, *kind.OFF, *IGNORED] if len(fault["loc"]) == 1 else []
        reason = f"unknown field{suggestion(param, known) if len(param) <= 64 else ''}"
    elif fault["type"] == "missing":
        reason = "missing"
    else:
        reason = fault["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
    if fault["type"] == "list_type":
        reason += " (a JSON array)"
    code = "invalid_type" if fault["type"].endswith("_type") else "invalid_value"
    return invalid(param, reason, CODES.get(fault["type"], code))
