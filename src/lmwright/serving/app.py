"""The HTTP server: OpenAI's API around a language model, on this machine unless a key is set."""

import contextlib
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lmwright.core.errors import InterruptError, RequestError
from lmwright.core.extras import need
from lmwright.lm import LanguageModel, LocalModel
from lmwright.serving import limits
from lmwright.serving.chat import CHAT
from lmwright.serving.completions import COMPLETIONS
from lmwright.serving.embeddings import EMBEDDINGS
from lmwright.serving.models import HEALTH, MODEL, MODELS
from lmwright.serving.page import PAGE, SCRIPT, STYLE
from lmwright.serving.route import Route

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

ROUTES: tuple[Route[Any], ...] = (
    PAGE, STYLE, SCRIPT, HEALTH, MODELS, MODEL, CHAT, COMPLETIONS, EMBEDDINGS,
)  # fmt: skip

LIBRARIES = ("fastapi", "uvicorn")
# The model's thread lets go of Python's lock at each of a step's hundreds of operations. While
# large bodies are read, it would get it back only after 5 ms each time, Python's default.
SWITCH_INTERVAL_S = 0.0002


def create_app(
    model: LanguageModel,
    *,
    api_key: str | None = None,
    is_public: bool = False,
    max_waiting: int = limits.MAX_WAITING,
    routes: Sequence[Route[Any]] = ROUTES,
) -> "FastAPI":
    """Return the ASGI application; unless it is public, only local Host headers are answered."""
    need("serving", *LIBRARIES)
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException

    from lmwright.serving.auth import AccessControl
    from lmwright.serving.server import Server, no_such_route

    _check_key(api_key, is_public=is_public)
    if not isinstance(model, LocalModel):
        raise RequestError(
            f"{model.name}: runs elsewhere; only a model whose weights are here can be served"
        )
    server = Server(model, max_waiting=max_waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        server.close()

    # No pages of FastAPI's: they load scripts from elsewhere. No CORS: only our own page asks.
    app = FastAPI(
        title="lmwright",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for route in routes:
        app.add_api_route(route.path, partial(server.answer, route), methods=[route.method])
    app.add_exception_handler(HTTPException, no_such_route)
    app.add_middleware(
        AccessControl,
        api_key=api_key,
        is_public=is_public,
        open_paths=frozenset(route.path for route in routes if not route.needs_key),
    )
    return app


def serve(
    model: LanguageModel,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then let answers in progress finish; port 0 takes a free one.

    A second signal gives them up. Anything but an address of this machine needs an `api_key`.
    """
    need("serving", *LIBRARIES)
    import uvicorn

    from lmwright.serving.auth import is_local
    from lmwright.serving.transport import Connection, Listener, n_connections

    app = create_app(model, api_key=api_key, is_public=not is_local(host))
    with listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/v1"
        page = url.removesuffix("v1")
        log.info("serving %s at %s, and a page to chat at %s (Ctrl-C ends)", model.name, url, page)
        n_open = n_connections()
        # uvicorn calls it as it would call the class.
        protocol: Any = partial(Connection, max_connections=n_open)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # So many are accepted before the first of them is looked at.
            backlog=max(1, n_open // 2),
            timeout_keep_alive=int(limits.HEAD_TIMEOUT_S),
        )
        server = Listener(config)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # uvicorn passes the signal on when all is done; after Ctrl-C that is how one ends here.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        if server.is_hurried:
            raise InterruptError("the server was stopped before it had finished all answers")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, or say why that cannot be."""
    if not 0 <= port < 65536:
        raise RequestError(f"port {port}: expected 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=limits.MAX_CONNECTIONS)
    except OSError as error:
        raise RequestError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "try another port, or 0 for any free one"
        ) from None


def _check_key(api_key: str | None, *, is_public: bool) -> None:
    if api_key is None and is_public:
        raise RequestError(
            "refusing to serve on a public address without an API key: anybody could use the"
            " model; set a key, or bind to 127.0.0.1"
        )
    if api_key is not None and not re.fullmatch("[!-~]+", api_key):
        raise RequestError("the API key must be printable ASCII without spaces, and not empty")
