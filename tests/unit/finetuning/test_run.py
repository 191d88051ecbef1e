"""All later steps read this one's files: complete, each line once, or there is an error."""

import errno
import json
from dataclasses import asdict

import pytest
import torch

from lmwright.core.errors import DataError, LmwrightError
from lmwright.core.stage import StepContext
from lmwright.data.run import TRAIN, VALIDATION, write_lines
from lmwright.data.samples import Sample
from lmwright.finetuning import run as module
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.run import run
from lmwright.formats.safetensors_folder import read_weights
from lmwright.lm import load, modules
from lmwright.training import log

SETTINGS = {
    "model": "base", "data": "dialogues", "epochs": 2, "batch_size": 2, "rank": 2,
    "checkpoint_every": 2, "validate_every": 2, "precision": "fp32", "lr": 1e-3,
}  # fmt: skip


def dialogue(number):
    turns = [("user", f"Question {number}?"), ("assistant", f"Answer {number}.")]
    messages = tuple({"role": r, "content": c} for r, c in turns)
    return asdict(Sample(f"s{number}", messages))


@pytest.fixture
def context(tiny_folder, tmp_path):
    write_lines(tmp_path / "data" / TRAIN, [dialogue(n) for n in range(6)])
    write_lines(tmp_path / "data" / VALIDATION, [dialogue(n) for n in range(6, 8)])
    return StepContext(
        inputs={"base": tiny_folder, "dialogues": tmp_path / "data"},
        parents={}, run_folder=tmp_path, seed=0,
    )  # fmt: skip


@pytest.fixture(params=["lora", "full"])
def config(request):
    return Finetune(**SETTINGS, method=request.param)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_its_adapter_and_a_line_a_step(config, context, tmp_path):
    out = tmp_path / "out"
    result = run(config, out, context)
    lines = metrics(out)
    assert (
        [line["step"] for line in lines]
        == [1, 2, 3, 4, 5, 6]
        == list(range(1, result["n_steps"] + 1))
    )
    checks = {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}
    assert sorted(checks) == [2, 4, 6]
    assert result["best_validation_loss"] == min(checks.values()) == checks[result["best_step"]]
    assert result["last_training_loss"] == lines[-1]["loss"]
    assert result["n_tokens"] == lines[-1]["tokens"] > 0
    assert (out / "adapter").exists() == (config.method == "lora")
    assert json.loads((out / "audit.json").read_text()) == result["audit"]
    tuned = load(out / "model", precision="fp32")
    base = load(context.inputs["base"], precision="fp32")
    assert tuned.tokenizer.chat([{"role": "user", "content": "x"}]) == base.tokenizer.chat(
        [{"role": "user", "content": "x"}]
    )
    assert tuned.info.size_bytes == result["size_bytes"]
    assert not torch.equal(
        modules(tuned).decoder.blocks[0].mlp.up.weight,
        modules(base).decoder.blocks[0].mlp.up.weight,
    )


def stop_after(monkeypatch, step):
    """Die, as by a kill, when the line of this step has been written."""
    original = log.append

    def append(path, line):
        original(path, line)
        if line["step"] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "append", append)


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_a_continued_run_has_each_step_once_and_the_same_weights(
    config, context, tmp_path, monkeypatch, step
):
    expected = run(config, tmp_path / "whole", context)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(KeyboardInterrupt):
            run(config, out, context)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # what a kill in the middle of a line leaves
    found = run(config, out, context)
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(metrics(out), metrics(tmp_path / "whole"), strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    timed = {"training_seconds", "tokens_per_second"}
    assert {k: v for k, v in found.items() if k not in timed} == {
        k: v for k, v in expected.items() if k not in timed
    }
    name = "model/model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_killed_while_saving_its_model_is_finished_without_training(
    config, context, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, out, context)
    before = (out / "metrics.jsonl").read_bytes()
    result = run(config, out, context)
    assert (out / "metrics.jsonl").read_bytes() == before
    assert result["n_steps"] == 6
    assert len(read_weights(out / "model")) > 0


def test_the_lora_update_is_added_to_the_exact_base(context, tmp_path):
    """In bf16 the base is rounded; the file must hold round(base + update), rounded once."""
    out = tmp_path / "out"
    run(Finetune(**{**SETTINGS, "precision": "bf16"}, method="lora"), out, context)
    adapter = dict(read_adapter(out / "adapter" / "adapter_model.safetensors"))
    base, tuned = read_weights(context.inputs["base"]), read_weights(out / "model")
    name = "model.layers.0.mlp.up_proj"
    update = 2.0 * (
        adapter[f"base_model.model.{name}.lora_B.weight"]
        @ adapter[f"base_model.model.{name}.lora_A.weight"]
    )
    expected = (base[f"{name}.weight"] + update).bfloat16()
    assert torch.equal(tuned[f"{name}.weight"], expected)


def read_adapter(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_a_faulty_sample_stops_before_training(config, context, tmp_path):
    record = dialogue(9)
    record["messages"][-1]["content"] = "word " * 300
    write_lines(context.inputs["dialogues"] / TRAIN, [dialogue(1), record])
    with pytest.raises(DataError, match=r"sample s9: .*tokens"):
        run(config, tmp_path / "out", context)
    assert not (tmp_path / "out" / "state").exists()
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_full_disk_while_saving_the_state_names_the_file(config, context, tmp_path, monkeypatch):
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lmwright.core.artifact.os.fsync", full)
        with pytest.raises(LmwrightError, match=r"cannot write .*state.*safetensors: No space"):
            run(config, tmp_path / "out", context)
    assert not list((tmp_path / "out").rglob("progress.json"))
    assert not list((tmp_path / "out").rglob("*.part"))
    run(config, tmp_path / "out", context)  # with room again, it goes on
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]
