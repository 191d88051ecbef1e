"""Rotary embedding as config.json and GGUF spell it."""

import math
from collections.abc import Mapping
from typing import Any

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, shown
from lmwright.model.config import ModelConfig, Rope
from lmwright.model.families.windows import GLOBAL, LOCAL

# What each scaling is told by: our field -> key.
_PLAIN = {"theta": "rope_theta", "fraction": "partial_rotary_factor"}
_SCALED = {**_PLAIN, "factor": "factor"}
_STRETCHED = {**_SCALED, "original_max_positions": "original_max_position_embeddings"}
_SHARPENED = {**_STRETCHED, "attention_factor": "attention_factor"}
KEYS = {
    "default": _PLAIN,
    "linear": _SCALED,
    "dynamic": _SCALED,
    "llama3": _STRETCHED | {n: n for n in ("low_freq_factor", "high_freq_factor")},
    "yarn": _SHARPENED | {n: n for n in ("beta_fast", "beta_slow")},
    "longrope": _SHARPENED | {"short_factors": "short_factor", "long_factors": "long_factor"},
}
# What any scaling may say besides; nothing comes of an original context where it is not asked for.
COMMON = {"rope_type", "type", *_STRETCHED.values()}
# `finetuned`, of the first files with yarn, is history.
MORE = {"yarn": {"mscale", "mscale_all_dim", "truncate", "finetuned"}}


def read_ropes(settings: Mapping[str, Any]) -> dict[str, Rope]:
    """Return the rope, and that of the layers with a window where it is another one (Gemma 3)."""
    ropes = Settings(settings).table("rope_parameters")
    wide, near = (ropes.table(kind).values or None for kind in (GLOBAL, LOCAL))
    fields = {"rope": read_rope(settings, wide)}
    if near is None:
        near = {"rope_theta": settings.get("rope_local_base_freq")}
    if near.get("rope_theta") is not None:
        fields["local_rope"] = read_rope(settings, near)
    return fields


def read_rope(settings: Mapping[str, Any], table: Mapping[str, Any] | None = None) -> Rope:
    """Read both spellings: `rope_theta` + `rope_scaling`, and transformers 5's one table."""
    if table is None:
        spelt = (Settings(settings).table(key) for key in ("rope_parameters", "rope_scaling"))
        tables: list[Any] = [each.values for each in spelt if each.values] or [{}]
        ropes = [read_rope(settings, each) for each in tables]
        if ropes[0] != ropes[-1]:
            raise ModelError("rope_parameters and rope_scaling contradict each other")
        return ropes[0]
    names = Settings(table)
    # Any: of KEYS, whose keys but "default" are those of Scaling.
    kind: Any = names.text("rope_type") or names.text("type") or "default"
    kind = "longrope" if kind == "su" else kind  # its first name
    if kind not in KEYS:
        raise ModelError(f"rope_type {shown(kind)}; known: {', '.join(KEYS)}")
    _check_keys(kind, table)
    given = {key: settings.get(key) for key in _PLAIN.values()}
    given |= {key: value for key, value in table.items() if value is not None}
    numbers = Settings(given)
    values: dict[str, Any] = {
        ours: tuple(map(float, numbers.numbers(key, [])))
        if ours.endswith("_factors")
        else float(numbers.number(key, 0.0))
        for ours, key in KEYS[kind].items()
        if given.get(key) is not None
    }
    if kind == "default":
        return Rope(**values)
    if "factor" not in values and kind in ("linear", "dynamic", "llama3"):
        raise ModelError(f"rope_type {kind!r} without a factor")
    longest = Settings(settings).whole("max_position_embeddings", 2048)
    original = longest if kind == "dynamic" else _original(settings, table, longest=longest)
    factor = values.setdefault("factor", longest / original)
    values["original_max_positions"] = original
    values["attention_factor"] = _attention_factor(kind, factor, original, table=table)
    return Rope(scaling=kind, **values)


def write_rope(rope: Rope) -> dict[str, Any]:
    """Return one table that says all: `rope_type`, `rope_theta` and the scaling's numbers."""
    kind = "default" if rope.scaling == "none" else rope.scaling
    values = {key: getattr(rope, ours) for ours, key in KEYS[kind].items()}
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    if rope.fraction == 1:
        del values["partial_rotary_factor"]
    return {"rope_type": kind, **values}


