"""Models in and out of files: Hugging Face folders (plain or quantised) and GGUF."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lmwright.core.artifact import write_json
from lmwright.core.errors import ModelError
from lmwright.formats.gguf import GgufFile, permute, unpermute
from lmwright.formats.gguf_writer import TensorSource, file_metadata, write_gguf
from lmwright.formats.json_file import read_json
from lmwright.formats.packed import unpack
from lmwright.formats.safetensors_folder import Weights, read_weights, write_weights
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families import family, gguf_family
from lmwright.model.families.config_json import model_config, settings_of
from lmwright.model.families.family import Family, Gguf, TensorRow, rows_of
from lmwright.model.families.gguf_keys import read_gguf_config, write_gguf_config
from lmwright.model.position import inverse_frequencies
from lmwright.model.transformer import DecoderLM, Model, tie

# Llama 3.1's scaling, which GGUF stores as one divisor a frequency.
ROPE_FACTORS = "rope_freqs.weight"
# What an answer begins with and what is never in it.
ANSWER_KEYS = ("decoder_start_token_id", "forced_bos_token_id", "bad_words_ids")
# What the configuration holds of generation_config.json in fields of its own, and what is said of
# the file itself.
ROLE_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", *ANSWER_KEYS)
OWN_KEYS = (*ROLE_KEYS, "transformers_version", "_from_model_config")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder or file holds: its model, still without weights, and where they are."""

    family: Family
    model: Model
    # The name in the file of each tensor.
    names: Mapping[TensorRow, str]

    def shape(self, row: TensorRow) -> tuple[int, ...]:
        """Return the shape that the configuration asks for, of all in a row together."""
        shapes = [self.model.get_parameter(name).shape for name in row.ours]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def check(self, row: TensorRow, shape: tuple[int, ...], *, source: Path) -> None:
        """Raise an error if a tensor of `source` has another shape."""
        if shape != self.shape(row):
            raise ModelError(
                f"{source}: tensor {self.names[row]!r} has shape {shape}, "
                f"the configuration asks for {self.shape(row)}"
            )


def turned(row: TensorRow, tensor: Tensor) -> Tensor:
    """Return a folder's tensor as we hold it."""
    if row.layout == "row" and tensor.ndim == 2:
        return tensor.squeeze(0)
    return tensor.T if row.layout == "transposed" else tensor


def load_folder(folder: Path, dtype: torch.dtype) -> Model:
    """Open a Hugging Face folder, plain or quantised; all weights in `dtype`, on the CPU."""
    generation = _generation_settings(folder)
    answers = {key: generation[key] for key in ANSWER_KEYS if generation.get(key) is not None}
    settings = read_config(folder) | answers
    tensors: Mapping[str, Tensor] = read_weights(folder)
    quantization = settings.get("quantization_config")
    if quantization is not None:
        with _blaming(folder):
            tensors = unpack(tensors, quantization, dtype=dtype)
    layout = read_layout(folder, settings, tensors)
    kept = {key: value for key, value in generation.items() if key not in OWN_KEYS}
    layout.model.config = replace(layout.model.config, generation=kept)

    def read(row: TensorRow) -> Tensor:
        name = layout.names[row]
        if name not in tensors:  # read_layout has allowed it
            return torch.zeros(layout.shape(row))
        tensor = tensors.read(name, dtype) if isinstance(tensors, Weights) else tensors[name]
        return turned(row, tensor)

    return _filled(layout, read=read, source=folder, dtype=dtype)


def load_gguf(file: GgufFile, dtype: torch.dtype) -> DecoderLM:
    """Build the model of a GGUF file; all weights dequantised to `dtype`, on the CPU."""
    layout = read_gguf_layout(file)
    gguf, config, names = cast(Gguf, layout.family.gguf), layout.model.config, layout.names
    # Taken before decoding begins: among its buffers they would leave holes, 5 % of the weights.
    empty = {row: torch.empty(file.tensors[name].shape, dtype=dtype) for row, name in names.items()}

    def read(row: TensorRow) -> Tensor:
        name, weight = names[row], empty.pop(row)
        rows, at, shift = weight.view(-1, weight.shape[-1]), 0, gguf.shift(name)
        for block in file.blocks(name):
            block -= np.float32(shift)
            rows[at : at + len(block)] = torch.from_numpy(block)
            at += len(block)
        n_heads = gguf.n_permuted(name, config)
        with _blaming(f"{file.path}: tensor {name!r}"):
            # Into the same memory, for the reason above.
            return weight.copy_(unpermute(weight, n_heads)) if n_heads else weight

    model = _filled(layout, read=read, source=file.path, dtype=dtype)
    return cast(DecoderLM, model)  # GGUF_FAMILIES are decoders


