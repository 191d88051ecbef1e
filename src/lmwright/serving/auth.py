"""Who may ask: the API key, the Host header, and a guard around everything behind them."""

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmwright.serving.errors import ApiError, echo, internal_error

log = logging.getLogger(__name__)


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AccessControl:
    """ASGI middleware: refuses strangers, and turns every error into OpenAI's shape."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        is_public: bool,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        """`open_paths` need no key; unless it is public, only local Host headers will do."""
        self._app = app
        self._open_paths = open_paths
        self._key_digest = None if api_key is None else _digest(api_key.encode())
        self._is_public = is_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        started_s = time.monotonic()
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._check_host(scope)
            self._check_key(scope)
            await self._app(scope, receive, send_on)
        except ApiError as error:
            await _refuse(error, scope, receive, send_on)
        except Exception as error:
            answer = internal_error(error)
            if not status:
                await _refuse(answer, scope, receive, send_on)
        # The path is the client's text; a query string might hold a secret and is left out.
        duration_ms = 1000 * (time.monotonic() - started_s)
        route = f"{scope['method']} {echo(scope['path'])}"
        log.info("%s %s -> %s in %.0f ms", request_id, route, status or "gone", duration_ms)

    def _check_host(self, scope: Scope) -> None:
        """Refuse web pages that point a name of theirs at this machine (DNS rebinding).

        Their Host is that name. What a browser sends for a server on its own machine is localhost
        or an address, which no page can rebind.
        """
        if self._is_public:
            return
        # "[::1]:8000" and "localhost:8000": the port is what follows the last colon, if digits.
        name = re.sub(r":\d+\Z", "", _header(scope, b"host").decode("latin-1").lower())
        in_brackets = re.fullmatch(r"\[(.*:.*)\]", name)
        if not is_local(in_brackets[1] if in_brackets else name):
            reason = (
                f"Host {echo(name)!r} is not this server's name; it answers to localhost and to"
                " this machine's own addresses (127.0.0.1, [::1])"
            )
            raise ApiError(reason, 403, code="invalid_host")

    def _check_key(self, scope: Scope) -> None:
        if self._key_digest is None or scope["path"] in self._open_paths:
            return
        scheme, _, key = _header(scope, b"authorization").partition(b" ")
        # Digests are of one length and the comparison takes the same time wherever they differ.
        is_right = hmac.compare_digest(_digest(key.strip()), self._key_digest)
        if scheme.lower() != b"bearer" or not is_right:
            reason = "missing or wrong API key; send it as 'Authorization: Bearer KEY'"
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(reason, 401, code="invalid_api_key", headers=headers)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _header(scope: Scope, name: bytes) -> bytes:
    """Return a header's value; of one that is there twice, nothing."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else b""


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(error.to_json(), error.status, headers=error.headers)
    await response(scope, receive, send)
