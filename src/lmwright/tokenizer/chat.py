"""Chat templates, rendered in Jinja's sandbox.

A template comes with the model, so it is code from outside: it gets no access to Python objects,
bounded ranges, and a bounded output.
"""

import json
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmwright.core.errors import ModelError, RequestError

MAX_TEMPLATE_CHARACTERS = 200_000
MAX_RENDERED_CHARACTERS = 20_000_000


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a product or a power cannot eat the memory either."""

    # Jinja computes constant expressions when it compiles, but not those of these operators.
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) <= 2**16 and abs(right) <= 16):
            raise OverflowError("a power of more than 2**16 ** 16")
        for text, n_times in ((left, right), (right, left)):
            is_repeated = operator == "*" and isinstance(text, Sized)
            if is_repeated and len(text) * n_times > MAX_RENDERED_CHARACTERS:
                raise OverflowError(f"a text repeated to more than {MAX_RENDERED_CHARACTERS:,}")
        return super().call_binop(context, operator, left, right)


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
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        # Python's compiler has limits of its own (nested blocks, depth), with errors of its own.
        except Exception as error:
            line = getattr(error, "lineno", "?")
            raise ModelError(f"chat template, line {line}: {error}") from None

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
        except RequestError:
            raise
        # A template may divide, index or recurse as it likes: whatever it raises is its fault.
        except Exception as error:
            raise RequestError(f"the chat template refuses this dialogue: {error}") from None
        return "".join(pieces)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what is not a dialogue, naming the message."""
    if not messages:
        raise RequestError("messages is empty; give at least one user message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise RequestError(f"messages[{i}] = {message!r}: expected a role and a content")
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant", "tool"):
            raise RequestError(
                f"messages[{i}].role = {role!r}: expected system, user, assistant or tool"
            )
        if not isinstance(content, str):
            raise RequestError(f"messages[{i}].content is {type(content).__name__}, expected text")


def _to_json(value: Any, **options: Any) -> str:
    # Jinja's own filter escapes for HTML, which a prompt must not.
    return json.dumps(value, ensure_ascii=False, indent=options.get("indent"))


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
