"""What can go wrong with an endpoint, in words that say what to do about it."""

import json
import re
from typing import Any

from lmwright.core.errors import LmwrightError, ModelError, RequestError, UnsupportedError

# What an endpoint says is repeated up to so many characters.
MAX_ECHO = 300
# Who asks to wait longer is told to the user instead.
MAX_WAIT_S = 120
# An unknown model is a 404 like an unknown URL. OpenAI and `lmwright serve` give a code, Azure
# another one; vLLM, Ollama and others only say it.
NO_MODEL_CODES = ("model_not_found", "DeploymentNotFound")
NO_MODEL = re.compile(r"model\b.{0,200}\b(does not exist|not found)", re.IGNORECASE)


class HostedError(LmwrightError):
    """The endpoint cannot be reached, fails, or answers with something else than it should."""


class PassingError(HostedError):
    """A failure that may be over soon, so that the same is asked again."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        """`wait_s` is how long the endpoint asks to wait, if it does."""
        self.wait_s = wait_s
        super().__init__(message)


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

    # What its transport or its hook found; not each version of the library lets it through.
    for own in (error, error.__cause__):
        if isinstance(own, LmwrightError):
            return own
    if isinstance(error, openai.APITimeoutError):
        return PassingError(f"{name}: no answer from {url} in time; raise timeout_s, or try later")
    if isinstance(error, openai.APIStatusError):
        said = cleaned(_said(error.body), key)
        is_model = error.code in NO_MODEL_CODES or NO_MODEL.search(said) is not None
        if error.status_code == 404 and is_model:
            return ModelError(f"{name}: {said} ({url}/models lists what there is)")
        return _refused(error, f"{name}: {said or 'no reason given'}", path=path, key=key)
    if isinstance(error, openai.APIConnectionError):
        return _lost(error.__cause__ or error, name, url=url, key=key)
    if isinstance(error, openai.APIError):  # in the middle of a stream
        return HostedError(f"{name}: the endpoint failed: {cleaned(str(error), key)}")
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2"):
        return _lost(error, name, url=url, key=key)
    # ValueError: not UTF-8, not JSON, or a number of thousands of digits.
    if isinstance(error, ValueError | RecursionError):
        reason = cleaned(str(error), key)
        return HostedError(f"{name}: {url}{path} answered with broken JSON: {reason}")
    raise error


def _lost(error: BaseException, name: str, *, url: str, key: str | None) -> HostedError:
    """Return the error for a connection that was not made, or that did not carry an answer."""
    reason = cleaned(str(error), key) or type(error).__name__
    if "Connect" in type(error).__name__ or isinstance(error, OSError):
        return PassingError(f"{name}: {url} cannot be reached ({reason}); is the server running?")
    if "Protocol" in type(error).__name__:
        return PassingError(
            f"{name}: {url} broke off, or answered with something that is not HTTP ({reason})"
        )
    return PassingError(f"{name}: the connection to {url} was lost ({reason})")


def _refused(error: Any, said: str, *, path: str, key: str | None) -> LmwrightError:
    status, headers = error.status_code, error.response.headers
    whole = f"{said} (status {status})"
    if status < 400:
        place = cleaned(headers.get("location", ""), key) or "nowhere"
        return HostedError(
            f"{whole}: the endpoint redirects to {place}, which is not followed, because prompts "
            "and key would go there; if that is right, give its URL instead"
        )
    if status in (401, 403):
        known = "the key in OPENAI_API_KEY was refused" if key else "OPENAI_API_KEY is not set"
        return ModelError(f"{whole}; {known}")
    if status in (404, 405, 501):
        return UnsupportedError(
            f"{whole}: the endpoint has no {path} for this model; is the URL complete? It mostly "
            "ends in /v1",
            reason=f"the endpoint has no {path}",
        )
    if status in (408, 429) or status >= 500:
        limited = "set requests_per_minute, or raise n_retries (hosted table)"
        whole = f"{whole}; {limited if status == 429 else 'the endpoint failed, try later'}"
        wait_s = _retry_after(headers.get("retry-after"))
        if wait_s is not None and wait_s > MAX_WAIT_S:
            return HostedError(f"{whole}; it asks to wait {wait_s:,.0f} s")
        return PassingError(whole, wait_s=wait_s)
    return RequestError(whole)


def _retry_after(text: str | None) -> float | None:
    """Return how many seconds an endpoint asks to wait; None if it does not say so in numbers."""
    try:
        wait_s = float(text or "")
    except ValueError:
        return None
    return wait_s if 0 <= wait_s < float("inf") else None


def _said(body: Any) -> str:
    """Return the endpoint's own words, in whichever shape they come."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            inner = inner.get("message") or inner.get("detail") or ""
        try:
            return inner if isinstance(inner, str) else json.dumps(inner)
        except RecursionError:  # read a little higher on the stack than it is written here
            return ""
    return body if isinstance(body, str) else ""
