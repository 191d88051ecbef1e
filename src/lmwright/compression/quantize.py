"""A model of fewer bits from a Hugging Face folder: group-wise, symmetric, round to nearest.

Only the matrices of attention and MLP become integers. Embedding and head stay, in 16 bits: in
SmolLM2-135M they are one matrix, a fifth of the weights. In 8 bits it would lose nothing
(0.002 nats a token) and be 29 MB in place of 57, but then neither reader opens the folder:
transformers 5.24 wants to initialise the missing `embed_tokens.weight`, and vLLM 0.33 cannot tie
a head to a packed embedding. Untied, two copies in 8 bits are 58 MB. In 4 bits it costs more
than all other matrices in 4 bits together (0.46 nats a token against 0.32, on a page of text).
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmwright.compression.config import Compress
from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import ModelError, RequestError
from lmwright.core.progress import bar
from lmwright.formats.packed import Scheme, dequantize, describe, pack
from lmwright.formats.safetensors_folder import Weights, read_weights, write_weights
from lmwright.model.checkpoint import Checkpoint, read_config, read_layout
from lmwright.model.transformer import DecoderLM

BITS = {"int8": 8, "int4": 4}
# Tried as the largest value that a group can still hold, as a part of the largest in it; the one
# with the least squared error is taken. With 15 steps, clipping one outlier pays: on SmolLM2 in
# groups of 64 the error falls from 11.3 % to 9.7 %. With 255 steps it never does.
CLIPS = {8: (1.0,), 4: (1.0, 0.95, 0.9, 0.85, 0.8)}
# Numbers rounded at a time: what is computed on the way stays in the cache.
BLOCK = 2**17
QUANTIZED = ("attention", "mlp")
HEAD = "lm_head"
# What belongs to a model besides config.json and weights.
COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
)


@dataclass
class Part:
    """What became of one part of the model, summed while its tensors pass by."""

    n_params: int = 0
    size_bytes: int = 0
    squares: float = 0.0
    squared_errors: float = 0.0

    def add(self, weight: Tensor, restored: Tensor, stored: Mapping[str, Tensor]) -> None:
        """Count one tensor: as it was, as it will be read back, and as it is stored."""
        self.n_params += weight.numel()
        self.size_bytes += sum(tensor.nbytes for tensor in stored.values())
        self.squares += float(weight.float().square().sum(dtype=torch.float64))
        errors = restored.float() - weight.float()
        self.squared_errors += float(errors.square_().sum(dtype=torch.float64))

    def to_json(self) -> dict[str, float]:
        """Return the sums, and the error as a fraction of the weights (Frobenius norms)."""
        return {
            "n_params": self.n_params,
            "size_bytes": self.size_bytes,
            "bits_per_weight": 8 * self.size_bytes / self.n_params if self.n_params else 0.0,
            "relative_error": math.sqrt(self.squared_errors / self.squares)
            if self.squares
            else 0.0,
        }


def compress_folder(folder_in: Path, config: Compress, folder_out: Path) -> dict[str, Any]:
    """Write the compressed model to `folder_out`; return sizes and errors, in all and by part.

    Reads tensor by tensor; only what is written is held in memory.
    """
    if folder_in.resolve() == folder_out.resolve():
        raise RequestError(f"{folder_out}: is the model to be compressed; write to another folder")
    settings = read_config(folder_in)
    _check_not_quantized(folder_in, settings)
    weights = read_weights(folder_in)
    layout = _layout(weights, settings)
    part_names = {name: _part_of(row.ours[0]) for row, name in layout.names.items()}
    matrices = {name for name, part in part_names.items() if _is_quantized(weights, name, part)}
    _check_group_size(weights, matrices, config.group_size)
    scheme = Scheme(BITS[config.method], config.group_size)
    parts = {part: Part() for part in (*QUANTIZED, "embedding", "norms")}
    tensors: dict[str, Tensor] = {}
    with bar(f"compress {config.method}", total=len(part_names)) as progress:
        for name, part in part_names.items():
            weight = _finite(weights[name], f"{folder_in}: tensor {name!r}")
            stored, restored = _store(name, weight, scheme if name in matrices else None)
            parts[part].add(weight, restored, stored)
            tensors.update(stored)
            progress.advance()
    write_weights(tensors, folder_out)
    _copy_companions(folder_in, folder_out)
    quantization = describe(scheme, ignore=[HEAD])
    # Last, because a folder without config.json is no model.
    write_json(folder_out / "config.json", {**settings, "quantization_config": quantization})
    return _summary(config, weights, read_weights(folder_out), parts)


def quantize_groups(weight: Tensor, *, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Return int8 integers (N, K) and scales (N, K / group_size) with weight = integer * scale.

    Scales have 16 bits: fp16 for a weight in fp16, else bf16. They are never 0.
    """
    n_rows = max(1, BLOCK // weight.shape[1])
    blocks = [_quantize_rows(rows, bits, group_size) for rows in weight.split(n_rows)]
    ints, scales = zip(*blocks, strict=True)
    return torch.cat(ints), torch.cat(scales)


def _quantize_rows(weight: Tensor, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    scale_dtype = torch.float16 if weight.dtype == torch.float16 else torch.bfloat16
    groups = weight.float().unflatten(1, (-1, group_size))  # (N, G, S)
    widest = groups.abs().amax(2) / (2 ** (bits - 1) - 1)  # (N, G)
    first, *others = CLIPS[bits]
    ints, scales, errors = _round_groups(groups, (widest * first).to(scale_dtype), bits)
    for clip in others:
        new = _round_groups(groups, (widest * clip).to(scale_dtype), bits)
        is_better = new[2] < errors
        ints = torch.where(is_better.unsqueeze(2), new[0], ints)
        scales = torch.where(is_better, new[1], scales)
        errors = torch.where(is_better, new[2], errors)
    return ints.to(torch.int8).flatten(1), scales


def _round_groups(groups: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers (N, G, S) as floats, the scales used, and squared errors (N, G)."""
    # A group of zeros, or of values so small that their scale has become 0.
    scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)
    # Rounded with the scale as it is stored, so that its own rounding costs nothing.
    step = scales.float().unsqueeze(2)
    ints = (groups / step).round_().clamp_(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ints, scales, (ints * step - groups).square().sum(2)


def _store(name: str, weight: Tensor, scheme: Scheme | None) -> tuple[dict[str, Tensor], Tensor]:
    """Return what is written for a tensor, and what will be read back (scheme None: not packed)."""
    if scheme is None:
        # Norms are small and stay; fp32 for the embedding would be most of an int4 file.
        is_wide = weight.ndim >= 2 and weight.element_size() > 2
        kept = weight.to(torch.bfloat16) if is_wide else weight
        return {name: kept}, kept
    assert scheme.group_size is not None
    ints, scales = quantize_groups(weight, bits=scheme.bits, group_size=scheme.group_size)
    return pack(name, ints, scales, bits=scheme.bits), dequantize(ints, scales)


def _layout(weights: Weights, settings: Mapping[str, Any]) -> Checkpoint:
    """Return what lies where; all must be there, known, and of a kind that can be packed."""
    layout = read_layout(weights.folder, settings, weights)
    is_transposed = any(row.layout == "transposed" for row in layout.names)
    if layout.family.assembly is not DecoderLM or is_transposed:
        raise RequestError(
            f"{weights.folder}: a {layout.family.name} model cannot be compressed; decoders with "
            "plain linear layers can"
        )
    return layout


def _part_of(ours: str) -> str:
    for part in QUANTIZED:
        if f".{part}." in ours:
            return part
    return "embedding" if ".embedding." in ours or ours.startswith("head.") else "norms"


def _is_quantized(weights: Weights, name: str, part: str) -> bool:
    return part in QUANTIZED and len(weights.entries[name].shape) == 2


def _check_not_quantized(folder: Path, settings: Mapping[str, Any]) -> None:
    quantization = settings.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
    raise RequestError(
        f"{folder}: is quantised already ({method}); a second rounding only adds error. "
        "Compress the model that it was made from"
    )


def _check_group_size(weights: Weights, names: set[str], group_size: int) -> None:
    """Refuse, before any work, a group size that does not divide all widths."""
    widths = {name: weights.entries[name].shape[1] for name in sorted(names)}
    unfit = next((name for name, width in widths.items() if width % group_size), None)
    if unfit is None:
        return
    common = math.gcd(*widths.values())
    fitting = [size for size in range(8, min(common, 256) + 1) if common % size == 0]
    remedy = ", ".join(map(str, fitting)) if fitting else f"none: all widths share only {common}"
    raise RequestError(
        f"group_size = {group_size}: does not divide the width {widths[unfit]} of {unfit!r}; "
        f"sizes that fit all matrices: {remedy}"
    )


def _finite(weight: Tensor, where: str) -> Tensor:
    if not weight.is_floating_point():
        raise ModelError(f"{where} has dtype {weight.dtype}; expected floating-point weights")
    if not weight.numel():
        raise ModelError(f"{where} is empty: its shape is {tuple(weight.shape)}")
    # Minimum and maximum are NaN where any value is.
    if not all(math.isfinite(extreme) for extreme in torch.stack(weight.aminmax()).tolist()):
        n_bad = int((~torch.isfinite(weight)).sum())
        raise ModelError(
            f"{where} holds {n_bad} values that are not finite (NaN or infinity); "
            "the model is broken, train or fetch it again"
        )
    return weight


def _copy_companions(folder_in: Path, folder_out: Path) -> None:
    files = {path for pattern in COMPANIONS for path in folder_in.glob(pattern) if path.is_file()}
    for path in sorted(files):
        with replacing(folder_out / path.name) as temporary:
            shutil.copyfile(path, temporary)


def _summary(
    config: Compress, before: Weights, after: Weights, parts: Mapping[str, Part]
) -> dict[str, Any]:
    """Return the sizes on disk, and each part by itself; plain data."""
    n_params = sum(part.n_params for part in parts.values())
    sizes = {"before": before.size_bytes, "after": after.size_bytes}
    return {
        "method": config.method,
        "group_size": config.group_size,
        "n_params": n_params,
        "size_bytes": sizes,
        "bits_per_weight": {when: 8 * size / n_params for when, size in sizes.items()},
        "parts": {name: part.to_json() for name, part in parts.items() if part.n_params},
    }
