"""What a run has done so far, read from its files."""

import json
from pathlib import Path
from typing import Any

from lmwright.core.artifact import Artifact

LOCK = "recipe.lock.json"


def status(folder: Path) -> dict[str, Any]:
    """Return what a run has done so far, as plain data."""
    lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    steps = {}
    for name, step in lock["steps"].items():
        result = Artifact(folder / name, step["hash"]).result
        told = (
            {key: result[key] for key in ("seconds", "passed") if key in result} if result else {}
        )
        steps[name] = {"stage": step["stage"], "is_done": result is not None, **told}
    return {"run": str(folder), "name": lock["name"], "steps": steps, "lineage": lock["lineage"]}
