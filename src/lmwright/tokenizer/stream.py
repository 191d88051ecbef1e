"""Text of a reply while it comes in: token by token, without half characters."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what decoding makes of bytes that are no character (yet)


class StreamDecoder:
    """Turns tokens into text as they come, holding back what may be half a character."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        byte_of: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        """`byte_of` tells the byte that a token stands for where a tokenizer falls back to them."""
        self._decode, self._byte_of = decode, byte_of
        self._ids: list[int] = []
        # The text of the tokens [_start:] is looked at; its first _n_told characters were given
        # out. The tokens [_start:_whole] are such whose text was complete: this overlap keeps the
        # spaces that some tokenizers drop at the beginning of a text.
        self._start = self._whole = self._n_told = 0

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
        if not text.endswith(REPLACEMENT):
            return len(text)
        if self._byte_of(self._ids[-1]) is None:
            # Half a character is one U+FFFD to byte-level tokenizers, and so is a whole one.
            return len(text) - 1
        # Where a tokenizer falls back to bytes, one byte too many makes a U+FFFD of each before
        # it: what they are without it is certain.
        n_open = self._n_open()
        return len(self._decode(self._ids[self._start : -n_open])) if n_open else len(text)

    def _n_open(self) -> int:
        """Return how many bytes at the end are the beginning of a character, in UTF-8."""
        for n_bytes, id_ in enumerate(reversed(self._ids[-3:]), 1):
            byte = self._byte_of(id_)
            if byte is None or byte < 0x80:
                return 0
            if byte >= 0xC0:  # the first of 2, 3 or 4
                n_wanted = 2 + (byte >= 0xE0) + (byte >= 0xF0)
                return n_bytes if n_bytes < n_wanted else 0
        return 0
