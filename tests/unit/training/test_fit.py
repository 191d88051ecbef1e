"""A run that was killed and continued must end in the same bytes, or `resume` is a gamble."""

import json
import shutil
import signal
from contextlib import contextmanager

import pytest
import torch

from lmwright import lm
from lmwright.core.errors import InterruptError
from lmwright.finetuning.chat import CHAT
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.methods import prepare
from lmwright.lm import load
from lmwright.training import log
from lmwright.training.batches import Encoded
from lmwright.training.fit import BEST, METRICS, STATE, fit
from lmwright.training.state import load_trained, trained_weights


def encoded(n, seed):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(n):
        length = int(torch.randint(4, 20, (1,), generator=generator))
        ids = torch.randint(3, 40, (length,), generator=generator).tolist()
        found.append(Encoded(str(number), tuple(ids), tuple(i >= 2 for i in range(length))))
    return found


TRAIN, VALIDATION = encoded(14, seed=0), encoded(3, seed=1)
# 4 steps an epoch, 8 in all; the best weights (every 2) are kept at other steps than the state.
SETTINGS = {
    "data": "d", "epochs": 2, "batch_size": 4, "checkpoint_every": 3, "validate_every": 2,
    "micro_batch_tokens": 30, "precision": "fp32", "rank": 2, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tiny_folder):
    """Give a fresh model, as after a kill, prepared as the table says."""

    def model(config):
        modules = lm.modules(load(tiny_folder, precision=config.precision))
        prepare(modules, config)
        return modules

    return model


@pytest.fixture(scope="module", params=["lora", "full"])
def config(request):
    return Finetune(**SETTINGS, method=request.param)


def run(model, config, out, lr=5e-3):
    return fit(model, CHAT, TRAIN, VALIDATION, config=config, lr=lr, out=out)


@contextmanager
def killed_after(step):
    """Die, as by a kill, when the line of this step has been written."""
    original = log.append

    def append(path, line):
        original(path, line)
        if line["step"] == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "append", append)
        with pytest.raises(KeyboardInterrupt):
            yield


STATE_FILES = ("progress.json", "weights.safetensors", "optimizer.safetensors")


def as_bytes(model):
    return {name: tensor.numpy().tobytes() for name, tensor in trained_weights(model).items()}


def lines(out):
    """Read the log without the time that it took."""
    found = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [{**line, "seconds": 0} for line in found]


@pytest.fixture(scope="module")
def uninterrupted(opened, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    model = opened(config)
    return run(model, config, out), as_bytes(model), out


# Before the first checkpoint, at it, just behind it; between the best weights (4) and the next
# state (6); at the last step, which is seen but whose state is not yet written; and twice.
@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (4,), (5,), (7,), (8,), (2, 5), (4, 5, 7)])
def test_a_run_that_was_stopped_and_continued_ends_in_the_same_bytes(
    opened, config, uninterrupted, tmp_path, stops
):
    summary, expected, whole = uninterrupted
    for stop in stops:
        with killed_after(stop):
            run(opened(config), config, tmp_path)
    model = opened(config)
    found = run(model, config, tmp_path)
    assert lines(tmp_path) == lines(whole)
    timed = {"training_seconds": 0, "tokens_per_second": 0}
    assert found | timed == summary | timed
    assert as_bytes(model) == expected
    assert (tmp_path / STATE / BEST).read_bytes() == (whole / STATE / BEST).read_bytes()


@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_ctrl_c_keeps_the_state_of_the_step(opened, config, uninterrupted, tmp_path, caplog, stop):
    summary, expected, _ = uninterrupted
    caplog.set_level("INFO", logger="lmwright")
    append, default = log.append, signal.getsignal(signal.SIGINT)

    def pressed(path, line):
        if line["step"] == stop:
            signal.raise_signal(signal.SIGINT)
        append(path, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "append", pressed)
        with pytest.raises(InterruptError, match=f"after step {stop} of 8, whose state is kept"):
            run(opened(config), config, tmp_path)
    assert "the state is saved after this step; Ctrl-C again stops at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) == default
    caplog.clear()
    model = opened(config)
    timed = {"training_seconds": 0, "tokens_per_second": 0}
    assert run(model, config, tmp_path) | timed == summary | timed
    assert (f"continues at step {stop + 1} of 8" in caplog.text) == (stop < 8)
    assert as_bytes(model) == expected


