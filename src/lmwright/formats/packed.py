"""Weights of 4 or 8 bits in int32 words: the "pack-quantized" format of compressed-tensors.

In place of NAME.weight (N, K) the file holds
    NAME.weight_packed  int32 (N, ceil(K * bits / 32))  integer + 2^(bits - 1), lowest bits first
    NAME.weight_scale   float (N, K / group_size)       weight = integer * scale
    NAME.weight_shape   int64 (2,)                      N and K
and config.json says how in `quantization_config`. transformers and vLLM open such folders.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, shown

METHOD = "compressed-tensors"
FORMAT = "pack-quantized"
# The release whose folders and reader the parity tests compare with.
VERSION = "0.20.0"
BITS = (4, 8)
SUFFIXES = ("_packed", "_scale", "_shape")


@dataclass(frozen=True)
class Scheme:
    """Symmetric integers of `bits` bits; `group_size` neighbours in a row share a scale."""

    bits: int
    # None: one scale for the whole row.
    group_size: int | None


def describe(scheme: Scheme, *, ignore: Sequence[str]) -> dict[str, Any]:
    """Return the `quantization_config` of a folder whose Linear layers, but `ignore`, have it."""
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": True,
        "strategy": "channel" if scheme.group_size is None else "group",
        "group_size": scheme.group_size,
        "dynamic": False,
    }
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": FORMAT,
    }
    return {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "version": VERSION,
    }


def pack(name: str, ints: Tensor, scales: Tensor, *, bits: int) -> dict[str, Tensor]:
    """Return the three tensors that stand for `name` (which ends in ".weight") in the file."""
    return {
        f"{name}_packed": pack_words(ints, bits),
        f"{name}_scale": scales,
        f"{name}_shape": torch.tensor(ints.shape, dtype=torch.int64),
    }


def unpack(
    tensors: Mapping[str, Tensor],
    quantization_config: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return all tensors with each packed one as NAME.weight: fp32 arithmetic, then `dtype`.

    Tensors that are not packed come back as they are.
    """
    packed = packed_weights(tensors, quantization_config)
    parts = {name + suffix for name in packed for suffix in SUFFIXES}
    result = {name: tensors[name] for name in tensors if name not in parts}
    for name, scheme in packed.items():
        result[name] = _unpack_weight(name, tensors, scheme).to(dtype)
    return result


def packed_weights(
    names: Collection[str], quantization_config: Mapping[str, Any]
) -> dict[str, Scheme]:
    """Return which weights are packed and how; a tensor too few or too many is a `ModelError`."""
    schemes = read_schemes(quantization_config)
    packed = [name.removesuffix("_packed") for name in names if name.endswith(".weight_packed")]
    parts = {name + suffix for name in packed for suffix in SUFFIXES}
    for name in names:
        if name not in parts and re.search(
            r"\.weight_(packed|scale|shape|zero_point|g_idx)$", name
        ):
            raise ModelError(
                f"{name}: nothing here to read it with; a packed weight is symmetric and lies in "
                f"NAME.weight_packed, _scale and _shape, without zero points or reordering"
            )
    found = {}
    for name in packed:
        if name in names:
            raise ModelError(f"{name}: stored twice, as it is and as {name}_packed")
        found[name] = scheme_of(name.removesuffix(".weight"), schemes)
        missing = [name + suffix for suffix in SUFFIXES if name + suffix not in names]
        if missing:
            raise ModelError(
                f"{name}_packed: {' and '.join(missing)} missing; the file is incomplete"
            )
    return found


