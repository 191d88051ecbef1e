"""Weights on disk outlive the program: they are read and written whole, or refused by name."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lmwright.core.errors import LmwrightError, ModelError
from lmwright.formats import safetensors_folder as module
from lmwright.formats.safetensors_folder import read_weights, write_weights


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed.weight": torch.randn(10, 4, generator=generator),
        "layers.0.weight": torch.randn(4, 4, generator=generator).to(torch.bfloat16),
        "layers.0.packed": torch.arange(6, dtype=torch.int32).reshape(2, 3),
        "norm.weight": torch.ones(4, dtype=torch.float16),
        "scale": torch.tensor(2.0),
    }


def assert_same(weights, tensors) -> None:
    assert set(weights) == set(tensors)
    for name, tensor in tensors.items():
        assert weights[name].dtype == tensor.dtype
        assert weights[name].shape == tensor.shape == weights.entries[name].shape
        assert torch.equal(weights[name], tensor)


def write(path, header: object, data: bytes = b"") -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def test_one_file_comes_back_as_it_was(tmp_path):
    tensors = some_tensors()
    assert write_weights(tensors, tmp_path) == [tmp_path / "model.safetensors"]
    weights = read_weights(tmp_path)
    assert_same(weights, tensors)
    assert "embed.weight" in weights
    assert "other" not in weights
    assert len(weights) == 5
    assert weights.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    with pytest.raises(KeyError):
        weights["other"]


def test_shards_come_back_as_they_were_and_in_order(tmp_path):
    tensors = some_tensors()
    paths = write_weights(tensors, tmp_path, max_shard_bytes=60)
    assert [path.name for path in paths] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in paths]
    weights = read_weights(tmp_path)
    assert_same(weights, tensors)
    index = json.loads(paths[-1].read_text())
    assert index["metadata"] == {"total_size": 160 + 32 + 24 + 8 + 4}
    # embed alone is larger than a shard; 32 + 24 fit together, and so do 8 + 4
    assert index["weight_map"]["embed.weight"] == "model-00001-of-00003.safetensors"
    assert index["weight_map"]["layers.0.packed"] == "model-00002-of-00003.safetensors"


def test_the_library_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    tensors = some_tensors()
    (path,) = write_weights(tensors, tmp_path / "ours")
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    (tmp_path / "theirs").mkdir()
    save_file(tensors, tmp_path / "theirs" / "model.safetensors")
    assert_same(read_weights(tmp_path / "theirs"), tensors)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    (one,) = write_weights(some_tensors(), tmp_path / "1")
    (two,) = write_weights(some_tensors(), tmp_path / "2")
    assert one.read_bytes() == two.read_bytes()


def test_views_that_are_not_contiguous_are_written_right(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_weights({"a": tensor}, tmp_path)
    assert torch.equal(read_weights(tmp_path)["a"], tensor)


def test_another_model_in_the_same_folder_replaces_the_first(tmp_path):
    tensors, other = some_tensors(), {"only": torch.zeros(3)}
    write_weights(tensors, tmp_path, max_shard_bytes=60)
    write_weights(other, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(read_weights(tmp_path), other)
    write_weights(tensors, tmp_path, max_shard_bytes=60)
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(read_weights(tmp_path), tensors)
    write_weights(tensors, tmp_path, max_shard_bytes=200)
    assert len(list(tmp_path.iterdir())) == 3
    assert_same(read_weights(tmp_path), tensors)


def test_too_little_free_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    write_weights({"old": torch.zeros(3)}, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(LmwrightError, match=r"00001-of.*need 160 bytes, only 100 are free"):
        write_weights(some_tensors(), tmp_path, max_shard_bytes=60)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(read_weights(tmp_path), {"old": torch.zeros(3)})


FILL_DISK = """
import resource, sys, torch
from lmwright.core.errors import LmwrightError
from lmwright.formats.safetensors_folder import write_weights
# No file may grow beyond 2,000 bytes: for the writer that is what a full disk is.
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    write_weights({"a": torch.zeros(100), "b": torch.zeros(1000)}, sys.argv[1], max_shard_bytes=500)
except LmwrightError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_disk_that_fills_while_writing_leaves_the_old_model(tmp_path):
    write_weights({"old": torch.zeros(3)}, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "model-00002-of-00002.safetensors" in done.stdout
    assert "it needs 4,000 bytes" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(read_weights(tmp_path), {"old": torch.zeros(3)})


def one(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


FAULTS = {
    "no JSON": (b"{nonsense", b"", "is not JSON"),
    "no UTF-8": (b'{"\xff\xfe": 1}', b"", "is not JSON"),
    "deep JSON": (b"[" * 100_000, b"", "is not JSON"),
    "a list": ([], b"", "a JSON list, expected an object"),
    "a number": ({"a": 3}, bytes(8), "tensor 'a' has no dtype, shape and data_offsets"),
    "a name twice": (
        f'{{"a": {json.dumps(one())}, "a": {json.dumps(one())}}}'.encode(),
        bytes(8),
        "'a' occurs twice",
    ),
    "dtype": ({"a": one("F77")}, bytes(8), "tensor 'a' has dtype 'F77'; known: BOOL"),
    "dtype is a list": ({"a": {**one(), "dtype": []}}, bytes(8), r"has dtype \[\]"),
    "negative size": ({"a": one(shape=(-2,))}, bytes(8), r"has the shape \[-2\]"),
    "size is a float": ({"a": one(shape=(2.0,))}, bytes(8), r"has the shape \[2.0\]"),
    "size is a bool": ({"a": one(shape=(True, 2))}, bytes(8), "has the shape"),
    "many sizes": ({"a": one(shape=(1,) * 65)}, bytes(8), "has the shape"),
    "huge sizes": ({"a": one(shape=(2**62, 2**62))}, bytes(8), "F32 of shape .* needs 85,0"),
    "shape and bytes": ({"a": one(shape=(3,))}, bytes(8), "has 8 bytes, but F32 .* needs 12"),
    "one offset": ({"a": one(offsets=(8,))}, bytes(8), "has data_offsets"),
    "offsets backwards": ({"a": one(offsets=(8, 0))}, bytes(8), "has -8 bytes"),
    "huge offsets": (
        {"a": one(offsets=(2**62, 2**62 + 8))},
        bytes(8),
        "leaves a gap after the header",
    ),
    "outside": ({"a": one()}, bytes(5), "tensor 'a' ends 3 bytes after the end of the file"),
    "overlap": (
        {"a": one(), "b": one(offsets=(4, 12))},
        bytes(12),
        "tensor 'b' overlaps tensor 'a'",
    ),
    "gap": (
        {"a": one(), "b": one(offsets=(12, 20))},
        bytes(20),
        "tensor 'b' leaves a gap after tensor 'a'",
    ),
    "bytes of nobody": ({"a": one()}, bytes(11), "3 bytes that belong to no tensor"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_header_is_named(tmp_path, name):
    header, data, message = FAULTS[name]
    write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\1\2", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 200_000_000) + b"{}"],
)
def test_a_header_longer_than_the_file_takes_no_memory(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="announces a header of"):
            read_weights(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_header_above_the_limit_is_refused_although_the_file_is_long_enough(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", 20)
    write_weights(some_tensors(), tmp_path)
    with pytest.raises(ModelError, match="announces a header of"):
        read_weights(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        read_weights(tmp_path)


def test_truncation_at_any_byte_is_noticed(tmp_path):
    (path,) = write_weights(some_tensors(), tmp_path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            read_weights(tmp_path)


@settings(max_examples=100, deadline=2000)
@given(edits=st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=9))))
def test_random_damage_is_refused_or_does_no_harm(tmp_path_factory, edits):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    (path,) = write_weights(some_tensors(), folder)
    content = bytearray(path.read_bytes())
    for at, patch in edits:
        content[at : at + len(patch)] = patch
    path.unlink()  # the next example must not change a file that is still mapped
    path.write_bytes(content)
    try:
        weights = read_weights(folder)
        assert len([weights[name] for name in weights]) == len(weights)
    except ModelError:
        pass


def test_pickles_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pickle \(pytorch_model\.bin\).*save_pretrained"):
        read_weights(tmp_path)


def test_a_folder_without_weights_or_no_folder(tmp_path):
    with pytest.raises(ModelError, match="holds neither"):
        read_weights(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        read_weights(tmp_path / "none")


def edit_index(folder, change) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_a_missing_shard_is_named(tmp_path):
    paths = write_weights(some_tensors(), tmp_path, max_shard_bytes=60)
    paths[1].unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.safetensors: missing"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "..", "a/b.safetensors", "a\\b.safetensors", "x.bin"],
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, shard):
    folder = tmp_path / "model"
    write_weights(some_tensors(), folder, max_shard_bytes=60)
    write_weights({"scale": torch.tensor(2.0)}, tmp_path)
    edit_index(folder, lambda index: index["weight_map"].update({"scale": shard}))
    with pytest.raises(ModelError, match="is not the name of a"):
        read_weights(folder)


def test_an_index_and_shards_that_disagree_are_refused(tmp_path):
    write_weights(some_tensors(), tmp_path, max_shard_bytes=60)
    first = "model-00001-of-00003.safetensors"
    edit_index(tmp_path, lambda index: index["weight_map"].update({"ghost": first}))
    with pytest.raises(ModelError, match=r"00001-of.*lacks tensor 'ghost'"):
        read_weights(tmp_path)
    edit_index(tmp_path, lambda index: [index["weight_map"].pop(k) for k in ("ghost", "scale")])
    with pytest.raises(ModelError, match=r"00003-of.*has tensor 'scale', which"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_a_damaged_index_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"index\.json"):
        read_weights(tmp_path)
