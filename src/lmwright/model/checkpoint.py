"""Models in and out of files: Hugging Face folders (plain or quantised) and GGUF."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmwright.core.artifact import write_json
from lmwright.core.errors import ModelError
from lmwright.formats.gguf import GgufFile, unpermute
from lmwright.formats.packed import unpack
from lmwright.formats.safetensors_folder import read_weights, write_weights
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families import family
from lmwright.model.families.family import Family, TensorName, expand
from lmwright.model.position import inverse_frequencies
from lmwright.model.transformer import DecoderLM


def load_folder(folder: Path, dtype: torch.dtype) -> DecoderLM:
    """Open a Hugging Face folder, plain or quantised; all weights in `dtype`, on the CPU."""
    settings = read_config(folder)
    with _blaming(folder):
        kind = family(settings.get("model_type", ""))
        config = kind.read_config(settings)
    tensors = read_weights(folder)
    quantization = settings.get("quantization_config")
    if quantization is not None:
        with _blaming(folder):
            tensors = unpack(tensors, quantization, dtype=dtype)
    names = {name.ours: name.hugging_face for name in _names(kind, config)}
    extra = set(tensors) - set(names.values())
    for name in sorted(extra):
        is_ignored = name.endswith(kind.ignored)
        # Some writers store the tied head a second time.
        is_tied_head = config.ties_embeddings and name == "lm_head.weight"
        if not is_ignored and not is_tied_head:
            raise ModelError(f"{folder}: tensor {name!r} has no place in a {kind.name} model")
    return _build(config, names, read=tensors.__getitem__, source=folder, dtype=dtype)


def load_gguf(file: GgufFile, dtype: torch.dtype) -> DecoderLM:
    """Build the model of a GGUF file; all weights dequantised to `dtype`, on the CPU."""
    with _blaming(file.path):
        kind = family(file.metadata.get("general.architecture", ""))
        config = kind.read_gguf_config(file.metadata)
        config = replace(config, ties_embeddings="output.weight" not in file.tensors)
        if "rope_freqs.weight" in file.tensors:
            factors = torch.from_numpy(file.read("rope_freqs.weight"))
            config = replace(config, rope=_llama3_rope(config, factors))
    names = {name.ours: name.gguf for name in _names(kind, config)}
    extra = set(file.tensors) - set(names.values()) - set(kind.ignored)
    if extra:
        raise ModelError(f"{file.path}: tensor {min(extra)!r} has no place in a {kind.name} model")
    # llama.cpp keeps q and k in the order of interleaved rotary pairs.
    n_permuted = {"attn_q.weight": config.n_heads, "attn_k.weight": config.n_kv_heads}

    def read(name: str) -> Tensor:
        weight = file.read(name)
        n_heads = n_permuted.get(name.split(".", 2)[-1])
        if n_heads is not None:
            with _blaming(f"{file.path}: tensor {name!r}"):
                weight = unpermute(weight, n_heads)
        return torch.from_numpy(weight)

    return _build(config, names, read=read, source=file.path, dtype=dtype)


def save(model: DecoderLM, folder: Path, dtype: torch.dtype) -> None:
    """Write config.json, generation_config.json and model.safetensors; transformers opens them."""
    kind = family(model.config.family)
    weights = model.state_dict()
    tensors = {
        name.hugging_face: weights[name.ours].to(dtype).contiguous()
        for name in _names(kind, model.config)
    }
    write_weights(tensors, folder)
    config = {
        "architectures": [kind.architecture],
        "model_type": kind.name,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **kind.write_config(model.config),
    }
    write_json(folder / "config.json", config)
    generation = {
        key: config[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if config[key] is not None
    }
    write_json(folder / "generation_config.json", generation)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: {folder} is no Hugging Face model folder") from None
    # ValueError: not UTF-8, not JSON, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object, found {type(config).__name__}")
    if "auto_map" in config:
        raise ModelError(
            f"{path} asks for the model's own code (auto_map), which lmwright never runs"
        )
    return config


@contextmanager
def _blaming(source: Path | str) -> Iterator[None]:
    """Put the file's name before an error; a value of the wrong kind is the file's fault, too."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"{source}: a value of the wrong kind: {error}") from None


def _llama3_rope(config: ModelConfig, factors: Tensor) -> Rope:
    """Recognise Llama 3.1's scaling, which GGUF stores as one divisor a frequency."""
    rope = replace(config.rope, scaling="llama3", factor=float(factors.max()))
    plain = inverse_frequencies(replace(rope, scaling="none"), config.d_head)
    expected = plain / inverse_frequencies(rope, config.d_head)
    if expected.shape != factors.shape or not torch.allclose(expected, factors, rtol=1e-3):
        raise ModelError("rope_freqs.weight is not the scaling of Llama 3.1: no other is known")
    return rope


def _names(kind: Family, config: ModelConfig) -> list[TensorName]:
    names = expand(kind, config.n_layers)
    return [n for n in names if not (config.ties_embeddings and n.ours == "head.weight")]


def _build(
    config: ModelConfig,
    names: dict[str, str],
    *,
    read: Callable[[str], Tensor],
    source: Path,
    dtype: torch.dtype,
) -> DecoderLM:
    """Make the modules without memory and give each its tensor; none is missing or random.

    `names` says what the source calls each of our tensors.
    """
    with torch.device("meta"):
        model = DecoderLM(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def checked(ours: str) -> Tensor:
        name = names[ours]
        try:
            tensor = read(name)
        except KeyError:
            raise ModelError(f"{source}: tensor {name!r} is missing") from None
        if tensor.shape != shapes[ours]:
            raise ModelError(
                f"{source}: tensor {name!r} has shape {tuple(tensor.shape)}, "
                f"the configuration asks for {tuple(shapes[ours])}"
            )
        return tensor.to(dtype)

    # Reading, dequantising and casting free the GIL: two cores halve the time to load.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        tensors = list(pool.map(checked, names))
    weights = dict(zip(names, tensors, strict=True))
    if config.ties_embeddings:
        weights["head.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights, assign=True)
    if config.ties_embeddings:  # assigning made two parameters of the one
        model.head.weight = model.embedding.weight
    model.compute_dtype = dtype
    return model.requires_grad_(False)
