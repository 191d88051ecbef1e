"""A GGUF file comes from a stranger: it is read right, or refused with a message, and quickly."""

import os
import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmwright.core.errors import ModelError
from lmwright.formats import gguf as module
from lmwright.formats.gguf import open_gguf, unpermute

U8, U32, F32_VALUE, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
F32, Q8_0, I8 = 0, 8, 24


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, type_id: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type_id) + value


def tensor(name: str, *, dims=(8,), type_id=F32, offset=0) -> bytes:
    layout = f"<I{len(dims)}QIQ"
    return text(name) + struct.pack(layout, len(dims), *dims, type_id, offset)


def build(
    *parts: bytes, n_tensors=0, n_entries=0, version=3, magic=b"GGUF", data=b"", align=32
) -> bytes:
    """Lay out a file by hand, so that every field can lie."""
    head = magic + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(parts)
    return head + bytes(-len(head) % align) + data if data else head


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A file as the library writes it, with every kind of value and several types of tensor."""
    path = tmp_path_factory.mktemp("gguf") / "real.gguf"
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_string("tokenizer.chat_template", "{{ messages }} \u00fc")
    writer.add_uint64("some.large", 2**63)
    writer.add_int8("some.negative", -5)
    writer.add_array("tokenizer.ggml.tokens", ["a", "\u2581b", "", "\U0001f642"])
    writer.add_array("tokenizer.ggml.token_type", [1, 1, 3, 4])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, -2.0, -3.0])
    writer.add_array("some.flags", [True, False])
    weights = {
        "token_embd.weight": (rng.normal(size=(6, 64)).astype(np.float32), "Q8_0"),
        "blk.0.attn_q.weight": (rng.normal(size=(4, 64)).astype(np.float32), "Q4_1"),
        "blk.0.attn_norm.weight": (rng.normal(size=(64,)).astype(np.float32), "F32"),
        "blk.0.three": (rng.normal(size=(2, 3, 32)).astype(np.float32), "F16"),
    }
    for name, (values, type_name) in weights.items():
        kind = gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_weights_are_what_the_library_reads(real):
    reader = gguf.GGUFReader(real)
    with open_gguf(real) as file:
        expected = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        assert file.metadata == expected
        assert file.metadata["some.flags"] == [True, False]
        assert type(file.metadata["tokenizer.ggml.add_bos_token"]) is bool
        assert list(file.tensors) == [each.name for each in reader.tensors]
        for each in reader.tensors:
            values = gguf.quants.dequantize(each.data, each.tensor_type)
            mine = file.tensors[each.name]
            assert mine.shape == values.shape == tuple(reversed(each.shape.tolist()))
            assert mine.type_name == each.tensor_type.name
            assert mine.n_bytes == each.n_bytes
            np.testing.assert_array_equal(file.read(each.name), values)


def test_arrays_stay_valid_after_the_file_is_closed(real):
    with open_gguf(real) as file:
        norm = file.read("blk.0.attn_norm.weight")
    assert np.isfinite(norm).all()
    assert norm.flags.writeable


def test_version_2_is_read_too(tmp_path):
    path = tmp_path / "two.gguf"
    path.write_bytes(build(entry("a", U8, b"\7"), n_entries=1, version=2))
    assert open_gguf(path).metadata == {"a": 7}


def test_nested_arrays_become_nested_lists(tmp_path):
    inner = struct.pack("<IQ", U8, 2) + b"\1\2"
    value = struct.pack("<IQ", ARRAY, 2) + inner + inner
    path = tmp_path / "nested.gguf"
    path.write_bytes(build(entry("a", ARRAY, value), n_entries=1))
    assert open_gguf(path).metadata == {"a": [[1, 2], [1, 2]]}


def test_general_alignment_moves_the_tensors(tmp_path):
    path = tmp_path / "aligned.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("a", np.arange(8, dtype=np.float32))
    writer.add_tensor("b", np.arange(8, 16, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_gguf(path) as file:
        assert file.read("a").tolist() == list(range(8))
        assert file.read("b").tolist() == list(range(8, 16))
        assert file.tensors["b"].offset % 256 == 0


def test_unknown_tensor_is_named_with_a_suggestion(real):
    with open_gguf(real) as file, pytest.raises(ModelError, match=r"did you mean 'token_embd\.we"):
        file.read("token_embed.weight")


def test_a_type_without_decoder_is_refused_when_read(tmp_path):
    path = tmp_path / "i8.gguf"
    path.write_bytes(build(tensor("a", type_id=I8), n_tensors=1, data=bytes(8)))
    with open_gguf(path) as file, pytest.raises(ModelError, match=r"'a' is stored as I8"):
        file.read("a")


def test_unpermute_undoes_what_llama_cpp_does_to_q_and_k():
    # conversion of llama.cpp, LlamaModel.permute, for 3 heads of width 8
    weight = np.arange(24 * 5, dtype=np.float32).reshape(24, 5)
    permuted = weight.reshape(3, 2, 4, 5).swapaxes(1, 2).reshape(24, 5)
    assert not np.array_equal(permuted, weight)
    np.testing.assert_array_equal(unpermute(permuted, 3), weight)
    np.testing.assert_array_equal(unpermute(permuted[:, 0], 3), weight[:, 0])  # a bias
    with pytest.raises(ModelError, match="24 rows cannot be split into 5 heads"):
        unpermute(permuted, 5)


HUGE = 2**63
FAULTS = {
    "another file": (build(magic=b"PK\3\4"), r"begins with b'PK.*expected b'GGUF'"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n" * 3, "git lfs pull"),
    "only the magic": (b"GGUF", r"needs 4 bytes, but only 0 are left.*download it again"),
    "version 1": (build(version=1), "has version 1, expected 2 or 3"),
    "big-endian": (build(version=3 << 24), "is big-endian"),
    "n_entries": (build(n_entries=HUGE), "metadata entries.* needs"),
    "n_tensors": (build(n_tensors=HUGE), "tensors.* needs"),
    "key length": (build(struct.pack("<Q", 2**60), bytes(8), n_entries=1), r"a string\) needs"),
    "key too long": (build(text(b"k" * 70_000), bytes(99), n_entries=1), "at most 65,535"),
    "key empty": (build(entry("", U8, b"\1"), n_entries=1), "is empty"),
    "key not UTF-8": (build(text(b"\xff\xfe\xfd"), bytes(9), n_entries=1), "is not UTF-8"),
    "key twice": (build(entry("a", U8, b"\1") * 2, n_entries=2), "key 'a' occurs twice"),
    "type of value": (build(entry("a", 77, b"\1"), n_entries=1), "key 'a' has the unknown type 77"),
    "boolean": (build(entry("a", BOOL, b"\2"), n_entries=1), "boolean of value 2"),
    "string length": (
        build(entry("a", STRING, struct.pack("<Q", 2**60)), n_entries=1),
        r"key 'a' \(a string\) needs 1,152,921,504,606,846,976 bytes, but only 0 are left",
    ),
    "array length": (
        build(entry("a", ARRAY, struct.pack("<IQ", STRING, 2**61)), n_entries=1),
        "an array of 2,305,843,009,213,693,952 items",
    ),
    "array type": (
        build(entry("a", ARRAY, struct.pack("<IQ", 99, 1) + b"\1"), n_entries=1),
        "array of the unknown type 99",
    ),
    "array item": (
        build(
            entry("a", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + struct.pack("<Q", 99)),
            n_entries=1,
        ),
        r"key 'a', item 2 of 2, \(a string\) needs 99 bytes",
    ),
    "array item not UTF-8": (
        build(entry("a", ARRAY, struct.pack("<IQ", STRING, 1) + text(b"\xff")), n_entries=1),
        "item 1 of 1, is not UTF-8",
    ),
    "nesting": (
        build(entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9), n_entries=1),
        "nested more than 4 deep",
    ),
    "alignment 0": (
        build(entry("general.alignment", U32, struct.pack("<I", 0)), n_entries=1),
        "alignment' is 0, expected a power of two",
    ),
    "alignment 48": (
        build(entry("general.alignment", U32, struct.pack("<I", 48)), n_entries=1),
        "alignment' is 48",
    ),
    "alignment 2^31": (
        build(entry("general.alignment", U32, struct.pack("<I", 2**31)), n_entries=1),
        "alignment' is 2147483648",
    ),
    "alignment text": (
        build(entry("general.alignment", STRING, text("32")), n_entries=1),
        "alignment' is '32'",
    ),
    "tensor twice": (
        build(tensor("a") + tensor("a", offset=32), n_tensors=2, data=bytes(64)),
        "tensor 'a' occurs twice",
    ),
    "tensor name": (build(tensor("n" * 65), n_tensors=1, data=bytes(32)), "at most 64"),
    "tensor without name": (build(tensor(""), n_tensors=1, data=bytes(32)), "has no name"),
    "no dimensions": (build(tensor("a", dims=()), bytes(8), n_tensors=1), "has 0 dimensions"),
    "dimensions": (build(tensor("a", dims=(1,) * 5), n_tensors=1), "has 5 dimensions"),
    "size 0": (build(tensor("a", dims=(8, 0)), n_tensors=1, data=bytes(32)), r"\[8, 0\]"),
    "size 2^42 + 1": (
        build(tensor("a", dims=(2**42 + 1,)), n_tensors=1, data=bytes(32)),
        r"tensor 'a' ends at byte 17,592,\d+,\d+,\d+, but the file has only 96 bytes",
    ),
    "product of sizes overflows": (
        build(tensor("a", dims=(2**32, 2**32)), n_tensors=1, data=bytes(32)),
        "tensor 'a' ends at byte",
    ),
    "row of half a block": (
        build(tensor("a", dims=(40,), type_id=Q8_0), n_tensors=1, data=bytes(68)),
        "rows of 40, expected a multiple of 32 for Q8_0",
    ),
    "type of tensor": (
        build(tensor("a", type_id=5000), n_tensors=1, data=bytes(32)),
        "tensor 'a' has the unknown type 5000.*newer than the installed gguf",
    ),
    "offset outside": (
        build(tensor("a", offset=2**62), n_tensors=1, data=bytes(32)),
        "but the file has only",
    ),
    "offset not aligned": (
        build(tensor("a", offset=4), n_tensors=1, data=bytes(64)),
        "offset 4, expected a multiple of 32",
    ),
    "overlap": (
        build(tensor("a", dims=(16,)) + tensor("b", offset=32), n_tensors=2, data=bytes(96)),
        "tensor 'b' overlaps tensor 'a'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_before_memory_is_taken(tmp_path, name):
    content, message = FAULTS[name]
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=message) as caught:
            open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 2
    assert str(path) in str(caught.value)


def test_missing_empty_or_no_file_at_all(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        open_gguf(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelError, match="is empty"):
        open_gguf(tmp_path / "empty.gguf")
    with pytest.raises(ModelError, match="cannot be read"):
        open_gguf(tmp_path)


def test_many_small_things_are_bounded_as_well(tmp_path, monkeypatch):
    # The limits are lowered here, for a file that reaches the real ones has megabytes.
    path = tmp_path / "many.gguf"
    monkeypatch.setattr(module, "MAX_ITEMS", 100)
    arrays = [entry(f"k{i}", ARRAY, struct.pack("<IQ", U8, 60) + bytes(60)) for i in range(2)]
    path.write_bytes(build(*arrays, n_entries=2))
    with pytest.raises(ModelError, match=r"'k1' is an array of 60 items, expected at most 100"):
        open_gguf(path)
    monkeypatch.setattr(module, "MAX_ENTRIES", 1)
    with pytest.raises(ModelError, match="announces 2 metadata entries, expected at most 1"):
        open_gguf(path)


def test_truncation_at_any_byte_is_noticed(real, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(real.read_bytes())
    open_gguf(path).close()
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelError, match=r"short\.gguf"):
            open_gguf(path)


def survives(path) -> None:
    """Open and read a file that may be broken: right or refused, but nothing else."""
    try:
        with open_gguf(path) as file:
            arrays = {name: file.read(name) for name in file.tensors}
    except ModelError:
        return
    assert all(array.dtype == np.float32 for array in arrays.values())


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_in_the_header_does_no_harm(real, tmp_path, change):
    content = real.read_bytes()
    with open_gguf(real) as file:
        n_header = min(each.offset for each in file.tensors.values())
    path = tmp_path / "flipped.gguf"
    path.write_bytes(content)
    # Unbuffered and in place: rewriting the file a thousand times takes seconds.
    with path.open("r+b", buffering=0) as edited:
        for i in range(n_header):
            edited.seek(i)
            edited.write(bytes([content[i] ^ change]))
            survives(path)
            edited.seek(i)
            edited.write(content[i : i + 1])
    assert path.read_bytes() == content


@settings(max_examples=150, deadline=2000)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4
    ),
    cut=st.integers(0, 3000),
)
def test_random_damage_does_no_harm(real, tmp_path_factory, edits, cut):
    content = bytearray(real.read_bytes())
    for at, patch in edits:
        content[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content[: max(cut, 4)])
    tracemalloc.start()
    try:
        survives(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
