"""How close the numbers are to those of transformers: the largest difference of a logit, in fp32.

    python benchmarks/parity.py [--write docs/models.md]

Each family with tiny random models (those of tests/families.py), then real weights: the starter in
both directions, Gemma 3 from its GGUF, MiniLM, and our int8 and int4 folders opened by transformers
with compressed-tensors. 1 where a difference is above the limit. `--write` puts both tables between
the two markers of a page.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import trial

# The models and the comparisons are those of the tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from transformers import AutoModel, AutoModelForCausalLM

import differences
import weights
from cached_rows import CachedRows
from differences import CACHE, largest
from families import LIMIT, VARIANTS
from lmwright import lm
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.formats.gguf import open_gguf
from lmwright.model import checkpoint
from lmwright.model.families import FAMILIES

BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Once upon a time, in a village by the sea, there lived a fisherman who",
    "12 + 30 = 42, 7 * 6 =",
)
Row = list[str]


def main() -> int:
    """Print the tables; 1 where a difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page with the two markers")
    page = parser.parse_args().write
    worst: list[float] = []
    families = trial.table(family_rows(worst))
    print(families, flush=True)
    reals = trial.table(real_rows(worst))
    print(f"\n{reals}")
    verdict = "PASS" if max(worst) <= LIMIT else "FAIL"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    summary = f"Largest difference {max(worst):.1e}, limit {LIMIT:.0e}: {verdict} ({versions})."
    print(f"\n{summary}")
    if page is not None:
        write(page, f"{families}\n\n{reals}\n\n{summary}")
    return 0 if verdict == "PASS" else 1


def write(page: Path, text: str) -> None:
    """Put text between the markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def verdict(measured: list[float]) -> str:
    return "PASS" if max(measured) <= LIMIT else "FAIL"


def family_rows(worst: list[float]) -> list[Row]:
    """Return a row a family: the largest difference among its models, way by way."""
    ways: dict[str, Callable[[differences.Pair], float]] = {
        "full forward": differences.full_forward,
        "padded batch": differences.padded_batch,
        "cached decoding": differences.cached_decoding,
        "packed samples": differences.packed_samples,
        "saved, reopened": differences.saved,
    }
    rows = [["family", "models", *ways, "verdict"]]
    for family in FAMILIES:
        pairs = [differences.pair(name) for name, v in VARIANTS.items() if v.family == family]
        cells, measured = [], []
        for name, way in ways.items():
            if not is_possible(name, pairs[0]):
                cells.append("")
                continue
            measured.append(max(way(pair) for pair in pairs))
            cells.append(f"{measured[-1]:.1e}")
        worst += measured
        rows.append([f"`{family}`", str(len(pairs)), *cells, verdict(measured)])
    return rows


def is_possible(way: str, pair: differences.Pair) -> bool:
    """Tell whether a model of this kind works in this way."""
    if way == "cached decoding":
        return type(pair.ours) in differences.CACHED
    return way != "packed samples" or hasattr(pair.ours, "packed_hidden")


def real_rows(worst: list[float]) -> list[Row]:
    """Return a row a real model."""
    rows = [["weights", "opened by", "full forward", "padded batch", "cached decoding", "verdict"]]
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder, differences_of in reals(Path(scratch)):
            try:
                measured = differences_of()
            except pytest.skip.Exception as reason:
                print(f"{name}: left out, {reason}", file=sys.stderr)
                continue
            worst += measured
            cells = [f"{difference:.1e}" for difference in measured]
            rows.append([name, folder, *cells, *[""] * (3 - len(cells)), verdict(measured)])
    return rows


def reals(scratch: Path) -> Iterator[tuple[str, str, Callable[[], list[float]]]]:
    """Yield name, who opens it, and what measures it."""
    starter = lm.load("starter", precision="fp32")
    ids = [starter.tokenizer.encode(prompt) for prompt in PROMPTS]
    plain, again = scratch / "plain", scratch / "again"
    starter.save(plain)
    yield (
        "starter (SmolLM2-135M), saved by lmwright",
        "transformers",
        lambda: decoder(lm.modules(starter), opened(plain), ids),
    )
    opened(plain).save_pretrained(again)
    yield (
        "the same, saved by transformers",
        "lmwright",
        lambda: decoder(ours(again), opened(again), ids),
    )
    for method in ("int8", "int4"):
        folder = scratch / method
        compress_folder(plain, Compress(model="starter", method=method), folder)
        yield (
            f"{method}, compressed by lmwright",
            "transformers",
            lambda folder=folder: decoder(ours(folder), opened(folder), ids),
        )
    yield "Gemma 3 270M, GGUF (Q4_K_M)", "both", gemma
    yield "all-MiniLM-L6-v2, as it is on the Hub", "both", minilm


def ours(folder: Path) -> Any:
    return checkpoint.load_folder(folder, torch.float32)


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def gemma() -> list[float]:
    """Compare Gemma 3 270M, each reading the same file."""
    path = weights.gemma3_270m()
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    local = lm.load(path, precision="fp32")
    with open_gguf(path) as file:
        model = checkpoint.load_gguf(file, torch.float32)
    ids = [local.tokenizer.encode(prompt) for prompt in PROMPTS]
    return decoder(model, theirs.eval(), ids)


@torch.inference_mode()
def minilm() -> list[float]:
    """Compare MiniLM's hidden states, each text alone and all in one batch."""
    folder = weights.minilm()
    model, theirs = ours(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, model.config.vocab_size, (3, 64), generator=generator)
    mask = torch.arange(64) < torch.tensor([[64], [40], [7]])
    full = largest(model(ids), theirs(ids).last_hidden_state)
    expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    return [full, largest(model(ids, mask=mask)[mask], expected[mask])]


def decoder(ours: Any, theirs: Any, ids: list[list[int]]) -> list[float]:
    """Return the largest difference whole, in a padded batch, and token by token."""
    return [
        max(compare(ours, theirs, prompt, cached=False) for prompt in ids),
        batch(ours, theirs, ids),
        max(compare(ours, theirs, prompt, cached=True) for prompt in ids),
    ]


@torch.inference_mode()
def compare(ours: Any, theirs: Any, prompt: list[int], *, cached: bool) -> float:
    """Return the largest difference, each in the same way: all at once, or token by token."""
    tokens = torch.tensor([prompt])
    if not cached:
        return largest(ours(tokens), theirs(tokens).logits)
    rows, past, worst = CachedRows(ours, 1), None, 0.0
    for i in range(len(prompt)):
        found = rows.logits(tokens[:, i : i + 1])
        expected = theirs(tokens[:, i : i + 1], use_cache=True, **{CACHE: past})
        past = expected[CACHE]
        worst = max(worst, largest(found, expected.logits))
    return worst


@torch.inference_mode()
def batch(ours: Any, theirs: Any, prompts: list[list[int]]) -> float:
    """Compare prompts of different lengths in one batch with each of them alone."""
    logits = CachedRows(ours, len(prompts)).ragged_logits(list(map(torch.tensor, prompts)))
    return max(
        largest(found, theirs(torch.tensor([prompt])).logits[0])
        for found, prompt in zip(logits, prompts, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