def save(model: Model, folder: Path, dtype: torch.dtype) -> None:
    """Write config.json, generation_config.json and model.safetensors; transformers opens them."""
    config = model.config
    kind = family(config.family)
    weights = model.state_dict()
    tensors = {}
    for row in _rows(kind, model):
        tensor = torch.cat([weights[name] for name in row.ours]).to(dtype)
        tensor = tensor[None] if row.layout == "row" else tensor
        tensor = tensor.T if row.layout == "transposed" else tensor
        name = row.hugging_face.removeprefix(kind.prefix if config.head == "none" else "")
        tensors[name] = tensor.contiguous()
    write_weights(tensors, folder)
    settings = {**settings_of(kind, config), "torch_dtype": str(dtype).removeprefix("torch.")}
    write_json(folder / "config.json", settings)
    generation = {key: settings[key] for key in ROLE_KEYS if settings.get(key) is not None}
    write_json(folder / "generation_config.json", {**config.generation, **generation})


def save_gguf(
    model: Model,
    path: Path,
    *,
    type_name: str,
    tokenizer_metadata: Mapping[str, Any],
    name: str,
) -> dict[str, str]:
    """Write a decoder as GGUF; return the tensors that are stored otherwise than `type_name` says.

    Types are F32, F16, BF16, Q8_0 and Q4_0; vectors are always F32.
    """
    config = model.config
    kind = family(config.family)
    metadata = {
        **write_gguf_config(kind, config),  # decoders only
        "general.type": "model",
        "general.name": name,
        **file_metadata(type_name),
        **tokenizer_metadata,
    }
    gguf = cast(Gguf, kind.gguf)
    weights = model.state_dict()

    def source(row: TensorRow) -> TensorSource:
        parts = [weights[name] for name in row.ours]
        shape = (sum(len(part) for part in parts), *parts[0].shape[1:])

        def read() -> np.ndarray:
            name = cast(str, row.gguf)
            weight = torch.cat(parts).float().cpu().numpy() + np.float32(gguf.shift(name))
            n_heads = gguf.n_permuted(name, config)
            return permute(weight, n_heads) if n_heads else weight

        return TensorSource(shape, type_name, read)

    tensors = {cast(str, row.gguf): source(row) for row in _rows(kind, model)}
    if config.rope.scaling == "llama3":
        factors = _rope_factors(config.rope, config.d_head)
        tensors[ROPE_FACTORS] = TensorSource(tuple(factors.shape), "F32", factors.numpy)
    return write_gguf(path, metadata, tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder."""
    path = folder / "config.json"
    config = read_json(path, dict)
    if config is None:
        raise ModelError(f"{path} is missing: {folder} is no Hugging Face model folder")
    if "auto_map" in config:
        raise ModelError(
            f"{path} asks for the model's own code (auto_map), which lmwright never runs"
        )
    return config


def _generation_settings(folder: Path) -> dict[str, Any]:
    """Return what is told of answers; transformers 5 writes it to this file alone."""
    return read_json(folder / "generation_config.json", dict) or {}


def read_layout(
    folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Checkpoint:
    """Match a folder's tensors with its configuration; one missing or unknown is an error."""
    with _blaming(folder / "config.json"):
        kind = family(settings.get("model_type", ""))
        model = _empty(kind, kind.refine(model_config(kind, settings), tensors))
    with _blaming(folder):
        has_prefix = any(name.startswith(kind.prefix) for name in tensors)
        names = {}
        for row in _rows(kind, model):
            name = row.hugging_face if has_prefix else row.hugging_face.removeprefix(kind.prefix)
            for new, old in kind.old_endings.items():
                if name.endswith(new) and name not in tensors:
                    name = name.removesuffix(new) + old
            if name not in tensors and name not in kind.zeros:
                raise ModelError(f"tensor {name!r} is missing")
            names[row] = name
        extra = set(tensors) - set(names.values())
        for name in sorted(name for name in extra if not name.endswith(kind.ignored)):
            _check_copy(name, kind, tensors)
    return Checkpoint(kind, model, names)


def read_gguf_layout(file: GgufFile) -> Checkpoint:
    """Match a GGUF's tensors with its metadata; one missing or unknown is an error."""
    with _blaming(file.path):
        kind = gguf_family(file.metadata.get("general.architecture", ""))
        embedding = file.tensors.get("token_embd.weight")
        if embedding is None:
            raise ModelError("tensor 'token_embd.weight' is missing")
        is_tied = "output.weight" not in file.tensors
        config = read_gguf_config(
            kind, file.metadata, vocab_size=embedding.shape[0], is_tied=is_tied
        )
        if ROPE_FACTORS in file.tensors:
            factors = torch.from_numpy(file.read(ROPE_FACTORS))
            config = replace(config, rope=_llama3_rope(config, factors))
        model = _empty(kind, config)
        names = {row: cast(str, row.gguf) for row in _rows(kind, model)}
        missing = sorted(set(names.values()) - set(file.tensors))
        if missing:
            raise ModelError(f"tensor {missing[0]!r} is missing")
        extra = sorted(set(file.tensors) - set(names.values()) - {ROPE_FACTORS})
        if extra:
            raise ModelError(f"tensor {extra[0]!r} has no place in a {kind.name} model")
    return Checkpoint(kind, model, names)


@contextmanager
def _blaming(source: Path | str) -> Iterator[None]:
    """Put the file's name before an error; a value of the wrong kind is the file's fault, too."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    except KeyError as error:
        raise ModelError(f"{source}: {error.args[0]} is missing") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        raise ModelError(f"{source}: a value of the wrong kind: {error}") from None


def _empty(kind: Family, config: ModelConfig) -> Model:
    """Return the modules on the meta device, where weights have a shape and take no memory."""
    with torch.device("meta"):
        return kind.assembly(config)


def _rows(kind: Family, model: Model) -> Iterator[TensorRow]:
    """Yield one row a tensor of this model's file."""
    return rows_of(kind, model.config, set(model.state_dict()) - set(model.ties))


def _check_copy(name: str, kind: Family, tensors: Mapping[str, Tensor]) -> None:
    """Accept a tensor that some writers store a second time, if it is the same."""
    source = kind.copies.get(name, "")
    source = source if source in tensors else source.removeprefix(kind.prefix)
    if source not in tensors:
        raise ModelError(f"tensor {name!r} has no place in a {kind.name} model")
    if not torch.equal(tensors[name], tensors[source]):
        raise ModelError(f"tensor {name!r} should be {source!r} once more, but differs from it")


def _llama3_rope(config: ModelConfig, factors: Tensor) -> Rope:
    """Recognise Llama 3.1's scaling by its divisors."""
    rope = replace(config.rope, scaling="llama3", factor=float(factors.max()))
    expected = _rope_factors(rope, config.d_head)
    if expected.shape != factors.shape or not torch.allclose(expected, factors, rtol=1e-3):
        raise ModelError(f"{ROPE_FACTORS} is not the scaling of Llama 3.1: no other is known")
    return rope


def _rope_factors(rope: Rope, d_head: int) -> Tensor:
    plain = inverse_frequencies(replace(rope, scaling="none"), d_head)
    return plain / inverse_frequencies(rope, d_head)


def _filled(
    layout: Checkpoint,
    *,
    read: Callable[[TensorRow], Tensor],
    source: Path,
    dtype: torch.dtype,
) -> Model:
    """Give each of the model's parameters its tensor; none is missing or random."""
    model = layout.model

    def checked(row: TensorRow) -> dict[str, Tensor]:
        tensor = read(row)
        layout.check(row, tuple(tensor.shape), source=source)
        sizes = [len(model.get_parameter(name)) for name in row.ours]
        parts = tensor.to(dtype).contiguous().split(sizes)
        return dict(zip(row.ours, parts, strict=True))

    # Reading, dequantising and casting free the GIL: two cores halve the time to load.
    weights: dict[str, Tensor] = {}
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for tensors in pool.map(checked, layout.names):
            weights |= tensors
    weights |= {name: weights[other] for name, other in model.ties.items()}
    model.load_state_dict(weights, assign=True)
    tie(model)  # assigning made several parameters of one
    model.compute_dtype = dtype
    return model.requires_grad_(False)
