"""Text of a reply while it comes in: token by token, without half characters."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what decoding makes of bytes that are no character (yet)


class StreamDecoder:
    """Turns tokens into text as they come, holding back what may be half a character."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
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
        text = self._decode(self._ids[self._start :])
        n_certain = len(text) if is_end else self._n_certain(text)
        if n_certain <= self._n_told:
            return ""
        piece = text[self._n_told : n_certain]
        self._n_told = n_certain
        if n_certain == len(text):
            self._start, self._whole = self._whole, len(self._ids)
            self._n_told = len(self._decode(self._ids[self._start :]))
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
