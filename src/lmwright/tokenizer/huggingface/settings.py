"""The JSON files beside a tokenizer, and what they say of tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.formats import json_file
from lmwright.tokenizer.encode import ROLES


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file."""
    return json_file.read_json(path, dict) or {}


def setting(settings: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return a setting of the default's type; null means the default."""
    return json_file.setting(settings, key, default, path="tokenizer_config.json")


def token_text(token: Any) -> str | None:
    """Return the text of a token that is written as a text or as an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def token_roles(*sources: Mapping[str, Any]) -> dict[str, str]:
    """Read bos_token, eos_token, ... from the first source that names each."""
    roles = {}
    for role in ROLES:
        texts = [token_text(source.get(role)) for source in sources]
        text = next((text for text in texts if text is not None), None)
        if text is not None:
            roles[role] = text
    return roles
