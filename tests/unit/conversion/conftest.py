"""The fixtures of tests/copies.py."""

from copies import break_rope, changed, config, model, original, written

__all__ = ["break_rope", "changed", "config", "model", "original", "written"]
