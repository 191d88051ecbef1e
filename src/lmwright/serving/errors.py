"""The one error of the server, in the shape that OpenAI's clients read."""

import logging
import traceback
from typing import Any

from lmwright.core.errors import ContextLengthError, LmwrightError, RequestError

log = logging.getLogger(__name__)

# Text of a client that an error repeats (a key, a model's name) is cut to this many characters.
MAX_ECHO = 100

TYPES = {429: "rate_limit_error", 503: "server_error", 500: "server_error"}


class ApiError(LmwrightError):
    """An answer that is an error; status 400 unless another one says it better."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = echo(param) if param is not None else None
        self.code = code
        self.headers = headers or {}

    def to_json(self) -> dict[str, Any]:
        """Return {"error": {"message", "type", "param", "code"}}."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }


def invalid(param: str, reason: str, code: str = "invalid_value") -> ApiError:
    """Return the 400 for a field of a request."""
    return ApiError(f"{param}: {reason}", param=param, code=code)


def refusal(error: RequestError, *, param: str | None = None) -> ApiError:
    """Return the 400 for a request that the model refuses."""
    is_long = isinstance(error, ContextLengthError)
    code = "context_length_exceeded" if is_long else "invalid_value"
    return ApiError(str(error), param=param, code=code)


def internal_error(error: Exception) -> ApiError:
    """Log where an unexpected error came from; return a 500 that tells a client nothing of it.

    Its text is not logged either: it may quote a prompt.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s\n%s", type(error).__name__, frames)
    return ApiError("the server failed to answer; its log says where", 500, code="internal_error")


def echo(text: str) -> str:
    """Return a client's text short enough and without control characters, for an error or a log."""
    short = text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)
