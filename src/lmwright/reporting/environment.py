"""The templates of the page, the card and the charts; they write numbers by `figures`."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from lmwright.core import figures


@cache
def template(name: str) -> Template:
    """Return a template. In a page all that comes from data is escaped, in a card disarmed."""
    is_page = not name.endswith(".md.jinja")
    environment = Environment(
        loader=PackageLoader("lmwright.reporting"),
        autoescape=is_page,
        finalize=None if is_page else _plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not is_page,
    )
    environment.globals["figures"] = figures
    environment.filters["tight"] = figures.tight
    return environment.get_template(name)


def _plain(value: Any) -> Any:
    """Keep a value inside its line and table cell, and markup in it from being markup."""
    if not isinstance(value, str):
        return value
    # What a macro wrote comes here a second time, and must stay as it is.
    value = re.sub(r"(?<!\\)\|", r"\\|", re.sub(r"[\r\n]+", " ", value))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", value)