def test_a_second_ctrl_c_stops_at_once(opened, config, tmp_path):
    def pressed(path, line):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "append", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(opened(config), config, tmp_path)
    assert not list(tmp_path.rglob("progress.json"))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "state/best.safetensors", *(f"state/step-000006/{x}" for x in STATE_FILES)],
)
@pytest.mark.parametrize("damage", ["gone", "half", "other"])
def test_a_damaged_file_costs_steps_but_changes_nothing(
    opened, config, uninterrupted, tmp_path, caplog, name, damage
):
    _, expected, whole = uninterrupted
    with killed_after(8):
        run(opened(config), config, tmp_path)
    path = tmp_path / name
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "half" else b"\0" * len(raw))
    model = opened(config)
    run(model, config, tmp_path)
    assert lines(tmp_path) == lines(whole)
    assert as_bytes(model) == expected
    # A state is none without its progress, which is no damage.
    assert caplog.text or (damage == "gone" and name.endswith("progress.json"))


def test_a_finished_run_goes_straight_to_its_best_weights(opened, config, uninterrupted):
    summary, expected, out = uninterrupted
    model, before = opened(config), (out / METRICS).read_bytes()
    assert run(model, config, out) == summary
    assert (out / METRICS).read_bytes() == before
    assert as_bytes(model) == expected


def test_a_half_written_state_is_ignored(opened, config, uninterrupted, tmp_path):
    _, expected, _ = uninterrupted
    with killed_after(5):
        run(opened(config), config, tmp_path)
    half = tmp_path / STATE / "step-000006"
    half.mkdir()
    shutil.copy(tmp_path / STATE / "step-000003" / "weights.safetensors", half)
    with killed_after(4):  # the first step that is done again
        run(opened(config), config, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    model = opened(config)
    run(model, config, tmp_path)
    assert as_bytes(model) == expected


def test_a_step_is_told_before_its_state_is_kept(opened, config, tmp_path):
    """Else a kill between the two leaves a step that no metrics.jsonl knows of."""
    with killed_after(3):
        run(opened(config), config, tmp_path)
    assert not (tmp_path / STATE / "step-000003").exists()
    with killed_after(4):
        run(opened(config), config, tmp_path)
    assert (tmp_path / STATE / "step-000003" / "progress.json").exists()


def test_the_best_weights_are_what_remains(opened, config, uninterrupted):
    summary, weights, out = uninterrupted
    losses = {x["step"]: x["validation_loss"] for x in lines(out) if "validation_loss" in x}
    assert sorted(losses) == [2, 4, 6, 8]
    assert summary["best_validation_loss"] == min(losses.values())
    assert losses[summary["best_step"]] == min(losses.values())
    assert min(losses.values()) < losses[2]  # it did learn
    model = opened(config)
    load_trained(model, out / STATE / BEST)
    assert as_bytes(model) == weights


def test_worse_weights_do_not_replace_better_ones(opened, tmp_path):
    """A rate so high that the loss gets worse again: the best step is not the last one."""
    config = Finetune(**{**SETTINGS, "epochs": 6}, method="full", warmup=0.9, keep="best")
    model = opened(config)
    summary = run(model, config, tmp_path / "whole", lr=0.05)
    assert summary["best_step"] < summary["n_steps"]
    # The same run, stopped there.
    other = opened(config)
    with killed_after(summary["best_step"]):
        run(other, config, tmp_path / "again", lr=0.05)
    assert as_bytes(model) == as_bytes(other)


def test_steps_and_trained_parameters_are_counted(opened, config, uninterrupted):
    summary, weights, _ = uninterrupted
    assert summary["n_steps"] == 8
    assert summary["n_trained_parameters"] == sum(len(w) // 4 for w in weights.values())


def test_full_tuning_in_bf16_keeps_fp32_masters(opened, tmp_path):
    config = Finetune(**{**SETTINGS, "precision": "bf16"}, method="full")
    model = opened(config)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    before = as_bytes(model)
    run(model, config, tmp_path, lr=1e-5)
    assert model.compute_dtype == torch.bfloat16
    # Steps of 1e-5 vanish in bf16 weights around 1 and add up in fp32 ones.
    assert as_bytes(model)["decoder.norm.weight"] != before["decoder.norm.weight"]
    assert torch.equal(
        model.decoder.norm.weight.bfloat16(), torch.ones_like(model.decoder.norm.weight).bfloat16()
    )


def test_keep_says_whether_the_best_or_the_last_weights_stay(opened, tmp_path):
    kept = {}
    for keep in ("best", "last"):
        # Random texts can only be learnt by heart: the validation loss soon rises.
        config = Finetune(**SETTINGS | {"epochs": 15}, method="lora", keep=keep)
        model = opened(config)
        summary = run(model, config, tmp_path / keep, lr=0.05)
        assert summary["best_step"] < summary["n_steps"]
        kept[keep] = as_bytes(model)
        if keep == "last":
            state = tmp_path / keep / STATE / f"step-{summary['n_steps']:06d}"
            load_trained(model, state / "weights.safetensors")
            assert as_bytes(model) == kept["last"]
    assert kept["best"] != kept["last"]
