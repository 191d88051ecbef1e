"""The tokenizer that belongs to a model: text, dialogues and token ids."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.chat import ChatTemplate, check_messages
from lmwright.tokenizer.literal import keep_literal
from lmwright.tokenizer.spec import TokenizerSpec, read_spec
from lmwright.tokenizer.stream import StreamDecoder
from lmwright.tokenizer.translation import Translation

# What a special token may be for; a tokenizer has some of them.
ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "pad", "cls", "sep", "mask"))
# From so many characters on, texts are encoded by a method of the library that lets other threads
# run meanwhile; it may take seconds.
LONG_TEXT = 10_000
# Unicode noncharacters: no text has a reason to contain them.
MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True)
class Encoding:
    """One or two texts between the special tokens that an encoder was trained to see there."""

    ids: list[int]
    # Which of the two texts a token is of, 0 or 1: BERT's token type ids.
    segments: list[int]
    # The characters of its text that a token stands for; none for what was put around a text, and
    # for the texts of translation models, which are cut elsewhere.
    spans: list[tuple[int, int]] = field(default_factory=list, compare=False)


class Tokenizer:
    """Encode and decode; a special token written in a user's text is encoded as text."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        eos_ids: Sequence[int] = (),
        chat_template: str | None = None,
        translation: Translation | None = None,
        settings: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """`special_tokens` names the roles, for example {"bos_token": "<s>", "eos_token": "</s>"}.

        `eos_ids` are further tokens that end a reply, besides the eos_token. A saved folder gets
        `settings` in its tokenizer_config.json, and `files` in place of a tokenizer.json.
        """
        self._backend = backend
        # The library's switch for special tokens is a property of the object, and setting it while
        # another thread encodes raises: one at a time.
        self._lock = threading.RLock()
        backend.encode_special_tokens = True
        self._saved_pre_tokenizer = keep_literal(backend)
        self.special_tokens = dict(special_tokens)
        self.translation = translation
        self._settings = dict(settings or {})
        self._files = dict(files or {})
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

    @property
    def n_ids(self) -> int:
        """One more than the highest token id; there may be ids without a token below."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    def spec(self) -> TokenizerSpec:
        """Return what the tokenizer is made of, as data."""
        with self._as_saved() as backend:
            return read_spec(backend)

    @cached_property
    def bos_id(self) -> int | None:
        """The token that this tokenizer puts before a text by itself, or None."""
        ids = self._backend.encode("", add_special_tokens=True).ids
        bos = self.special_tokens.get("bos_token")
        return ids[0] if ids and bos is not None and ids[0] == self._id(bos) else None

    def role_id(self, role: str) -> int | None:
        """Return the token of a role, "cls" in front of a text or "mask", None if there is none."""
        token = self.special_tokens.get(f"{role}_token")
        return None if token is None else self._id(token)

    def encode(self, text: str, *, add_bos: bool = True) -> list[int]:
        """Return the token ids of a text, with exactly one BOS where the model wants one."""
        ids = self._ids(text)
        return [self.bos_id, *ids] if add_bos and self.bos_id is not None else ids

    def encode_input(
        self,
        text: str,
        pair: str | None = None,
        *,
        source_lang: str | None = None,
        target_lang: str | None = None,
        reads_masks: bool = False,
    ) -> Encoding:
        """Return what an encoder reads for a text or two; nothing is ever cut off.

        The languages of a translation model are those of its folder unless named here; Marian's
        is also read from a leading ">>deu<<". With `reads_masks` the mask token counts as such
        where it is written in the text.
        """
        if self.translation is not None:
            if pair is not None or reads_masks:
                raise RequestError("a translation model reads one text, without masks")
            translation = self.translation.between(source_lang, target_lang)
            marker, text = translation.split_marker(text)
            eos_id = self._id(self.special_tokens["eos_token"])
            ids = translation.whole([*marker, *self._ids(text)], eos_id, side="source")
            return Encoding(ids, [0] * len(ids))
        if source_lang is not None or target_lang is not None:
            raise RequestError("source_lang, target_lang: this model has no languages to choose")
        if reads_masks:
            self._check_masks(text + (pair or ""))
        encoding = self._encoding(text, pair, has_specials=True, reads_specials=reads_masks)
        return Encoding(encoding.ids, encoding.type_ids, encoding.offsets)

    def encode_target(self, text: str, *, target_lang: str | None = None) -> list[int]:
        """Return the ids that the decoder of an encoder-decoder is to write for a text."""
        if self.translation is None:
            return self.encode_input(text, target_lang=target_lang).ids
        translation = self.translation.between(None, target_lang)
        ids = self._ids(text, translation.target_pieces)
        return translation.whole(ids, self._id(self.special_tokens["eos_token"]), side="target")

    def language_id(self, code: str) -> int:
        """Return the token of a language of a translation model: "de_DE", Marian's "deu"."""
        if self.translation is None:
            raise RequestError(f"language {code!r}: this model has no languages to choose")
        return self.translation.language_id(code)

    def set_languages(self, *, source: str | None = None, target: str | None = None) -> None:
        """Let a translation model read and write these languages; a saved folder says so, too."""
        if self.translation is None:
            raise RequestError("this model has no languages to choose")
        self.translation = self.translation.between(source, target)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of token ids; half a character becomes U+FFFD."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    def token(self, id_: int) -> str:
        """Return the text of one token, special ones included; unknown ids give an empty text."""
        return self._backend.decode([id_], skip_special_tokens=False)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Return a dialogue as token ids, ready for the assistant's turn.

        A BOS is there if the template writes it: the model was trained on what the template makes.
        """
        text, markers = self._render(messages, add_generation_prompt)
        if markers:
            return self._encode_marked(text, markers)
        return self._encoding(text, None, has_specials=False, reads_specials=True).ids

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

    def stream(self) -> StreamDecoder:
        """Return a decoder for tokens that arrive one by one."""
        return StreamDecoder(self.decode, self._byte_of.get)

    @cached_property
    def _byte_of(self) -> dict[int, int]:
        """The byte of each token that stands for one, "<0x0A>", where a decoder reads them so."""
        pieces = {byte: self._backend.token_to_id(_piece(byte)) for byte in range(256)}
        found = {id_: byte for byte, id_ in pieces.items() if id_ is not None}
        return {id_: byte for id_, byte in found.items() if self.decode([id_]) != _piece(byte)}

    def save(self, folder: Path) -> None:
        """Write tokenizer.json (Marian: its own files), its settings and the chat template."""
        if self._files:
            for name, content in self._files.items():
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
        else:
            # Not by the library, which says of a full disk no more than that there was an error.
            with self._as_saved() as backend, replacing(folder / "tokenizer.json") as temporary:
                temporary.write_text(backend.to_str(pretty=True), encoding="utf-8")
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._settings,
            **self.special_tokens,
        }
        if self.translation is not None:
            settings |= self.translation.settings()
        write_json(folder / "tokenizer_config.json", settings)
        if self.chat_template is not None:
            with replacing(folder / "chat_template.jinja") as temporary:
                temporary.write_text(self.chat_template.source, encoding="utf-8")

    @contextmanager
    def _as_saved(self) -> Iterator[tokenizers.Tokenizer]:
        """Give the library's object without what `keep_literal` did to it."""
        with self._lock, _set(self._backend, "pre_tokenizer", self._saved_pre_tokenizer):
            yield self._backend

    def _ids(self, text: str, pieces: Callable[[str], list[str]] | None = None) -> list[int]:
        """Return the ids of a text without anything around it."""
        if pieces is None and self.translation is not None:
            pieces = self.translation.source_pieces
        if pieces is None:
            return self._encoding(text, None, has_specials=False).ids
        unknown = self._id(self.special_tokens["unk_token"])
        with _whole_characters():
            ids = [self._backend.token_to_id(piece) for piece in pieces(text)]
        return [unknown if id_ is None else id_ for id_ in ids]

    def _encoding(
        self, text: str, pair: str | None, *, has_specials: bool, reads_specials: bool = False
    ) -> tokenizers.Encoding:
        """Encode, with the model's special tokens around; those in the text count only if asked."""
        is_asked = _set(self._backend, "encode_special_tokens", False)
        with self._lock, _whole_characters(), is_asked if reads_specials else nullcontext():
            if len(text) < LONG_TEXT:
                return self._backend.encode(text, pair, add_special_tokens=has_specials)
            texts = [text if pair is None else (text, pair)]
            return self._backend.encode_batch(texts, add_special_tokens=has_specials)[0]

    def _check_masks(self, text: str) -> None:
        """Refuse other special tokens, which would count as such, too."""
        mask = self.special_tokens.get("mask_token")
        if mask is None:
            raise RequestError("this model has no mask token")
        others = [token for token in self._special_ids if token != mask and token in text]
        if others:
            raise RequestError(f"a text with masks holds another special token: {others[0]!r}")

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
                # Empty matches, so that tokens that overlap are all found.
                {**message, "content": re.sub(f"(?={self._special})", marker, message["content"])}
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

    def _encode_marked(self, text: str, marker: str) -> list[int]:
        """Encode a rendered dialogue in which only unmarked special tokens are special."""
        ids, end = [], 0
        for match in re.finditer(f"{marker}?{self._special}", text):
            if match[0].startswith(marker):
                continue
            ids += self._part_ids(text[end : match.start()].replace(marker, ""), is_first=not end)
            ids.append(self._special_ids[match[0]])
            end = match.end()
        return ids + self._part_ids(text[end:].replace(marker, ""), is_first=not end)

    def _part_ids(self, text: str, *, is_first: bool) -> list[int]:
        """Encode what stands between special tokens of a dialogue."""
        spaces = self._saved_pre_tokenizer
        is_metaspace = isinstance(spaces, pre_tokenizers.Metaspace)
        if is_first or not is_metaspace or spaces.prepend_scheme != "first":
            return self._ids(text)
        # Only the first part gets a space in front, and the library would take each for that.
        with self._lock, _set(spaces, "prepend_scheme", "never"):
            return self._ids(text)


def _piece(byte: int) -> str:
    return f"<0x{byte:02X}>"


@contextmanager
def _set(part: Any, name: str, value: Any) -> Iterator[None]:
    """Change a part of the library's object for a while."""
    before = getattr(part, name)
    setattr(part, name, value)
    try:
        yield
    finally:
        setattr(part, name, before)


@contextmanager
def _whole_characters() -> Iterator[None]:
    try:
        yield
    except TypeError:  # all that the library says of a text that UTF-8 cannot write
        raise RequestError(
            "a text holds half a surrogate pair, which is no character; remove it"
        ) from None
