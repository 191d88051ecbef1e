"""The JSON files beside a tokenizer, and what they say of tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class TokenizerFolder:
    """A folder with its tokenizer_config.json and its special tokens by role."""

    path: Path
    # The first of the kind's files, the one with the vocabulary.
    file: Path
    settings: Mapping[str, Any]
    roles: Mapping[str, str]

    def setting(self, key: str, default: Any) -> Any:
        """Return a setting of the default's type; null means the default."""
        return setting(self.settings, key, default)

    def tokens(self, *names: str) -> list[str]:
        """Return the tokens of these roles: tokens("bos", "eos")."""
        return [self.roles[f"{name}_token"] for name in names]
