"""Reading a tokenizer from a Hugging Face folder or a GGUF file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from lmwright.core.errors import ModelError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.gguf_vocab import tokenizer_from_gguf as gguf_vocabulary


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that a GGUF file carries in its metadata."""
    tokens = metadata["tokenizer.ggml.tokens"]
    roles = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        id_ = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if id_ is not None and not 0 <= id_ < len(tokens):
            raise ModelError(f"GGUF: {key}_token_id = {id_} of {len(tokens)} tokens")
        if id_ is not None:
            roles[f"{role}_token"] = tokens[id_]
    eot = metadata.get("tokenizer.ggml.eot_token_id")
    return Tokenizer(
        gguf_vocabulary(metadata),
        special_tokens=roles,
        eos_ids=[] if eot is None else [eot],
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face folder."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{path} is missing; convert the tokenizer once with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    # The library raises a bare Exception for whatever is wrong with the file.
    except Exception as error:
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from None
    settings = _read_settings(folder / "tokenizer_config.json")
    template_path = folder / "chat_template.jinja"
    template = settings.get("chat_template")
    if template_path.is_file():
        template = template_path.read_text(encoding="utf-8", errors="replace")
    if isinstance(template, list):  # several named ones, in older folders
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str | None):
        raise ModelError(f"{folder / 'tokenizer_config.json'}: chat_template is no text")
    eos = _read_settings(folder / "generation_config.json").get("eos_token_id", [])
    return Tokenizer(
        backend,
        special_tokens=_token_roles(settings),
        eos_ids=eos if isinstance(eos, list) else [] if eos is None else [eos],
        chat_template=template,
    )


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ModelError(f"{path}: expected an object, found {type(settings).__name__}")
    return settings


def _token_roles(settings: Mapping[str, Any]) -> dict[str, str]:
    """Read bos_token, eos_token, ...; each is a text or an object with its `content`."""
    roles = {}
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = settings.get(role)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            roles[role] = token
    return roles
