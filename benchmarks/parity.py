"""How close the numbers are to those of transformers: the largest difference of a logit, in fp32.

    python benchmarks/parity.py

The starter through both, in both directions, and our int8 and int4 folders opened by transformers
with compressed-tensors. 1 where a difference is above the limit.
"""

import sys
import tempfile
from pathlib import Path

import torch
import trial
from transformers import AutoModelForCausalLM

from lmwright import lm
from lmwright.compression.config import Compress
from lmwright.compression.quantize import compress_folder
from lmwright.model import checkpoint
from lmwright.model.transformer import DecoderLM

LIMIT = 1e-4
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Once upon a time, in a village by the sea, there lived a fisherman who",
    "12 + 30 = 42, 7 * 6 =",
)


def main() -> int:
    """Print the table; 1 where a difference is above the limit."""
    starter = lm.load("starter", precision="fp32")
    ids = [starter.tokenizer.encode(prompt) for prompt in PROMPTS]
    rows = [["folder", "opened by", "full forward", "one by one, cached", "padded batch"]]
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder, ours, theirs in pairs(starter, Path(scratch)):
            differences = [
                max(compare(ours, theirs, prompt, cached=False) for prompt in ids),
                max(compare(ours, theirs, prompt, cached=True) for prompt in ids),
                batch(ours, theirs, ids),
            ]
            worst = max(worst, *differences)
            rows.append([name, folder, *(f"{difference:.1e}" for difference in differences)])
    print(trial.table(rows))
    verdict = "PASS" if worst <= LIMIT else "FAIL"
    print(f"\nlargest difference {worst:.1e}, limit {LIMIT:.0e}: {verdict}")
    return 0 if worst <= LIMIT else 1


def pairs(starter: lm.LocalModel, scratch: Path):
    """Yield name, who opens it, our model and theirs."""
    plain = scratch / "plain"
    starter.save(plain)
    yield "starter, saved by lmwright", "transformers", starter.model, opened(plain)
    again = scratch / "again"
    opened(plain).save_pretrained(again)
    yield "the same, saved by transformers", "lmwright", ours(again), opened(again)
    for method in ("int8", "int4"):
        folder = scratch / method
        compress_folder(plain, Compress(model="starter", method=method), folder)
        yield f"{method}, compressed by lmwright", "transformers", ours(folder), opened(folder)


def ours(folder: Path) -> DecoderLM:
    return checkpoint.load_folder(folder, torch.float32)


def opened(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def compare(ours: DecoderLM, theirs: torch.nn.Module, prompt: list[int], *, cached: bool) -> float:
    """Return the largest difference, each in the same way: all at once, or token by token."""
    tokens = torch.tensor([prompt])
    if not cached:
        return float((ours(tokens) - theirs(tokens).logits).abs().max())
    cache, past, largest = ours.new_cache(), None, 0.0
    for i in range(len(prompt)):
        context = ours.cached_context(torch.tensor([[i]]), cache)
        found = ours.head(ours.hidden(tokens[:, i : i + 1], context))
        expected = theirs(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
        past = expected.past_key_values
        largest = max(largest, float((found - expected.logits).abs().max()))
    return largest


@torch.inference_mode()
def batch(ours: DecoderLM, theirs: torch.nn.Module, prompts: list[list[int]]) -> float:
    """Compare prompts of different lengths in one batch with each of them alone."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    positions = torch.arange(width).expand(len(prompts), -1)
    context = ours.cached_context(positions, ours.new_cache())
    logits = ours.head(ours.hidden(tokens, context))
    return max(
        float((logits[i, : len(prompt)] - theirs(torch.tensor([prompt])).logits[0]).abs().max())
        for i, prompt in enumerate(prompts)
    )


if __name__ == "__main__":
    sys.exit(main())
