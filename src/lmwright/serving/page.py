"""GET /: a page to chat with the model in a browser; its files lie in static/ as they are."""

from functools import cache
from importlib.resources import files

from lmwright.serving.route import Document, Route, Served
from lmwright.serving.schema import Body

# Only this server's own script and style; nothing is loaded from, sent to, or framed by others.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@cache
def _document(name: str, media_type: str) -> Document:
    content = (files("lmwright.serving") / "static" / name).read_bytes()
    return Document(content, f"{media_type}; charset=utf-8", HEADERS)


def _page(_: Body, __: Served) -> Document:
    return _document("chat.html", "text/html")


def _style(_: Body, __: Served) -> Document:
    return _document("chat.css", "text/css")


def _script(_: Body, __: Served) -> Document:
    return _document("chat.js", "text/javascript")


# The page itself needs no key: it asks for one, and sends it with what it asks of the model.
PAGE = Route("GET", "/", Body, _page, needs_key=False)
STYLE = Route("GET", "/chat.css", Body, _style, needs_key=False)
SCRIPT = Route("GET", "/chat.js", Body, _script, needs_key=False)
