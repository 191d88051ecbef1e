"""The reader of SentencePiece's files (spiece.model, tokenizer.model, source.spm).

Such a file is one protocol buffer, of which a tokenizer needs a dozen fields: reading these takes
less code than a library would take to install. Lengths are held against the file's size first.
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lmwright.core.errors import ModelError

MAX_BYTES = 64 << 20

UNIGRAM, BPE = 1, 2
ALGORITHMS = {UNIGRAM: "unigram", BPE: "bpe", 3: "word", 4: "char"}
# The types of a piece.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Protocol buffers' ways to write a field.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Fields = dict[int, int | bytes]
T = TypeVar("T", int, bytes)


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """A token, how likely it is, and what it is for."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece file says about cutting text into pieces."""

    pieces: tuple[ScoredPiece, ...]
    algorithm: int
    unk_id: int
    has_byte_fallback: bool
    splits_at_spaces: bool
    # How text is normalised first: a compiled table of replacements, then the spaces.
    charsmap: bytes
    adds_dummy_prefix: bool
    removes_extra_spaces: bool


def read_sentencepiece(path: Path, algorithm: int) -> SentencePieceModel:
    """Read a SentencePiece file of this algorithm; one that is damaged or not known is refused."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(f"{path}: {size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        model = parse(path.read_bytes())
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    if model.algorithm != algorithm:
        kind = ALGORITHMS[algorithm]
        raise ModelError(f"{path}: expected a {kind} model for this kind of tokenizer")
    return model


def parse(data: bytes) -> SentencePieceModel:
    """Read the bytes of a SentencePiece file."""
    pieces: list[ScoredPiece] = []
    settings: dict[int, Fields] = {2: {}, 3: {}, 5: {}}
    for number, value in fields(data):
        if number == 1:
            pieces.append(_piece(dict(fields(value))))
        elif number in settings:
            settings[number] = dict(fields(value))
    trainer, normalizer, denormalizer = settings.values()
    model = SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=_value(trainer, 3, UNIGRAM),
        unk_id=_value(trainer, 40, 0),
        has_byte_fallback=bool(_value(trainer, 35, 0)),
        splits_at_spaces=bool(_value(trainer, 22, 1)),
        charsmap=_value(normalizer, 2, b""),
        adds_dummy_prefix=bool(_value(normalizer, 3, 1)),
        removes_extra_spaces=bool(_value(normalizer, 4, 1)),
    )
    _check(model)
    refused = {
        "it rewrites decoded text (denormalizer_spec)": denormalizer.get(2),
        "its spaces stand behind words (treat_whitespace_as_suffix)": _value(trainer, 24, 0),
        "it does not write spaces as an underscore (escape_whitespaces)": not _value(
            normalizer, 5, 1
        ),
    }
    for what, is_asked in refused.items():
        if is_asked:
            raise ModelError(f"{what}, which is not known here")
    return model


def fields(data: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield each field's number and value: an int, or bytes."""
    if isinstance(data, int):
        raise ModelError("this is no SentencePiece file")
    at = 0
    while at < len(data):
        # A quarter of a million pieces make a million small numbers: no call for those.
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ModelError("this is no SentencePiece file")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == BYTES:
            is_small = at < len(data) and data[at] < 0x80
            length, at = (data[at], at + 1) if is_small else _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ModelError("this is no SentencePiece file")
        if length > len(data) - at:
            raise ModelError(f"a field of {length:,} bytes reaches over the end; file cut short?")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelError("a number has no end; the file is damaged or no SentencePiece file")


def _piece(values: Fields) -> ScoredPiece:
    try:
        text = _value(values, 1, b"").decode()
        score = struct.unpack("<f", _value(values, 2, b"\0\0\0\0"))[0]
    except (UnicodeDecodeError, struct.error) as error:
        raise ModelError(f"a piece cannot be read: {error}") from None
    if not text or not math.isfinite(score):
        raise ModelError(f"piece {text!r} has the score {score}")
    return ScoredPiece(text, score, _value(values, 3, NORMAL))


def _value(values: Fields, number: int, default: T) -> T:
    """Return a field of the default's type."""
    value = values.get(number, default)
    if not isinstance(value, type(default)):
        raise ModelError("this is no SentencePiece file")
    return value


def _check(model: SentencePieceModel) -> None:
    if model.algorithm not in (UNIGRAM, BPE):
        name = ALGORITHMS.get(model.algorithm, model.algorithm)
        raise ModelError(f"its algorithm is {name}: only unigram and bpe are known")
    if not model.unk_id < len(model.pieces):
        raise ModelError(f"unk_id = {model.unk_id} of {len(model.pieces)} pieces")
    if len({piece.text for piece in model.pieces}) != len(model.pieces):
        raise ModelError("a piece occurs twice; download the file again")
    for piece in model.pieces:
        if piece.type == UNUSED:
            raise ModelError(f"piece {piece.text!r} is marked as unused, which is not known here")
    _check_charsmap(model.charsmap)


def _check_charsmap(charsmap: bytes) -> None:
    """Refuse a table of replacements that would lead the library out of its bounds: it crashes.

    The table is a Darts-clone double array of 32-bit units, preceded by its size in bytes and
    followed by the replacements, each ended by a zero.
    """
    if not charsmap:
        return
    n_bytes = int.from_bytes(charsmap[:4], "little")
    replacements = charsmap[4 + n_bytes :]
    if n_bytes % 4 or n_bytes < 4 or not replacements.endswith(b"\0"):
        raise ModelError("its table of replacements (precompiled_charsmap) is damaged")
    units = np.frombuffer(charsmap[4 : 4 + n_bytes], dtype="<u4")
    is_value = units >> 31 == 1
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    reached = (np.arange(len(units), dtype=np.uint32) ^ offsets) | 255
    values = units[is_value] & 0x7FFFFFFF
    # Each replacement starts at the front or behind the zero of the one before.
    starts = np.flatnonzero(np.frombuffer(b"\0" + replacements[:-1], dtype=np.uint8) == 0)
    if (reached[~is_value] >= len(units)).any() or not np.isin(values, starts).all():
        raise ModelError("its table of replacements (precompiled_charsmap) is damaged")
