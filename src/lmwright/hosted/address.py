"""How a hosted model is written: openai:MODEL, or openai:MODEL@https://HOST/v1."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from lmwright.core.errors import ModelError

PREFIX = "openai:"
OPENAI_URL = "https://api.openai.com/v1"
# A model's own name may hold an @, so only one with a URL behind it ends the name.
_WITH_URL = re.compile(r"(.+?)@(https?://.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A model of an endpoint, and the URL that /chat/completions and the like are put behind."""

    model: str
    url: str

    @property
    def host(self) -> str:
        """The host's name, in lower case."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_openai(self) -> bool:
        """Whether OpenAI itself answers there, or its models at Azure."""
        return self.host == "api.openai.com" or self.host.endswith(".openai.azure.com")

    @property
    def is_secret(self) -> bool:
        """Whether nobody on the way can read what is sent: TLS, or this machine itself."""
        return self.url.startswith("https://") or _is_loopback(self.host)

    def __str__(self) -> str:
        return f"{PREFIX}{self.model}@{self.url}"


def is_hosted(model: str) -> bool:
    """Tell whether a model's name means a hosted one."""
    return model.startswith(PREFIX)


def parse(name: str) -> Address:
    """Read `openai:MODEL[@URL]`; without a URL it is OpenAI's own."""
    rest = name.removeprefix(PREFIX)
    found = _WITH_URL.fullmatch(rest)
    model, url = (found[1], found[2]) if found else (rest, OPENAI_URL)
    if not is_hosted(name) or not model or model.strip() != model or not model.isprintable():
        raise ModelError(f"{name}: expected openai:MODEL or openai:MODEL@https://HOST/v1")
    if not found and "@" in model:
        raise ModelError(
            f"{name}: what follows the @ is no URL; it starts with https:// (or http://)"
        )
    return Address(model, _checked(name, url))


def _checked(name: str, url: str) -> str:
    # First of all, because an error repeats the name, and a URL stands in results and logs.
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise ModelError(
            f"{PREFIX}...: the URL holds a user or a password; leave them out and put the key "
            "into OPENAI_API_KEY"
        )
    try:
        parts = urlsplit(url)
        is_url = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url, parts = False, SplitResult("", "", "", "", "")
    if not is_url or not url.isascii() or not url.isprintable() or " " in url:
        raise ModelError(f"{name}: {url!r} is no URL; expected something like https://HOST/v1")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ModelError(f"{PREFIX}{parts.hostname}: the URL must end before any ? or #")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
