"""A wrong byte here is a model that talks nonsense in llama.cpp: both readers must agree."""

import shutil
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from lmwright.core.errors import LmwrightError, ModelError
from lmwright.formats.gguf import open_gguf
from lmwright.formats.gguf_writer import TensorSource, file_metadata, write_gguf

ARCH = {"general.architecture": "llama"}
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0"]


def source(weights: np.ndarray, type_name: str) -> TensorSource:
    return TensorSource(weights.shape, type_name, lambda: weights)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)


@pytest.mark.parametrize("type_name", TYPES)
def test_both_readers_get_the_weights_as_the_library_rounds_them(tmp_path, type_name):
    path = tmp_path / "tiny.gguf"
    # More rows than the library takes at a time, and blocks of zeros.
    weights = random(70, 64)
    weights[3] = 0
    changed = write_gguf(path, ARCH, {"a.weight": source(weights, type_name)})
    assert changed == {}
    kind = GGMLQuantizationType[type_name]
    expected = dequantize(quantize(weights, kind), kind)
    with open_gguf(path) as file:
        assert file.tensors["a.weight"].type_name == type_name
        np.testing.assert_array_equal(file.read("a.weight"), expected)
    (tensor,) = gguf.GGUFReader(path).tensors
    assert (tensor.name, tensor.tensor_type) == ("a.weight", kind)
    np.testing.assert_array_equal(dequantize(tensor.data, kind), expected)


def test_large_tensors_are_quantised_in_pieces_to_the_same_bytes(tmp_path, monkeypatch):
    weights = random(50, 96)
    paths = [tmp_path / "whole.gguf", tmp_path / "pieces.gguf"]
    for path, n_weights in zip(paths, (1 << 22, 300), strict=True):
        monkeypatch.setattr("lmwright.formats.gguf_writer.CHUNK_WEIGHTS", n_weights)
        write_gguf(path, ARCH, {"a": source(weights, "Q4_0"), "b": source(weights, "BF16")})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_cannot_or_should_not_be_quantised_is_stored_better_and_told(tmp_path):
    path = tmp_path / "tiny.gguf"
    wished = {
        "output_norm.weight": source(random(64), "Q8_0"),
        "position_embd.weight": source(random(8, 64), "Q4_0"),
        "odd.weight": source(random(4, 40), "Q4_0"),
        "token_embd.weight": source(random(9, 64), "Q4_0"),
        "even.weight": source(random(4, 64), "Q4_0"),
        "experts.weight": source(random(2, 4, 64), "Q8_0"),
    }
    changed = write_gguf(path, ARCH, wished)
    assert changed == {
        "output_norm.weight": "F32",
        "position_embd.weight": "F32",
        "odd.weight": "F16",
        "token_embd.weight": "Q8_0",
    }
    with open_gguf(path) as file:
        assert {name: tensor.type_name for name, tensor in file.tensors.items()} == {
            name: changed.get(name, tensor.type_name) for name, tensor in wished.items()
        }
        assert list(file.tensors) == list(wished)
        assert file.tensors["experts.weight"].shape == (2, 4, 64)
        np.testing.assert_array_equal(file.read("output_norm.weight"), random(64))


keys = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[a-z0-9_]{1,8}){0,3}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(-(2**63), 2**64 - 1)
small = st.integers(-(2**31), 2**31 - 1)
floats = st.floats(width=32, allow_nan=False)
values = st.one_of(
    st.booleans(), texts, whole, floats,
    *(st.lists(items, min_size=1, max_size=8) for items in (st.booleans(), texts, small, floats)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, max_size=8))
