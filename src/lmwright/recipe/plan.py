"""About how long a step takes and how much memory it needs: rough, but said beforehand.

Time is work / speed, with work in multiply-adds counted as two operations (a forward pass is
2 x parameters x tokens) and speeds measured on 2 cores of an AMD EPYC with AVX-512 bf16. A GPU
is faster; how much is not guessed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lmwright.compression.config import Compress
from lmwright.core.lineage import n_cores
from lmwright.core.stage import PROCESS_BYTES
from lmwright.data.config import Data
from lmwright.data.sources import locate, read
from lmwright.evaluation.config import Evaluate
from lmwright.finetuning.config import Finetune
from lmwright.hosted.address import is_hosted
from lmwright.recipe.read import Step

# SmolLM2-135M; also taken for models that cannot be looked at without a download.
STARTER_PARAMS = 134_515_008
# Operations a second and core that training reaches (a bare bf16 matrix product: 3.6e11).
TRAINING_SPEED = 1.5e11
# Seconds and core to measure a model of the starter's size.
EVALUATION_S = {"quick": 116.0, "full": 1500.0}
# Parameters a second that are read, rounded, packed and written.
COMPRESSION_SPEED = 2e7
# English text; the chat template adds about so many tokens a turn.
BYTES_PER_TOKEN = 4.2
TOKENS_PER_TURN = 5
# Data up to this size is read and counted (under a second), larger data is judged by its size.
READABLE_BYTES = 20_000_000
# For the backward pass, about so many bytes a token and square root of a parameter are kept.
ACTIVATION_BYTES = 100.0


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes, to be read with an "about"."""

    seconds: float
    memory_bytes: int
    # False where a size had to be assumed (a model or data on a hub), or a model is hosted.
    is_complete: bool = True

    def __str__(self) -> str:
        doubt = "" if self.is_complete else ", sizes partly unknown"
        return f"about {duration(self.seconds)}, {self.memory_bytes / 1e9:.1f} GB{doubt}"


def duration(seconds: float) -> str:
    """Write a time as people say it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def estimate(step: Step, earlier: Mapping[str, Step]) -> Estimate:
    """Estimate one step of a recipe; `earlier` holds the steps before it, by name."""
    config = step.config
    if isinstance(config, Data):
        size = _source_bytes(config)
        return Estimate(1 + (size or 0) / 5e6, 200_000_000 + 5 * (size or 0), size is not None)
    if isinstance(config, Finetune):
        return _finetune(config, earlier)
    if isinstance(config, Compress):
        params = _params(config.model, earlier)
        seconds = 3 + (params or STARTER_PARAMS) / COMPRESSION_SPEED
        # It and its source are compared in fp32.
        return Estimate(seconds, _memory(params, bytes_per_param=10), params is not None)
    if isinstance(config, Evaluate):
        return _evaluate(config, earlier)
    return Estimate(5, 400_000_000)


def _finetune(config: Finetune, earlier: Mapping[str, Step]) -> Estimate:
    params = _params(config.model, earlier)
    data = earlier[config.data].config
    assert isinstance(data, Data)
    tokens = _tokens(data)
    n_params = params or STARTER_PARAMS
    # Forward and, through frozen weights, backward; gradients of the weights only when they move.
    per_token = (4 if config.method == "lora" else 6) * n_params
    seconds = 5 + per_token * (tokens or 0) * config.epochs / (TRAINING_SPEED * n_cores())
    activations = config.micro_batch_tokens * ACTIVATION_BYTES * n_params**0.5
    # bf16 weights; or with fp32 master weights, gradients and two moments of AdamW.
    memory = _memory(params, bytes_per_param=2 if config.method == "lora" else 18)
    return Estimate(seconds, memory + int(activations), params is not None and tokens is not None)


def _evaluate(config: Evaluate, earlier: Mapping[str, Step]) -> Estimate:
    # What a hosted model takes is its endpoint's affair: nothing here, and how long is not known.
    local = [name for name in config.models if not is_hosted(name)]
    sizes = [_params(name, earlier) for name in local]
    relative = sum((size or STARTER_PARAMS) / STARTER_PARAMS for size in sizes)
    largest = max((size or STARTER_PARAMS for size in sizes), default=0)
    # Held in fp32 where the CPU has no bf16; one model at a time.
    return Estimate(
        relative * EVALUATION_S[config.suite] / n_cores(),
        PROCESS_BYTES + 6 * largest,
        is_complete=None not in sizes and len(local) == len(config.models),
    )


def _memory(params: int | None, *, bytes_per_param: int) -> int:
    return PROCESS_BYTES + bytes_per_param * (params or STARTER_PARAMS)


def _params(name: str, earlier: Mapping[str, Step]) -> int | None:
    """Return about how many parameters a model has; None where nothing local tells."""
    while name in earlier:
        # What fine-tuning and compression make has as many as what it was made from.
        parent = earlier[name].parent
        assert parent is not None
        name = parent
    if name == "starter":
        return STARTER_PARAMS
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        # Most GGUF files are quantised to four or five bits.
        return int(path.stat().st_size / 0.6)
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
        return size // 2 or None
    return None


def _tokens(config: Data) -> int | None:
    """Return about how many tokens an epoch has; None for data that must first be downloaded."""
    size = _source_bytes(config)
    if size is None or size > READABLE_BYTES:
        return None if size is None else int(size / BYTES_PER_TOKEN)
    samples, _ = read(_sources(config), config.system)
    characters = sum(len(turn["content"]) for sample in samples for turn in sample.messages)
    turns = sum(len(sample.messages) for sample in samples)
    used = min(config.limit or len(samples), len(samples)) / len(samples) if samples else 0
    tokens = characters / BYTES_PER_TOKEN + turns * TOKENS_PER_TURN
    return int(tokens * used * (1 - config.validation))


def _source_bytes(config: Data) -> int | None:
    """Return the size of local sources, or None if some lie on a hub."""
    sources = _sources(config)
    if any(source.startswith("hub:") for source in sources):
        return None
    return sum(path.stat().st_size for source in sources for path in locate(source))


def _sources(config: Data) -> list[str]:
    return [config.source] if isinstance(config.source, str) else config.source
