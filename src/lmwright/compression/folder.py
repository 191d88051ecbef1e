"""A model of fewer bits from a Hugging Face folder: an algorithm's integers, packed.

Only the matrices of attention and feed-forward become integers. Embedding and head stay, in 16
bits: in SmolLM2-135M they are one matrix, a fifth of the weights. In 8 bits it would lose nothing
(0.002 nats a token) and be 29 MB in place of 57, but then neither reader opens the folder:
transformers 5.24 wants to initialise the missing `embed_tokens.weight`, and vLLM 0.33 cannot tie
a head to a packed embedding. Untied, two copies in 8 bits are 58 MB. In 4 bits it costs more
than all other matrices in 4 bits together (0.46 nats a token against 0.32, on a page of text).
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmwright.compression.algorithms import ALGORITHMS, LinearLayer
from lmwright.compression.calibration import Calibration, block_of
from lmwright.compression.config import Compress
from lmwright.core.artifact import replacing, write_json
from lmwright.core.errors import ModelError, RequestError
from lmwright.core.progress import bar
from lmwright.formats.packed import Scheme, dequantize, describe, pack
from lmwright.formats.safetensors_folder import Weights, read_weights, write_weights
from lmwright.model.checkpoint import Checkpoint, read_config, read_layout
from lmwright.model.parts import PARTS, part_of
from lmwright.model.transformer import DecoderLM

QUANTIZED = ("attention", "feed-forward")
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
class PartSize:
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
        error = math.sqrt(self.squared_errors / self.squares) if self.squares else 0.0
        return {
            "n_params": self.n_params,
            "size_bytes": self.size_bytes,
            "bits_per_weight": 8 * self.size_bytes / self.n_params if self.n_params else 0.0,
            "relative_error": error,
        }


def compress_folder(
    folder_in: Path,
    config: Compress,
    folder_out: Path,
    *,
    calibration: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
    """Write the compressed model to `folder_out`; return sizes and errors, in all and by part.

    Reads tensor by tensor; only what is written is held in memory, and the model itself for an
    algorithm that needs `calibration`, which are texts as token ids.
    """
    if folder_in.resolve() == folder_out.resolve():
        raise RequestError(f"{folder_out}: is the model to be compressed; write to another folder")
    settings = read_config(folder_in)
    _check_not_quantized(folder_in, settings)
    weights = read_weights(folder_in)
    layout = _layout(weights, settings)
    rows = {name: row.ours for row, name in layout.names.items()}
    parts_of = {name: part_of(ours[0]) for name, ours in rows.items()}
    flat = [name for name in rows if len(weights.entries[name].shape) == 2]
    matrices = [name for name in flat if parts_of[name] in QUANTIZED]
    config.check_widths({repr(name): weights.entries[name].shape[1] for name in sorted(matrices)})
    scheme = Scheme(config.bits, config.group_size)
    algorithm = ALGORITHMS[config.method]
    if algorithm.needs_inputs and not calibration:
        raise RequestError(f"method = {algorithm.name!r}: needs calibration texts as token ids")
    on_the_way = Calibration(folder_in, calibration) if algorithm.needs_inputs else None
    if on_the_way is not None:
        order = {name: block_of(rows[name][0]) for name in matrices}
        rows = dict(sorted(rows.items(), key=lambda item: order.get(item[0], -1)))
    parts = {part: PartSize() for part in PARTS}
    tensors: dict[str, Tensor] = {}
    with bar(f"compress {config.number_format}", total=len(rows)) as progress:
        for name, ours in rows.items():
            weight = _finite(weights[name], f"{folder_in}: tensor {name!r}")
            if name in matrices:
                inputs = on_the_way.inputs(ours[0]) if on_the_way is not None else ()
                found = algorithm.quantize(LinearLayer(name, weight, inputs), scheme)
                stored = pack(name, found.ints, found.scales, bits=scheme.bits)
                restored = dequantize(found.ints, found.scales)
                if on_the_way is not None:
                    on_the_way.replace(ours, restored)
            else:
                restored = _kept(weight)
                stored = {name: restored}
            parts[parts_of[name]].add(weight, restored, stored)
            tensors.update(stored)
            progress.advance()
    write_weights(tensors, folder_out)
    _copy_companions(folder_in, folder_out)
    quantization = describe(scheme, ignore=[HEAD])
    # Last, because a folder without config.json is no model.
    write_json(folder_out / "config.json", {**settings, "quantization_config": quantization})
    return _summary(config, weights, read_weights(folder_out), parts)


def _kept(weight: Tensor) -> Tensor:
    """Return what is written as it is: norms are small, but an fp32 embedding is most of a file."""
    is_wide = weight.ndim >= 2 and weight.element_size() > 2
    return weight.to(torch.bfloat16) if is_wide else weight


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


def _check_not_quantized(folder: Path, settings: Mapping[str, Any]) -> None:
    quantization = settings.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
    raise RequestError(
        f"{folder}: is quantised already ({method}); a second rounding only adds error. "
        "Compress the model that it was made from"
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
    config: Compress, before: Weights, after: Weights, parts: Mapping[str, PartSize]
) -> dict[str, Any]:
    """Return the sizes on disk, and each part by itself; plain data."""
    n_params = sum(part.n_params for part in parts.values())
    sizes = {"before": before.size_bytes, "after": after.size_bytes}
    return {
        "method": config.method,
        "bits": config.bits,
        "group_size": config.group_size,
        "n_params": n_params,
        "size_bytes": sizes,
        "bits_per_weight": {when: 8 * size / n_params for when, size in sizes.items()},
        "parts": {name: part.to_json() for name, part in parts.items() if part.n_params},
    }
