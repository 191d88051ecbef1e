"""What can go wrong with an endpoint, in words that say what to do about it."""

import json
import re
from typing import Any

from lmwright.core.errors import LmwrightError, ModelError, RequestError, UnsupportedError

# What an endpoint says is repeated up to so many characters.
MAX_ECHO = 300
# An unknown model is a 404 like an unknown URL. OpenAI and `lmwright serve` give a code, Azure
# another one; vLLM, Ollama and others only say it.
NO_MODEL_CODES = ("model_not_found", "DeploymentNotFound")
NO_MODEL = re.compile(r"model\b.{0,200}\b(does not exist|not found)", re.IGNORECASE)


class HostedError(LmwrightError):
    """The endpoint cannot be reached, fails, or answers with something else than it should."""


class NoLogprobsError(UnsupportedError):
    """The endpoint does not say how likely a given text is, so nothing can be scored."""

    def __init__(self, name: str, why: str) -> None:
        self.why = why
        super().__init__(
            f"{name}: {why}, so a given text cannot be scored there; vLLM and `lmwright serve` "
            "can do it (/completions with echo and logprobs)",
            reason="the endpoint gives no log-probabilities of a given text",
        )


def cleaned(message: str, key: str | None) -> str:
    """Return a message of the endpoint on one line, short, and without the key."""
    words = (message.replace(key, "***") if key else message).split()
    message = " ".join(words)
    short = message if len(message) <= MAX_ECHO else message[:MAX_ECHO] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def translated(
    error: Exception, name: str, *, url: str, path: str, key: str | None
) -> LmwrightError:
    """Return our own error for one of the openai library; what is none of its errors is raised."""
    import openai

    if isinstance(error, LmwrightError):  # a stream's event that makes no sense
        return error
    if isinstance(error, openai.APITimeoutError):
        return HostedError(f"{name}: no answer from {url} in time; raise timeout_s, or try later")
    if isinstance(error, openai.APIConnectionError):
        reason = cleaned(str(error.__cause__ or error), key)
        return HostedError(f"{name}: {url} cannot be reached ({reason}); is the server running?")
    if isinstance(error, openai.APIStatusError):
        said = cleaned(_said(error.body), key)
        is_model = error.code in NO_MODEL_CODES or NO_MODEL.search(said) is not None
        if error.status_code == 404 and is_model:
            return ModelError(f"{name}: {said} ({url}/models lists what there is)")
        return _refused(error.status_code, said, name=name, path=path, has_key=bool(key))
    if isinstance(error, openai.APIError):  # in the middle of a stream
        return HostedError(f"{name}: the endpoint failed: {cleaned(str(error), key)}")
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore"):
        return HostedError(f"{name}: the connection to {url} was lost ({cleaned(str(error), key)})")
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return HostedError(f"{name}: {url}{path} answered with broken JSON: {error}")
    raise error


def _refused(status: int, said: str, *, name: str, path: str, has_key: bool) -> LmwrightError:
    whole = f"{name}: {said or 'no reason given'} (status {status})"
    if status in (401, 403):
        key = "the key in OPENAI_API_KEY was refused" if has_key else "OPENAI_API_KEY is not set"
        return ModelError(f"{whole}; {key}")
    if status in (404, 405, 501):
        return UnsupportedError(
            f"{whole}: the endpoint has no {path} for this model; is the URL complete? It mostly "
            "ends in /v1",
            reason=f"the endpoint has no {path}",
        )
    if status == 429:
        return HostedError(f"{whole}; set requests_per_minute, or raise n_retries (hosted table)")
    if status >= 500 or status == 408:
        return HostedError(f"{whole}; the endpoint failed, try later")
    return RequestError(whole)


def _said(body: Any) -> str:
    """Return the endpoint's own words, in whichever shape they come."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            inner = inner.get("message") or inner.get("detail") or ""
        return inner if isinstance(inner, str) else json.dumps(inner)
    return body if isinstance(body, str) else ""