def _unpack_weight(name: str, tensors: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """Return one weight (N, K) in fp32 from its three tensors, whose shapes must agree."""
    words, scales, shape = (tensors[name + suffix] for suffix in SUFFIXES)
    n_rows, n_columns = words.shape[0], _n_columns(name, words, shape, scheme)
    group_size = scheme.group_size or n_columns
    if n_columns % group_size or tuple(scales.shape) != (n_rows, n_columns // group_size):
        raise ModelError(
            f"{name}_scale: shape {tuple(scales.shape)} does not fit a weight of "
            f"{(n_rows, n_columns)} in groups of {group_size}"
        )
    if not scales.is_floating_point() or not bool(torch.isfinite(scales).all()):
        raise ModelError(f"{name}_scale: must hold finite floating-point numbers")
    return dequantize(unpack_words(words, scheme.bits, n_columns), scales)


def dequantize(ints: Tensor, scales: Tensor) -> Tensor:
    """Return integers (N, K) times their group's scale (N, K / group_size), in fp32."""
    groups = ints.unflatten(1, (scales.shape[1], -1)).float()  # (N, G, K / G)
    return groups.mul_(scales.float().unsqueeze(2)).flatten(1)


def pack_words(ints: Tensor, bits: int) -> Tensor:
    """Return int8 values (N, K) as int32 words (N, ceil(K * bits / 32)); the rest is zero."""
    per_word = 32 // bits
    unsigned = ints.to(torch.int32) + 2 ** (bits - 1)
    padded = torch.nn.functional.pad(unsigned, (0, -ints.shape[1] % per_word))
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=ints.device)
    # The shifted values share no bit, so their sum is their "or".
    return (padded.unflatten(1, (-1, per_word)) << shifts).sum(2, dtype=torch.int32)


def unpack_words(words: Tensor, bits: int, n_columns: int) -> Tensor:
    """Return the int8 values (N, n_columns) that `pack_words` packed."""
    # As bytes rather than by shifting words: loading a model waits for this. Little-endian, as
    # safetensors files and all machines with torch wheels are.
    values = words.contiguous().view(torch.uint8)  # (N, K * bits / 8)
    if bits == 4:
        values = torch.stack((values & 15, values >> 4), dim=2).flatten(1)
    return (values[:, :n_columns] - 2 ** (bits - 1)).view(torch.int8)


def read_schemes(quantization_config: Mapping[str, Any]) -> dict[str, Scheme]:
    """Return the scheme of each target; anything this reader cannot do is a `ModelError`."""
    settings = Settings({"quantization_config": quantization_config}).table("quantization_config")
    method = settings.text("quant_method")
    if method != METHOD:
        raise ModelError(f"quantization_config.quant_method = {shown(method)}: known is {METHOD!r}")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if settings.values.get(key):
            raise ModelError(f"quantization_config.{key}: not supported, only packed weights are")
    groups = settings.table("config_groups")
    if not groups.values:
        raise ModelError("quantization_config.config_groups: missing or empty")
    schemes: dict[str, Scheme] = {}
    for key in groups.values:
        group = groups.table(key)
        where = group.prefix.removesuffix(".")
        if not group.table("weights").values:
            raise ModelError(f"{where}: must say how `weights` are quantised")
        kind = group.text("format") or settings.text("format")
        if kind != FORMAT:
            raise ModelError(f"{where}.format = {shown(kind)}: known is {FORMAT!r}")
        scheme = _read_scheme(group)
        for target in group.texts("targets", []):
            schemes[target] = scheme
    return schemes


def scheme_of(module: str, schemes: Mapping[str, Scheme]) -> Scheme:
    """Return the scheme for a module: by its name, else by a pattern, else by its class."""
    kind = "Embedding" if "embed" in module.rpartition(".")[2] else "Linear"
    for target in (module, *_patterns_matching(module, schemes), kind):
        if target in schemes:
            return schemes[target]
    raise ModelError(
        f"{module}: its weight is packed, but no target of quantization_config says how; "
        f"targets: {', '.join(schemes) or 'none'}"
    )


def _patterns_matching(module: str, targets: Iterable[str]) -> list[str]:
    """Return the targets "re:PATTERN" that match from the start of the name, in order."""
    patterns = sorted(target for target in targets if target.startswith("re:"))
    try:
        return [target for target in patterns if re.match(target.removeprefix("re:"), module)]
    except re.error as error:
        raise ModelError(
            f"quantization_config: a target of {', '.join(patterns)} is no regular expression: "
            f"{error}"
        ) from None


def _read_scheme(group: Settings) -> Scheme:
    """Read one group; `actorder` is not looked at: where it matters, the file has _g_idx."""
    where = group.prefix.removesuffix(".")
    if group.values.get("input_activations") or group.values.get("output_activations"):
        raise ModelError(f"{where}: quantised activations; known are weights only")
    weights = group.table("weights").values
    expected = {
        "num_bits": BITS,
        "type": ("int",),
        "symmetric": (True,),
        "strategy": ("group", "channel"),
        "dynamic": (False,),
    }
    defaults = {"type": "int", "symmetric": True, "dynamic": False}
    for key, known in expected.items():
        value = weights.get(key, defaults.get(key))
        if not any(value == each and type(value) is type(each) for each in known):
            names = ", ".join(map(repr, known))
            raise ModelError(f"{where}.weights.{key} = {shown(value)}: known: {names}")
    if weights["strategy"] == "channel":
        return Scheme(weights["num_bits"], group_size=None)
    group_size = weights.get("group_size")
    if type(group_size) is not int or group_size < 1:
        told = f"{where}.weights.group_size = {shown(group_size)}"
        raise ModelError(f"{told}: must be a whole number > 0")
    return Scheme(weights["num_bits"], group_size)


def _n_columns(name: str, words: Tensor, shape: Tensor, scheme: Scheme) -> int:
    """Return K of a packed (N, K), after checking that words and shape speak of the same."""
    if words.dtype != torch.int32 or words.ndim != 2:
        raise ModelError(f"{name}_packed: {words.dtype} {tuple(words.shape)}; must be int32 (N, W)")
    if shape.numel() != 2 or shape.is_floating_point():
        raise ModelError(f"{name}_shape: must hold two whole numbers, N and K")
    n_rows, n_columns = (int(value) for value in shape.flatten().tolist())
    # From K to words and not back: several K give the same number of words.
    if n_columns < 1 or (n_rows, -(-n_columns * scheme.bits // 32)) != tuple(words.shape):
        raise ModelError(
            f"{name}_packed: {tuple(words.shape)} words of 32 bits are not the "
            f"{(n_rows, n_columns)} numbers of {scheme.bits} bits that {name}_shape announces"
        )
    return n_columns