def test_metadata_comes_back_as_it_was(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    metadata = {**metadata, **ARCH, "general.alignment": 64}
    write_gguf(path, metadata, {"a": source(random(2, 32), "F16")})
    with open_gguf(path) as file:
        assert file.metadata == metadata
        assert {k: type(v) for k, v in file.metadata.items()} == {
            k: type(v) for k, v in metadata.items()
        }
        assert all(tensor.offset % 64 == 0 for tensor in file.tensors.values())
    theirs = gguf.GGUFReader(path).fields
    assert {key: theirs[key].contents() for key in metadata} == metadata


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (3, ["UINT32"]),
        (-3, ["INT32"]),
        (2**32, ["UINT64"]),
        (1e-6, ["FLOAT32"]),
        (True, ["BOOL"]),
        ([1, 3], ["ARRAY", "INT32"]),
        ([1, 2**31], ["ARRAY", "UINT32"]),
        ([0.0, -1.0], ["ARRAY", "FLOAT32"]),
    ],
)
def test_numbers_have_the_types_that_llama_cpp_asks_for(tmp_path, value, types):
    write_gguf(tmp_path / "tiny.gguf", {**ARCH, "x": value}, {})
    field = gguf.GGUFReader(tmp_path / "tiny.gguf").fields["x"]
    assert [type_.name for type_ in field.types] == types


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    alive: list[weakref.ref] = []

    def read() -> np.ndarray:
        assert [each for each in alive if each() is not None] == []
        weights = random(4, 32)
        alive.append(weakref.ref(weights))
        return weights

    names = ("a", "b", "c")
    write_gguf(tmp_path / "x.gguf", ARCH, {n: TensorSource((4, 32), "F32", read) for n in names})
    assert len(alive) == 3


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")

    def fail() -> np.ndarray:
        raise ModelError("the shard is gone")

    with pytest.raises(ModelError, match="the shard is gone"):
        write_gguf(path, ARCH, {"a": TensorSource((4, 32), "F16", fail)})
    assert [each.name for each in tmp_path.iterdir()] == ["x.gguf"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_noticed_before_anything_is_read(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 0, 9))

    def fail() -> np.ndarray:
        raise AssertionError("was read")

    with pytest.raises(
        LmwrightError, match=r"x\.gguf: its weights need 136 bytes, only 9 are free"
    ):
        write_gguf(tmp_path / "x.gguf", ARCH, {"a": TensorSource((4, 32), "Q8_0", fail)})


def metadata_fault(value: Any, message: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    return {**ARCH, "k": value}, {}, message


def tensor_fault(
    message: str, *, name: str = "a", type_name: str = "F16", weights: np.ndarray | None = None
) -> tuple[dict[str, Any], dict[str, Any], str]:
    return ARCH, {name: source(random(2, 32) if weights is None else weights, type_name)}, message


FAULTS = {
    "no architecture": ({}, {}, r"general\.architecture is missing"),
    "empty list": metadata_fault([], "k: is an empty list; leave it out"),
    "mixed list": metadata_fault([1, 2.0], "k: holds float, int; must be"),
    "bool among numbers": metadata_fault([1, True], "k: holds bool, int"),
    "none": metadata_fault(None, "k: holds NoneType"),
    "numpy": metadata_fault(np.float32(1), "k: holds float32"),
    "nested": metadata_fault([[1]], "k: holds list"),
    "half a pair": metadata_fault(["a", "\ud800"], "k: '.ud800' holds half a surrogate pair"),
    "too wide": metadata_fault(2**64, "k: does not fit 64 bits"),
    "too large": metadata_fault(1e39, "k: is too large for a 32-bit number"),
    "empty key": ({**ARCH, "": 1}, {}, "'' is no key"),
    "alignment": ({**ARCH, "general.alignment": 48}, {}, "alignment = 48: must be a power of two"),
    "type": tensor_fault("'Q8_1'; did you mean 'Q8_0'", type_name="Q8_1"),
    "long name": tensor_fault("a name must have 1 to 63 bytes", name="a" * 64),
    "no name": tensor_fault("a name must have", name=""),
    "scalar": tensor_fault("shape .*1 to 4 dimensions", weights=np.float32(3).reshape(())),
    "empty": tensor_fault("none empty", weights=random(0, 32)),
    "nan": tensor_fault("holds numbers that are not finite", weights=random(2, 32) * np.nan),
    "half": tensor_fault("largest weight, 7e.04, does not fit F16", weights=np.full((2, 32), 7e4)),
    "scale": tensor_fault("fit Q4_0", weights=np.full((2, 32), 6e5), type_name="Q4_0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_llama_cpp_could_not_read_is_refused(tmp_path, name):
    metadata, tensors, message = FAULTS[name]
    with pytest.raises(ModelError, match=message):
        write_gguf(tmp_path / "x.gguf", metadata, tensors)
    assert list(Path(tmp_path).iterdir()) == []


def test_a_scale_that_just_fits_is_written(tmp_path):
    weights = np.full((2, 32), 5.2e5, np.float32)
    write_gguf(tmp_path / "x.gguf", ARCH, {"a": source(weights, "Q4_0")})
    with open_gguf(tmp_path / "x.gguf") as file:
        assert np.isfinite(file.read("a")).all()


def test_the_file_says_what_it_mostly_holds():
    assert file_metadata("Q8_0") == {
        "general.file_type": gguf.LlamaFileType.MOSTLY_Q8_0.value,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
    }
