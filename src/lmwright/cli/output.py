"""What the verbs print on stdout."""

import json
from typing import Any


def print_json(data: Any) -> None:
    """Print plain data for another program to read."""
    print(json.dumps(data, indent=2, ensure_ascii=False))
