"""Chat templates, rendered in Jinja's sandbox.

A template comes with the model, so it is code from outside: it gets no access to Python objects,
and a bounded number of steps and characters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.meter import MAX_CHARACTERS
from lmwright.tokenizer.sandbox import Sandbox

MAX_TEMPLATE_CHARACTERS = 200_000
# Of what a template itself says of its refusal.
MAX_REASON = 500


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ModelError(
                f"chat template of {len(source):,} characters; at most "
                f"{MAX_TEMPLATE_CHARACTERS:,} are read"
            )
        self.source = source
        self._sandbox = Sandbox()
        try:
            # What is constant is computed already now.
            with self._sandbox.metered():
                self._template = self._sandbox.from_string(source)
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
        # As transformers names them where there are none.
        given = {"tools": None, "documents": None, **special_tokens}
        given["messages"] = [dict(message) for message in messages]
        given["add_generation_prompt"] = add_generation_prompt
        try:
            with self._sandbox.metered():
                for piece in self._template.generate(given):
                    n_characters += len(piece)
                    if n_characters > MAX_CHARACTERS:
                        raise RequestError(
                            f"the chat template makes more than {MAX_CHARACTERS:,} characters of "
                            "this dialogue; shorten it"
                        )
                    pieces.append(piece)
        except RequestError:
            raise
        # A template may divide, index or recurse as it likes: whatever it raises is its fault.
        except Exception as error:
            reason = str(error)[:MAX_REASON]
            raise RequestError(f"the chat template refuses this dialogue: {reason}") from None
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