def rope_settings(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of config.json for the model's ropes, in the old spelling and the new."""
    table = write_rope(config.rope)
    if config.local_rope is not None:
        return {
            "rope_theta": config.rope.theta,
            "rope_local_base_freq": config.local_rope.theta,
            "rope_parameters": {GLOBAL: table, LOCAL: write_rope(config.local_rope)},
        }
    scaling = {key: value for key, value in table.items() if key != "rope_theta"}
    settings = {
        "rope_theta": config.rope.theta,
        "rope_scaling": None if config.rope.scaling == "none" else scaling,
        "rope_parameters": table,
    }
    if config.rope.fraction != 1:
        settings["partial_rotary_factor"] = config.rope.fraction
    if config.rope.scaling == "longrope":
        settings["original_max_position_embeddings"] = config.rope.original_max_positions
    return settings


def read_gguf_rope(keys: Settings) -> Rope:
    """Read `rope.*` of a GGUF's metadata (without the architecture before it)."""
    scaling = keys.text("rope.scaling.type", "none")
    if scaling not in ("none", "linear", "yarn", "longrope"):
        known = "none, linear, yarn, longrope"
        raise ModelError(f"rope.scaling.type {shown(scaling)}; known: {known}")
    theta = float(keys.number("rope.freq_base", 10_000.0))
    if scaling in ("none", "longrope"):  # longrope's numbers are tensors
        return Rope(theta=theta)
    factor = keys.number("rope.scaling.factor")
    if factor is None:
        raise ModelError(f"rope.scaling.type {scaling!r} without a factor")
    longest = keys.whole("context_length", 0)
    original = keys.whole("rope.scaling.original_context_length", longest)
    table = {"attention_factor": keys.number("rope.scaling.attn_factor")}
    sharper = _attention_factor(scaling, factor, original, table=table)
    return Rope(theta, scaling, factor, original, attention_factor=sharper)


def write_gguf_rope(rope: Rope) -> dict[str, Any]:
    """Return the keys behind the architecture that say the rope; llama3's numbers are a tensor."""
    keys: dict[str, Any] = {"rope.freq_base": float(rope.theta)}
    if rope.scaling in ("dynamic", "longrope") or rope.fraction != 1:
        raise ModelError(
            f"rope scaling {rope.scaling!r} of {rope.fraction:g} of each head cannot be written as "
            "GGUF; write a Hugging Face folder"
        )
    if rope.scaling in ("linear", "yarn"):
        keys |= {"rope.scaling.type": rope.scaling, "rope.scaling.factor": float(rope.factor)}
    if rope.scaling == "yarn":
        keys["rope.scaling.original_context_length"] = rope.original_max_positions
        bounds = {"beta_fast": (rope.beta_fast, 32.0), "beta_slow": (rope.beta_slow, 1.0)}
        usual = _attention_factor("yarn", rope.factor, rope.original_max_positions, table={})
        bounds["attention_factor"] = (rope.attention_factor, usual)
        for name, (value, default) in bounds.items():
            if abs(value - default) > 1e-6:
                raise ModelError(f"yarn with {name} = {value} cannot be written as GGUF")
    return keys


def _check_keys(kind: str, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        known = COMMON | set(KEYS[kind].values()) | MORE.get(kind, set())
        changes_nothing = value is None or (key == "attention_factor" and value == 1)
        if key not in known and not changes_nothing:
            raise ModelError(f"rope_type {kind!r} with {key}; no such rope is built")
    if table.get("truncate", True) is not True:
        raise ModelError("rope's truncate = false is not built")


def _original(settings: Mapping[str, Any], table: Mapping[str, Any], *, longest: int) -> int:
    """Return the context before it was stretched, which Phi-3 gives beside the table."""
    key = "original_max_position_embeddings"
    places = (Settings(place).whole(key) for place in (table, settings))
    found = {place for place in places if place is not None}
    if len(found) > 1:
        raise ModelError(f"{key} is given twice, as {min(found)} and {max(found)}")
    original = min(found, default=longest)
    if original < 1:
        raise ModelError(f"{key} = {original}: expected 1 or more")
    return original


def _attention_factor(
    kind: str, factor: float, original: int, *, table: Mapping[str, Any]
) -> float:
    numbers = Settings(table)
    given = numbers.number("attention_factor")
    if given is not None:
        return float(given)
    if kind not in ("yarn", "longrope") or factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    # Peng et al. 2023, 3.4; `mscale` are DeepSeek's two weights of it.
    mscale, all_dims = numbers.number("mscale"), numbers.number("mscale_all_dim")
    if mscale and all_dims:
        return (0.1 * mscale * math.log(factor) + 1) / (0.1 * all_dims * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1
