"""Fine-tuning against peft and TRL, in turns on the same machine.

    python benchmarks/finetune.py tokens    one optimiser step: the same tensors through peft
    python benchmarks/finetune.py recipe    the support recipe: the same data through TRL

This process imports no torch; every contestant runs in a process of its own (see trial.py).
"""

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trial
from trial import Contestant

N_ROWS, N_COLUMNS = 4, 256
RANK = 16
# Both must start from the same loss, up to the rounding of bf16 (2^-8 a number).
LOSS_TOLERANCE = 0.01
# Settings of SFTConfig that explain its time and its loss.
TELLING = (
    "bf16",
    "gradient_checkpointing",
    "assistant_only_loss",
    "packing",
    "max_length",
    "optim",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
)


def main() -> int:
    """Run one of the two comparisons; 1 where the contestants did not do the same work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=COMPARISONS)
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    parser.add_argument("--repeats", type=int, help="runs of each contestant (tokens 3, recipe 1)")
    parser.add_argument("--steps", type=int, default=4, help="tokens: measured steps of each run")
    parser.add_argument("--epochs", type=int, help="recipe: instead of the recipe's own")
    parser.add_argument(
        "--sft",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="recipe: a setting of TRL's SFTConfig (gradient_checkpointing=false); repeatable",
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="the Python that has peft, trl and datasets"
    )
    parser.add_argument("--out", type=Path, help="JSON (default: runs/benchmarks/...)")
    options = parser.parse_args()
    out = options.out or Path("runs/benchmarks") / f"finetune-{options.what}.json"
    machine = trial.machine()
    with tempfile.TemporaryDirectory() as folder:
        numbers, text, is_fair = COMPARISONS[options.what](options, folder)
    trial.write(out, {"benchmark": f"finetune {options.what}", "machine": machine, **numbers})
    print(text)
    return 0 if is_fair else 1


# tokens: one optimiser step


def tokens(options: argparse.Namespace, folder: str) -> tuple[dict[str, Any], str, bool]:
    """Compare the speed of optimiser steps; return numbers, table and whether losses agree."""
    n_repeats = options.repeats or (1 if options.quick else 3)
    steps = (
        {"n_warmup": 1, "n_steps": 1}
        if options.quick
        else {"n_warmup": 2, "n_steps": options.steps}
    )
    trial.run(Contestant(prepare_rows, {"folder": folder}))
    contestants = {}
    for targets in ("all", "assistant"):
        settings = {"folder": folder, "targets": targets, **steps}
        contestants[f"lmwright, {targets}"] = Contestant(step_lmwright, settings)
        contestants[f"peft, {targets}"] = Contestant(step_peft, settings, options.peer_python)
    runs = trial.interleaved(contestants, n_repeats)

    rows = [["targets", "", "tokens/s", "peak memory GB", "first loss", "loss after"]]
    numbers: dict[str, Any] = {"runs": runs, "comparisons": {}}
    is_fair = True
    for targets in ("all", "assistant"):
        ours, peer = runs[f"lmwright, {targets}"], runs[f"peft, {targets}"]
        for name, results in (("lmwright", ours), ("peft", peer)):
            speed = trial.spread([result["tokens_per_s"] for result in results])
            memory = trial.spread([trial.gigabytes(result["peak_bytes"]) for result in results])
            losses = results[0]["losses"]
            rows.append(
                [
                    f"{targets} ({results[0]['n_targets']} of {N_ROWS * N_COLUMNS})",
                    name,
                    trial.shown(speed),
                    trial.shown(memory, 2),
                    f"{losses[0]:.4f}",
                    f"{losses[-1]:.4f}",
                ]
            )
        comparison = compare(ours, peer)
        is_same = comparison["first_loss_difference"] <= LOSS_TOLERANCE * peer[0]["losses"][0]
        is_fair = is_fair and is_same and ours[0]["n_targets"] == peer[0]["n_targets"]
        numbers["comparisons"][targets] = comparison
        ratio, share = (trial.shown(comparison[key], 2) for key in ("speed", "memory"))
        verdict = "the same" if is_same else "DIFFERENT"
        rows.append([targets, "ours / peft", ratio, share, verdict, ""])
    return {**numbers, "is_fair": is_fair}, trial.table(rows), is_fair


def compare(ours: list[dict[str, Any]], peer: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ratios of runs that stood side by side, and how far apart the first losses are."""
    pairs = list(zip(ours, peer, strict=True))
    return {
        "speed": trial.spread([a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs]),
        "memory": trial.spread([a["peak_bytes"] / b["peak_bytes"] for a, b in pairs]),
        "first_loss_difference": abs(ours[0]["losses"][0] - peer[0]["losses"][0]),
    }


