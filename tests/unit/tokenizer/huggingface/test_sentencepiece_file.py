"""A file from outside is read by our own parser: it must end in a message, never in a crash."""

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers

from lmwright.core.errors import ModelError
from lmwright.tokenizer.huggingface.sentencepiece_file import (
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    fields,
    parse,
    read_sentencepiece,
)

PIECES = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("\u2581a", -1.5, NORMAL)]


def number(value: int) -> bytes:
    groups = []
    while value >= 0x80:
        groups.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes([*groups, value])


def field(n: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return number(n << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(n << 3 | 2) + number(len(data)) + data


def piece(text: str, score: float, type_: int) -> bytes:
    inner = field(1, text) + number(2 << 3 | 5) + struct.pack("<f", score) + field(3, type_)
    return field(1, inner)


def model(pieces=PIECES, trainer: bytes = b"", normalizer: bytes = b"", rest: bytes = b"") -> bytes:
    listed = b"".join(piece(*values) for values in pieces)
    return listed + field(2, trainer) + field(3, normalizer) + rest


def units(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def table(*values: int, replacements: bytes = b"x\0yz\0") -> bytes:
    array = units(*values)
    return struct.pack("<I", len(array)) + array + replacements


# 256 units: the root, then leaves that point at the second replacement.
SOUND = table(0, *[1 << 31 | 2] * 255)


def test_what_a_file_says_is_read():
    read = parse(
        model(
            trainer=field(3, 2) + field(35, 1) + field(22, 0) + field(40, 0) + field(7, "ignored"),
            normalizer=field(1, "nfkc") + field(3, 0) + field(4, 0) + field(2, SOUND),
            rest=field(4, b"\x0a\x00"),
        )
    )
    assert [(p.text, p.score, p.type) for p in read.pieces] == PIECES
    assert (read.algorithm, read.unk_id, read.charsmap) == (2, 0, SOUND)
    assert read.has_byte_fallback
    spaces = (read.splits_at_spaces, read.adds_dummy_prefix, read.removes_extra_spaces)
    assert spaces == (False, False, False)
    normalizers.Precompiled(read.charsmap).normalize_str("abc")  # and does not crash


def test_what_a_file_leaves_out_has_its_defaults():
    read = parse(field(1, field(1, "<none>")) + model())
    assert (read.pieces[0].score, read.pieces[0].type) == (0.0, NORMAL)
    assert (read.algorithm, read.unk_id, read.charsmap) == (1, 0, b"")
    assert read.splits_at_spaces
    assert read.adds_dummy_prefix
    assert read.removes_extra_spaces
    assert not read.has_byte_fallback


BROKEN_SCORE = field(1, field(1, "a") + field(2, b"\0\0"))
FAULTS = {
    "text": (b"just a text", "no SentencePiece file|reaches over the end"),
    "JSON": (b'{"model": 1}', "no SentencePiece file|reaches over the end"),
    "empty": (b"", "unk_id = 0 of 0 pieces"),
    "piece is a number": (field(1, 3), "no SentencePiece file"),
    "algorithm is a text": (model(trainer=field(3, "bpe")), "no SentencePiece file"),
    "not UTF-8": (field(1, field(1, b"\xff")), "a piece cannot be read"),
    "half a score": (BROKEN_SCORE, "a piece cannot be read"),
    "score is no number": (model([("a", float("nan"), 1)]), "has the score nan"),
    "piece twice": (model([*PIECES, ("<s>", 0.0, 1)]), "a piece occurs twice"),
    "unused piece": (model([*PIECES, ("b", 0.0, UNUSED)]), "'b' is marked as unused"),
    "words": (model(trainer=field(3, 3)), "its algorithm is word"),
    "no unknown": (model(trainer=field(40, (1 << 64) - 1)), "unk_id = 18446744073709551615"),
    "spaces behind": (model(trainer=field(24, 1)), "spaces stand behind words"),
    "plain spaces": (model(normalizer=field(5, 0)), "spaces as an underscore"),
    "denormalizer": (model(rest=field(5, field(2, b"x"))), "rewrites decoded text"),
    "endless number": (b"\xff" * 12, "a number has no end"),
    "table cut short": (model(normalizer=field(2, SOUND[:40])), "table of replacements"),
    "table without end": (model(normalizer=field(2, SOUND[:-1])), "table of replacements"),
    "table of 3 bytes": (model(normalizer=field(2, b"\0\0\0")), "table of replacements"),
    "leads outside": (model(normalizer=field(2, table(*[1 << 20] * 256))), "table of replace"),
    "small table": (model(normalizer=field(2, table(0, 1 << 31))), "table of replacements"),
    "value outside": (
        model(normalizer=field(2, table(0, *[1 << 31 | 9] * 255))),
        "table of replacements",
    ),
    "value inside a replacement": (
        model(normalizer=field(2, table(0, *[1 << 31 | 3] * 255))),
        "table of replacements",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_or_unknown_file_is_refused(name):
    data, message = FAULTS[name]
    with pytest.raises(ModelError, match=message):
        parse(data)


@given(n_bytes=st.integers(0, len(model(normalizer=field(2, SOUND))) - 1))
def test_a_file_cut_short_is_refused_or_whole(n_bytes):
    whole = model(normalizer=field(2, SOUND))
    try:
        parse(whole[:n_bytes])
    except ModelError:
        return
    # Cut between two fields: what is there is whole.
    assert sum(len(field(n, v)) for n, v in fields(whole[:n_bytes])) == n_bytes


@given(data=st.binary(max_size=60))
# A piece without a text: in a field of numbers, and as it should be.
@example(data=b"\t" + bytes(8))
@example(data=field(1, b""))
def test_any_bytes_end_in_a_message_or_are_pieces_with_a_text(data):
    with suppress(ModelError):
        assert all(each.text for each in parse(data).pieces)


def test_the_message_names_the_file_and_a_huge_one_is_not_read(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(b"text")
    with pytest.raises(ModelError, match=r"spiece\.model: "):
        read_sentencepiece(path, UNIGRAM)
    with path.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(ModelError, match="68,157,440 bytes; at most 67,108,864 are read"):
        read_sentencepiece(path, UNIGRAM)
