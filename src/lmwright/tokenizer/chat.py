"""Chat templates, rendered in Jinja's sandbox.

A template comes with the model, so it is code from outside: it gets no access to Python objects,
bounded ranges, and a bounded output.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmwright.core.errors import ModelError, RequestError

MAX_TEMPLATE_CHARACTERS = 200_000
MAX_RENDERED_CHARACTERS = 20_000_000


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ModelError(
                f"chat template of {len(source):,} characters; at most "
                f"{MAX_TEMPLATE_CHARACTERS:,} are read"
            )
        self.source = source
        # The settings and additions that Hugging Face's templates count on.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"chat template, line {_line(error)}: {error}") from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        special_tokens: Mapping[str, str],
    ) -> str:
        """Return the dialogue as the text that the model was trained on."""
        pieces, n_characters = [], 0
        try:
            for piece in self._template.generate(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **special_tokens,
            ):
                n_characters += len(piece)
                if n_characters > MAX_RENDERED_CHARACTERS:
                    raise RequestError(
                        f"the chat template makes more than {MAX_RENDERED_CHARACTERS:,} characters"
                        " of this dialogue; shorten it"
                    )
                pieces.append(piece)
        # A template may divide, index or overflow as it likes: whatever it raises is its fault.
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"the chat template refuses this dialogue: {error}") from None
        return "".join(pieces)


def _to_json(value: Any, **options: Any) -> str:
    # Jinja's own filter escapes for HTML, which a prompt must not.
    return json.dumps(value, ensure_ascii=False, indent=options.get("indent"))


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _line(error: TemplateError) -> str:
    return str(getattr(error, "lineno", "?"))
