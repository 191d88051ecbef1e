"""A state that is not whole must not count, and one that is must be the same bytes again."""

import errno
import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from lmwright.core.errors import LmwrightError
from lmwright.training.optim import adamw, moments
from lmwright.training.state import (
    Progress,
    load_trained,
    restore,
    save,
    save_tensors,
    trained_weights,
)

PROGRESS = Progress(n_steps_done=3, n_tokens=70, seconds=1.5, best_loss=0.25, best_step=2)


def trained(seed=0):
    """A module with a frozen part, a step of the optimiser behind it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    optimizer = adamw(model, 0.1)
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def as_bytes(model, optimizer):
    tensors = {**model.state_dict(), **moments(optimizer, model)}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_what_is_restored_is_what_was_saved(tmp_path):
    model, optimizer = trained()
    save_tensors(trained_weights(model), tmp_path / "best.safetensors")
    save(tmp_path, model, optimizer, PROGRESS)
    other, fresh = trained(seed=1)
    other[0].weight.data.copy_(model[0].weight)  # frozen: not part of the state
    assert restore(tmp_path, other, fresh, n_logged=9) == PROGRESS
    assert as_bytes(other, fresh) == as_bytes(model, optimizer)


def test_saving_the_same_again_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, *trained(), PROGRESS)
    files = [sorted((tmp_path / name).rglob("*.*")) for name in ("a", "b")]
    assert [f.name for f in files[0]] == [f.name for f in files[1]]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]


def test_a_new_run_stands_at_nought(tmp_path):
    assert restore(tmp_path / "none", *trained(), n_logged=9) == Progress()


def test_the_last_two_states_are_kept(tmp_path):
    for n in (1, 2, 3, 4):
        save(tmp_path, *trained(), Progress(n_steps_done=n))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def test_states_that_a_kill_left_go_when_the_run_goes_on(tmp_path):
    for n in (1, 2, 3):
        save(tmp_path / str(n), *trained(), Progress(n_steps_done=n))
        shutil.move(tmp_path / str(n) / f"step-00000{n}", tmp_path)
        (tmp_path / str(n)).rmdir()
    assert restore(tmp_path, *trained(), n_logged=9).n_steps_done == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


DAMAGE = [
    ("progress.json", b""),
    ("progress.json", b"[1]"),
    ("progress.json", b'{"n_steps_done": "many"}'),
    ("progress.json", b'{"steps": 4}'),
    ("weights.safetensors", b"\0" * 100),
    ("weights.safetensors", None),
    ("optimizer.safetensors", b"x"),
    ("../best.safetensors", b"x"),
]


@pytest.mark.parametrize(("name", "raw"), DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_state_is_named_and_the_one_before_is_taken(tmp_path, caplog, name, raw):
    earlier = Progress(n_steps_done=3)
    model, optimizer = trained()
    save_tensors(trained_weights(model), tmp_path / "best.safetensors")
    save(tmp_path, model, optimizer, earlier)
    save(tmp_path, *trained(seed=2), replace(PROGRESS, n_steps_done=4))
    path = tmp_path / "step-000004" / name
    path.write_bytes(path.read_bytes()[:-3] if raw is None else raw)
    other, fresh = trained(seed=1)
    other[0].weight.data.copy_(model[0].weight)  # frozen: not part of the state
    assert restore(tmp_path, other, fresh, n_logged=9) == earlier
    assert as_bytes(other, fresh) == as_bytes(model, optimizer)
    assert path.name in caplog.text
    assert "trying the state before" in caplog.text
    # The damaged one is written anew, and is a state again.
    save_tensors(trained_weights(model), tmp_path / "best.safetensors")
    save(tmp_path, *trained(seed=2), replace(PROGRESS, n_steps_done=4))
    assert restore(tmp_path, *trained(), n_logged=9).n_steps_done == 4


def test_a_state_whose_log_is_lost_is_not_gone_on_from(tmp_path, caplog):
    for n in (2, 4):
        save(tmp_path, *trained(), Progress(n_steps_done=n))
    assert restore(tmp_path, *trained(), n_logged=3) == Progress(n_steps_done=2)
    assert "the log of the steps before it is damaged from step 4 on" in caplog.text
    untouched = trained(seed=5)
    before = as_bytes(*untouched)
    assert restore(tmp_path, *untouched, n_logged=0) == Progress()
    assert as_bytes(*untouched) == before
    assert "no usable state; training begins again" in caplog.text


@pytest.mark.parametrize("left", [[], ["weights"], ["weights", "optimizer"]], ids=len)
def test_a_state_without_its_last_file_is_none(tmp_path, left):
    model, optimizer = trained()
    save_tensors(trained_weights(model), tmp_path / "best.safetensors")
    save(tmp_path, model, optimizer, PROGRESS)
    half = tmp_path / "step-000009"
    half.mkdir()
    for name in left:
        shutil.copy(tmp_path / "step-000003" / f"{name}.safetensors", half)
    (half / ".progress.json.x.part").write_text("{")
    assert restore(tmp_path, *trained(), n_logged=9) == PROGRESS


def test_a_state_of_another_model_is_noticed(tmp_path):
    model, _ = trained()
    save_tensors({"other.weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(AssertionError, match="another model"):
        load_trained(model, tmp_path / "w.safetensors")


def test_a_full_disk_names_the_file_and_leaves_the_state_before(tmp_path, monkeypatch):
    model, optimizer = trained()
    save_tensors(trained_weights(model), tmp_path / "best.safetensors")
    save(tmp_path, model, optimizer, PROGRESS)
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) == 2:  # the weights still fit, the moments do not
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lmwright.core.artifact.os.fsync", full)
    with pytest.raises(LmwrightError, match=r"optimizer\.safetensors: No space left"):
        save(tmp_path, model, optimizer, Progress(n_steps_done=4))
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))
    assert restore(tmp_path, *trained(), n_logged=9) == PROGRESS


def test_a_full_disk_in_the_library_is_our_error_too(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("lmwright.training.state.save_file", full)
    with pytest.raises(LmwrightError, match=r"w\.safetensors.*No space left"):
        save_tensors({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_format_is_plain_json_and_safetensors(tmp_path):
    save(tmp_path, *trained(), PROGRESS)
    data = json.loads((tmp_path / "step-000003" / "progress.json").read_text())
    assert data == {
        "format_version": 1, "n_steps_done": 3, "n_tokens": 70, "seconds": 1.5,
        "best_loss": 0.25, "best_step": 2,
    }  # fmt: skip
