"""A run that was killed and continued must end in the same bytes, or `resume` is a gamble."""

import shutil

import pytest
import torch

from lmwright.finetuning.config import Finetune
from lmwright.finetuning.tune import n_steps, prepare, tune
from lmwright.lm import load, modules
from lmwright.training.batches import Encoded
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


@pytest.fixture(scope="module", params=["lora", "full"])
def config(request):
    return Finetune(**SETTINGS, method=request.param, lr=5e-3)


@pytest.fixture(scope="module")
def events(tiny_folder, config):
    """Start the run in a folder, with a fresh model as after a kill."""

    def start(folder):
        model = modules(load(tiny_folder, precision="fp32"))
        prepare(model, config)
        steps = tune(model, TRAIN, VALIDATION, config=config, folder=folder)
        return model, steps

    return start


def as_bytes(model):
    return {name: tensor.numpy().tobytes() for name, tensor in trained_weights(model).items()}


@pytest.fixture(scope="module")
def uninterrupted(events, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    model, steps = events(folder)
    return list(steps), as_bytes(model), folder


def same(a, b):
    """Equal but for the time that it took."""
    return (a.step.step, a.step.loss, a.step.lr, a.step.grad_norm, a.validation_loss,
            a.progress.n_tokens, a.progress.best_loss, a.progress.best_step) == (
            b.step.step, b.step.loss, b.step.lr, b.step.grad_norm, b.validation_loss,
            b.progress.n_tokens, b.progress.best_loss, b.progress.best_step)  # fmt: skip


# Before the first checkpoint, at it, just behind it; between the best weights (4) and the next
# state (6); at the last step, which is seen but whose state is not yet written; and twice.
@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (4,), (5,), (7,), (8,), (2, 5), (4, 5, 7)])
def test_a_run_that_was_stopped_and_continued_ends_in_the_same_bytes(
    events, uninterrupted, tmp_path, stops
):
    expected_events, expected, whole = uninterrupted
    for stop in stops:
        _, steps = events(tmp_path / "run")
        for event in steps:
            if event.step.step == stop:
                steps.close()
    model, steps = events(tmp_path / "run")
    found = list(steps)
    first = found[0].step.step
    assert first <= max(stops)
    assert all(same(a, b) for a, b in zip(found, expected_events[first - 1 :], strict=True))
    assert as_bytes(model) == expected
    best = "best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (whole / best).read_bytes()


def test_a_finished_run_goes_straight_to_its_best_weights(events, uninterrupted):
    _, expected, folder = uninterrupted
    model, steps = events(folder)
    assert list(steps) == []
    assert as_bytes(model) == expected


def test_a_half_written_state_is_ignored(events, uninterrupted, tmp_path):
    _, expected, _ = uninterrupted
    _, steps = events(tmp_path / "run")
    for event in steps:
        if event.step.step == 5:
            steps.close()
    half = tmp_path / "run" / "step-000006"
    half.mkdir()
    shutil.copy(tmp_path / "run" / "step-000003" / "weights.safetensors", half)
    model, steps = events(tmp_path / "run")
    assert next(steps).step.step == 4
    list(steps)
    assert as_bytes(model) == expected


def test_a_step_is_told_before_its_state_is_kept(events, tmp_path):
    """Else a kill between the two leaves a step that no metrics.jsonl knows of."""
    _, steps = events(tmp_path)
    for event in steps:
        if event.step.step == 3:
            break
    assert not (tmp_path / "step-000003").exists()
    next(steps)
    assert (tmp_path / "step-000003" / "progress.json").exists()


def test_the_best_weights_are_what_remains(events, uninterrupted):
    found, weights, folder = uninterrupted
    losses = {e.step.step: e.validation_loss for e in found if e.validation_loss is not None}
    assert sorted(losses) == [2, 4, 6, 8]
    assert found[-1].progress.best_loss == min(losses.values())
    assert losses[found[-1].progress.best_step] == min(losses.values())
    assert min(losses.values()) < losses[2]  # it did learn
    model, steps = events(folder)
    list(steps)
    assert as_bytes(model) == weights


def test_worse_weights_do_not_replace_better_ones(tiny_folder, tmp_path):
    """A rate so high that the loss gets worse again: the best step is not the last one."""
    config = Finetune(**{**SETTINGS, "epochs": 6}, method="full", lr=0.05, warmup=0.9)
    model = modules(load(tiny_folder, precision="fp32"))
    prepare(model, config)
    found = list(tune(model, TRAIN, VALIDATION, config=config, folder=tmp_path))
    best_step = found[-1].progress.best_step
    assert best_step < found[-1].step.step
    # The same run, stopped there.
    other = modules(load(tiny_folder, precision="fp32"))
    prepare(other, config)
    for event in tune(other, TRAIN, VALIDATION, config=config, folder=tmp_path / "again"):
        if event.step.step == best_step:
            break
    assert as_bytes(model) == as_bytes(other)


def test_the_number_of_steps_is_known_beforehand(config, uninterrupted):
    assert n_steps(TRAIN, config) == len(uninterrupted[0]) == 8


def test_lora_trains_little_and_full_trains_all(tiny_folder, config):
    model = modules(load(tiny_folder, precision="fp32"))
    prepare(model, config)
    trained = set(trained_weights(model))
    if config.method == "full":
        assert trained == {name for name, _ in model.named_parameters()}
    else:
        assert trained
        assert all(name.endswith((".a", ".b")) for name in trained)


def test_full_tuning_in_bf16_keeps_fp32_masters(tiny_folder, tmp_path):
    config = Finetune(**{**SETTINGS, "precision": "bf16"}, method="full", lr=1e-5)
    model = modules(load(tiny_folder, precision="bf16"))
    prepare(model, config)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    before = as_bytes(model)
    list(tune(model, TRAIN, VALIDATION, config=config, folder=tmp_path))
    assert model.compute_dtype == torch.bfloat16
    # Steps of 1e-5 vanish in bf16 weights around 1 and add up in fp32 ones.
    assert as_bytes(model)["decoder.norm.weight"] != before["decoder.norm.weight"]
    assert torch.equal(
        model.decoder.norm.weight.bfloat16(), torch.ones_like(model.decoder.norm.weight).bfloat16()
    )


def test_keep_says_whether_the_best_or_the_last_weights_stay(tiny_folder, tmp_path):
    kept = {}
    for keep in ("best", "last"):
        # Random texts can only be learnt by heart: the validation loss soon rises.
        settings = SETTINGS | {"epochs": 15}
        config = Finetune(**settings, method="lora", lr=0.05, keep=keep)
        model = modules(load(tiny_folder, precision="fp32"))
        prepare(model, config)
        folder = tmp_path / keep
        *_, last = tune(model, TRAIN, VALIDATION, config=config, folder=folder)
        assert last.progress.best_step < last.progress.n_steps_done
        kept[keep] = as_bytes(model)
        if keep == "last":
            state = folder / f"step-{last.progress.n_steps_done:06d}" / "weights.safetensors"
            load_trained(model, state)
            assert as_bytes(model) == kept["last"]
    assert kept["best"] != kept["last"]
