"""The JSON files beside a tokenizer, and what they say of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from lmwright.core.errors import ModelError
from lmwright.formats.json_file import read_json
from lmwright.formats.settings import Settings
from lmwright.tokenizer.encode import ROLES


def read_settings(path: Path) -> Settings:
    """Return what a JSON file says, nothing where there is no file."""
    return Settings(read_json(path, dict) or {}, path)


def token_text(token: Any) -> str | None:
    """Return the text of a token that is written as a text or as an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def token_roles(*sources: Settings) -> dict[str, str]:
    """Read bos_token, eos_token, ... from the first source that names each."""
    roles = {}
    for role in ROLES:
        texts = [token_text(source.values.get(role)) for source in sources]
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
    settings: Settings
    roles: Mapping[str, str]

    def tokens(self, *names: str) -> list[str]:
        """Return the tokens of these roles: tokens("bos", "eos")."""
        return [self.roles[f"{name}_token"] for name in names]


def with_ids(
    folder: TokenizerFolder, tokenizer: tokenizers.Tokenizer, tokens: Sequence[str]
) -> list[tuple[str, int]]:
    """Return special tokens with their ids; one that the folder's vocabulary lacks is refused."""
    found = []
    for token in tokens:
        id_ = tokenizer.token_to_id(token)
        if id_ is None:
            role = next((role for role, text in folder.roles.items() if text == token), "")
            remedy = f", the {role}; name the right one in {folder.path / 'tokenizer_config.json'}"
            raise ModelError(f"{folder.file} has no piece {token!r}{remedy if role else ''}")
        found.append((token, id_))
    return found
