"""Layers with and without a sliding window, as config.json spells them."""

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, shown
from lmwright.model.config import ModelConfig
from lmwright.model.families.family import ConfigJson

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def read_layer_types(settings: ConfigJson, default: tuple[bool, ...]) -> tuple[bool, ...]:
    """Return which layers are local, as `layer_types` says or else as the family's rule does."""
    types = Settings(settings).texts("layer_types")
    if types is None:
        return default
    unknown = [kind for kind in types if kind not in (LOCAL, GLOBAL)]
    if unknown:
        raise ModelError(f"layer type {shown(unknown[0])}; known: {LOCAL}, {GLOBAL}")
    return tuple(kind == LOCAL for kind in types)


def layer_types(config: ModelConfig) -> list[str]:
    """Return the type of each layer."""
    return [LOCAL if config.is_local(i) else GLOBAL for i in range(config.n_layers)]


def every_nth_global(every: int, n_layers: int) -> tuple[bool, ...]:
    """Return which layers are local where each `every`-th sees everything (Gemma)."""
    return tuple(bool((i + 1) % every) for i in range(n_layers))