def prepare_rows(folder: str) -> dict[str, Any]:
    """Write base/ (the starter as a Hugging Face folder) and rows.json: token ids and masks."""
    from lmwright.data.sources import read
    from lmwright.finetuning.chat import encode
    from lmwright.lm import load

    starter = load("starter", precision="bf16")
    starter.save(Path(folder) / "base")
    samples, _ = read(["starter:bank-support"])
    ids: list[int] = []
    is_target: list[bool] = []
    # Whole rows of real dialogues: nothing to pad, for either.
    for sample in samples:
        encoded = encode(sample, starter.tokenizer, starter.context_length)
        ids += encoded.token_ids
        is_target += encoded.is_target
    rows = [slice(start, start + N_COLUMNS) for start in range(0, N_ROWS * N_COLUMNS, N_COLUMNS)]
    masks = {
        "all": [[True] * N_COLUMNS for _ in rows],
        "assistant": [is_target[row] for row in rows],
    }
    text = json.dumps({"ids": [ids[row] for row in rows], "masks": masks})
    (Path(folder) / "rows.json").write_text(text)
    return {}


def step_lmwright(folder: str, targets: str, n_warmup: int, n_steps: int) -> dict[str, Any]:
    """Time lmwright's training loop, as `lmwright run` uses it."""
    from lmwright.finetuning.chat import CHAT
    from lmwright.finetuning.config import Finetune
    from lmwright.finetuning.methods import prepare
    from lmwright.lm import load, modules
    from lmwright.training.batches import Encoded, pack
    from lmwright.training.loop import train
    from lmwright.training.optim import adamw, warmup_cosine

    config = Finetune(data="rows", method="lora", rank=RANK, precision="bf16")
    model = modules(load(Path(folder) / "base", precision="bf16"))
    prepare(model, config)
    rows = json.loads((Path(folder) / "rows.json").read_text())
    samples = [
        Encoded(str(i), tuple(ids), tuple(mask))
        for i, (ids, mask) in enumerate(zip(rows["ids"], rows["masks"][targets], strict=True))
    ]
    assert config.micro_batch_tokens >= N_ROWS * N_COLUMNS
    n_total = n_warmup + n_steps
    steps = train(
        model,
        [[pack(samples)]] * n_total,
        loss_fn=CHAT.loss,
        optimizer=adamw(model, config.weight_decay),
        rate=lambda step: config.peak_lr * warmup_cosine(step - 1, n_total, 0.0),
        max_grad_norm=1.0,
    )
    losses, seconds, n_targets = [], [], 0
    for _ in range(n_total):
        started = time.perf_counter()
        step = next(steps)
        seconds.append(time.perf_counter() - started)
        losses.append(step.loss)
        n_targets = step.n_targets
    return timing(losses, seconds[n_warmup:], n_targets)


