"""The tokenizer that belongs to a model: text, dialogues and token ids."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.chat import ChatTemplate

# Unicode noncharacters: no text has a reason to contain them.
MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
REPLACEMENT = "\ufffd"


class Tokenizer:
    """Encode and decode; a special token written in a user's text is encoded as text."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        eos_ids: Sequence[int] = (),
        chat_template: str | None = None,
    ) -> None:
        """`special_tokens` names the roles, for example {"bos_token": "<s>", "eos_token": "</s>"}.

        `eos_ids` are further tokens that end a reply, besides the eos_token.
        """
        self._backend = backend
        # The library's switch for special tokens is a property of the object, and setting it while
        # another thread encodes raises: one at a time.
        self._lock = threading.Lock()
        backend.encode_special_tokens = True
        self.special_tokens = dict(special_tokens)
        added = backend.get_added_tokens_decoder()
        self._special_ids = {token.content: id_ for id_, token in added.items() if token.special}
        eos = self.special_tokens.get("eos_token")
        ends = [] if eos is None else [self._id(eos)]
        self.eos_ids = tuple(dict.fromkeys([*ends, *eos_ids]))
        self.chat_template = None if chat_template is None else ChatTemplate(chat_template)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added ones included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def bos_id(self) -> int | None:
        """The token that this tokenizer puts before a text by itself, or None."""
        ids = self._backend.encode("", add_special_tokens=True).ids
        bos = self.special_tokens.get("bos_token")
        return ids[0] if ids and bos is not None and ids[0] == self._id(bos) else None

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Return the token ids of a text, with exactly one BOS where the model wants one."""
        with self._lock:
            ids = self._ids(text)
        return [self.bos_id, *ids] if add_bos and self.bos_id is not None else ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of token ids; half a character becomes U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    def token(self, id_: int) -> str:
        """Return the text of one token, special ones included; unknown ids give an empty text."""
        return self._backend.decode([id_], skip_special_tokens=False)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Return a dialogue as token ids, ready for the assistant's turn."""
        text, markers = self._render(messages, add_generation_prompt)
        ids = self._encode_marked(text, markers) if markers else self._encode_template(text)
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids = [self.bos_id, *ids]
        return ids

    def set_default_system(self, text: str) -> None:
        """Let dialogues without a system message begin with this one.

        It becomes part of the chat template, so that every program that opens the saved folder
        does the same.
        """
        assert self.chat_template is not None
        # Jinja reads JSON's escapes of text; non-ASCII characters stand for themselves.
        message = json.dumps({"role": "system", "content": text}, ensure_ascii=False)
        first = "{%- if messages[0]['role'] != 'system' %}{% set messages = [" + message
        self.chat_template = ChatTemplate(
            first + "] + messages %}{% endif -%}\n" + self.chat_template.source
        )

    def stream(self) -> "StreamDecoder":
        """Return a decoder for tokens that arrive one by one."""
        return StreamDecoder(self)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        with replacing(folder / "tokenizer.json") as temporary:
            self._backend.save(str(temporary))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self.special_tokens,
        }
        write_json(folder / "tokenizer_config.json", settings)
        if self.chat_template is not None:
            with replacing(folder / "chat_template.jinja") as temporary:
                temporary.write_text(self.chat_template.source, encoding="utf-8")

    def _ids(self, text: str) -> list[int]:
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except TypeError:  # all that the library says of a text that UTF-8 cannot write
            raise RequestError(
                "a text holds half a surrogate pair, which is no character; remove it"
            ) from None

    def _id(self, token: str) -> int:
        id_ = self._backend.token_to_id(token)
        if id_ is None:
            raise ModelError(f"tokenizer: special token {token!r} is not in the vocabulary")
        return id_

    def _render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool
    ) -> tuple[str, str]:
        """Return the text and the marker that splits special tokens found in the contents."""
        if self.chat_template is None:
            raise RequestError("this model has no chat template; give it plain text instead")
        check_messages(messages)
        contents = "".join(message["content"] for message in messages)
        marker = ""
        if any(token in contents for token in self._special_ids):
            marker = next((m for m in MARKERS if m not in contents), "")
            if not marker:
                raise RequestError("a message contains every Unicode noncharacter; remove them")
            messages = [
                {**message, "content": self._special_start.sub(marker, message["content"])}
                for message in messages
            ]
        text = self.chat_template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self.special_tokens,
        )
        return text, marker

    @cached_property
    def _special(self) -> str:
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        return f"(?:{'|'.join(map(re.escape, longest_first))})"

    @cached_property
    def _special_start(self) -> re.Pattern[str]:
        # Empty matches, so that tokens that overlap are all found.
        return re.compile(f"(?={self._special})")

    def _encode_template(self, text: str) -> list[int]:
        with self._lock:
            self._backend.encode_special_tokens = False
            try:
                return self._ids(text)
            finally:
                self._backend.encode_special_tokens = True

    def _encode_marked(self, text: str, marker: str) -> list[int]:
        """Encode a rendered dialogue in which only unmarked special tokens are special."""
        ids, end = [], 0
        for match in re.finditer(f"{marker}?{self._special}", text):
            if match[0].startswith(marker):
                continue
            ids += self.encode(text[end : match.start()].replace(marker, ""), add_bos=False)
            ids.append(self._special_ids[match[0]])
            end = match.end()
        return ids + self.encode(text[end:].replace(marker, ""), add_bos=False)


class StreamDecoder:
    """Turns tokens into text as they come, holding back what may be half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # The text of the tokens [_start:] is looked at; its first _n_told characters were given
        # out. The tokens [_start:_whole] are such whose text was complete: this overlap keeps the
        # spaces that some tokenizers drop at the beginning of a text.
        self._start = self._whole = self._n_told = 0
        # How many tokens in a row have left the text open.
        self._n_open = 0

    def push(self, id_: int) -> str:
        """Take one token and return the text that is certain by now, often one token's."""
        self._ids.append(id_)
        return self._advance(is_end=False)

    def finish(self) -> str:
        """Return what was held back; an unfinished character becomes U+FFFD."""
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool) -> str:
        text = self._tokenizer.decode(self._ids[self._start :])
        n_certain = len(text) if is_end else self._n_certain(text)
        if n_certain <= self._n_told:
            return ""
        piece = text[self._n_told : n_certain]
        self._n_told = n_certain
        if n_certain == len(text):
            self._start, self._whole = self._whole, len(self._ids)
            self._n_told = len(self._tokenizer.decode(self._ids[self._start :]))
        return piece

    def _n_certain(self, text: str) -> int:
        """Count the characters that no further token can change."""
        self._n_open = self._n_open + 1 if text.endswith(REPLACEMENT) else 0
        if not self._n_open:
            return len(text)
        # Half a character is one U+FFFD to byte-level tokenizers, but one a byte to those that
        # fall back to bytes. With four open tokens these hold no unfinished character any more.
        if self._n_open < 4:
            return len(text.rstrip(REPLACEMENT))
        return len(text) - 1


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