def step_peft(folder: str, targets: str, n_warmup: int, n_steps: int) -> dict[str, Any]:
    """Time a plain loop around transformers with peft's LoRA, adapters as peft makes them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype=torch.bfloat16)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, lora)
    model.train()
    rows = json.loads((Path(folder) / "rows.json").read_text())
    ids, mask = torch.tensor(rows["ids"]), torch.tensor(rows["masks"][targets])
    labels = torch.where(mask, ids, -100)  # transformers shifts them
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Fused, as ours; Trainer's default, too.
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    losses, seconds = [], []
    n_total = n_warmup + n_steps
    for number in range(n_total):
        started = time.perf_counter()
        for group in optimizer.param_groups:  # the rates that ours takes: a cosine
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * number / n_total))
        # The cache is for decoding; here it would only cost the peer memory.
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - started)
    return timing(losses, seconds[n_warmup:], int(mask[:, 1:].sum()))


def timing(losses: list[float], seconds: list[float], n_targets: int) -> dict[str, Any]:
    """Return the speed over measured steps; losses are those of all steps."""
    return {
        "tokens_per_s": N_ROWS * N_COLUMNS * len(seconds) / sum(seconds),
        "step_seconds": seconds,
        "losses": losses,
        "n_targets": n_targets,
    }


# recipe: the whole fine-tuning of the support recipe


def recipe(options: argparse.Namespace, folder: str) -> tuple[dict[str, Any], str, bool]:
    """Compare time and validation loss of the support recipe; return numbers, table and True."""
    overrides = []
    if options.quick:
        overrides = ["data.dialogues.limit=20", "finetune.tuned.epochs=1"]
    if options.epochs is not None:
        overrides.append(f"finetune.tuned.epochs={options.epochs}")
    settings = trial.run(Contestant(prepare_recipe, {"folder": folder, "overrides": overrides}))
    config = settings["finetune"]
    pairs = [text.split("=", 1) for text in options.sft]
    sft = {key: json.loads(value) for key, value in pairs}
    common = {"folder": folder, "config": config}
    contestants = {
        "lmwright": Contestant(recipe_lmwright, common),
        "trl": Contestant(recipe_trl, {**common, "sft": sft}, options.peer_python),
    }
    runs = trial.interleaved(contestants, options.repeats or 1)
    models = {"starter": "base", "lmwright": "lmwright/model", "trl": "trl/model"}
    losses = {
        name: trial.run(Contestant(validation, {"folder": folder, "model": path}))
        for name, path in models.items()
    }

    rows = [["", "training s", "process s", "peak memory GB", "validation loss"]]
    rows.append(["starter, untuned", "", "", "", f"{losses['starter']['loss']:.4f}"])
    for name, results in runs.items():
        cells = [
            [r["training_s"], r["process_s"], trial.gigabytes(r["peak_bytes"])] for r in results
        ]
        spreads = [trial.spread(column) for column in zip(*cells, strict=True)]
        texts = [trial.shown(each, digits) for each, digits in zip(spreads, (0, 0, 2), strict=True)]
        rows.append([name, *texts, f"{losses[name]['loss']:.4f}"])
    keys = ("training_s", "process_s", "peak_bytes")
    couples = list(zip(runs["lmwright"], runs["trl"], strict=True))
    ratios = {key: trial.spread([a[key] / b[key] for a, b in couples]) for key in keys}
    difference = losses["lmwright"]["loss"] - losses["trl"]["loss"]
    texts = [trial.shown(ratios[key], 2) for key in keys]
    rows.append(["ours / trl", *texts, f"{difference:+.4f}"])
    numbers = {
        "settings": settings,
        "sft": runs["trl"][0]["sft"],
        "runs": runs,
        "validation": losses,
        "ratios": ratios,
        "validation_loss_difference": difference,
    }
    return numbers, f"{trial.table(rows)}\n\n{described(settings, numbers['sft'])}", True


def described(settings: dict[str, Any], sft: dict[str, Any]) -> str:
    """Say what was compared, under the table."""
    config = settings["finetune"]
    return (
        f"{settings['n_train']} samples, {config['epochs']} epochs, batch size "
        f"{config['batch_size']}, lr {config['lr']}, LoRA r = {config['rank']}, alpha = "
        f"{config['alpha']} on all linear layers; validation: nats per assistant token of "
        f"{settings['n_validation']} samples, fp32.\n"
        "Training: all of lmwright.finetuning.run (load, tokenise, train, validate, merge, save) "
        "against trainer.train() alone.\n"
        f"TRL's SFTConfig: {json.dumps(sft)}"
    )


def prepare_recipe(folder: str, overrides: list[str]) -> dict[str, Any]:
    """Write base/ and data/ as the support recipe has them; return the [finetune] table."""
    from importlib.resources import files

    from lmwright.core.stage import StepContext
    from lmwright.data.run import run
    from lmwright.lm import load
    from lmwright.recipe.read import read

    load("starter", precision="bf16").save(Path(folder) / "base")
    path = Path(str(files("lmwright"))) / "recipes" / "support.toml"
    plan = read(path, overrides=overrides)
    context = StepContext({}, {}, Path(folder), seed=0)
    counts = run(plan.tables["data"]["dialogues"], Path(folder) / "data", context)
    tuned = plan.tables["finetune"]["tuned"]
    settings = {"lr": tuned.peak_lr, "alpha": tuned.lora_alpha}
    return {"finetune": tuned.model_dump(mode="json") | settings, **counts}


def recipe_lmwright(folder: str, config: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe's fine-tuning step."""
    import shutil

    from lmwright.core.stage import StepContext
    from lmwright.finetuning.config import Finetune
    from lmwright.finetuning.run import run

    out = Path(folder) / "lmwright"
    shutil.rmtree(out, ignore_errors=True)  # or the repeat before would be continued
    out.mkdir()
    started = time.perf_counter()
    finetune = Finetune(**{**config, "model": "base", "data": "data"})
    inputs = {"base": f"{folder}/base", "data": f"{folder}/data"}
    result = run(finetune, out, StepContext(inputs, {}, Path(folder), seed=0))
    return {**result, "training_s": time.perf_counter() - started}


def recipe_trl(folder: str, config: dict[str, Any], sft: dict[str, Any]) -> dict[str, Any]:
    """Run TRL's SFTTrainer on the same dialogues, and merge what it learnt."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    lines = (Path(folder) / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    dialogues = Dataset.from_list([{"messages": json.loads(line)["messages"]} for line in lines])
    out = Path(folder) / "trl"
    arguments = SFTConfig(
        output_dir=str(out / "trainer"),
        num_train_epochs=config["epochs"],
        per_device_train_batch_size=config["batch_size"],
        learning_rate=config["lr"],
        use_cpu=True,
        report_to="none",
        **sft,
    )
    trainer = SFTTrainer(
        model=f"{folder}/base",
        args=arguments,
        train_dataset=dialogues,
        peft_config=LoraConfig(
            r=config["rank"],
            lora_alpha=config["alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    trainer.model.merge_and_unload().save_pretrained(out / "model")
    settings = {key: getattr(arguments, key) for key in TELLING}
    return {"training_s": seconds, "sft": settings, "log": trainer.state.log_history}


def validation(folder: str, model: str) -> dict[str, Any]:
    """Return the loss of a model folder on the validation samples, in fp32, whoever made it."""
    import torch

    from lmwright.data.run import read_samples
    from lmwright.finetuning.chat import CHAT, encode
    from lmwright.model.checkpoint import load_folder
    from lmwright.tokenizer.huggingface.folder import load_tokenizer
    from lmwright.training.batches import micro_batches
    from lmwright.training.loop import validate

    # The base's tokenizer for all of them: the same tokens.
    tokenizer = load_tokenizer(Path(folder) / "base")
    samples = read_samples(Path(folder) / "data" / "validation.jsonl")
    base = load_folder(Path(folder) / model, torch.float32)
    encoded = [encode(sample, tokenizer, base.config.max_positions) for sample in samples]
    loss = validate(base, micro_batches(CHAT, encoded, 2048, torch.Generator()), CHAT.loss)
    return {"loss": loss, "n_targets": sum(sum(sample.is_target) for sample in encoded)}


COMPARISONS = {"tokens": tokens, "recipe": recipe}

if __name__ == "__main__":
    sys.exit(main())
