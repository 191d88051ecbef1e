"""Reading the tokenizer of a Hugging Face folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lmwright.core.errors import ModelError
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.huggingface.kinds import KINDS, TokenizerKind, kind_name
from lmwright.tokenizer.huggingface.marian import marian
from lmwright.tokenizer.huggingface.settings import (
    TokenizerFolder,
    read_settings,
    setting,
    token_roles,
    token_text,
)
from lmwright.tokenizer.translation import Translation

# Settings that a tokenizer.json does not hold.
KEPT = ("model_max_length", "model_input_names")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face folder, with or without a tokenizer.json."""
    settings = read_settings(folder / "tokenizer_config.json")
    name = kind_name(folder, settings)
    kind = None if name is None else KINDS[name]
    roles = token_roles(settings, read_settings(folder / "special_tokens_map.json"))
    wanted = {**(kind.roles if kind else {}), **roles}
    files, translation = {}, None
    if kind is not None and kind.build is None:
        _check_files(folder, name, kind)
        backend, translation = marian(
            TokenizerFolder(folder, folder / kind.files[0], settings, wanted)
        )
        files = {file: (folder / file).read_bytes() for file in kind.files}
    else:
        backend = _read_backend(folder, settings, name, wanted)
        translation = _translation(kind, settings, backend)
    # A file may ask for texts of one length, cut or filled up. What is too long is refused, though,
    # where it is used, and what is shorter is not filled up.
    backend.no_truncation()
    backend.no_padding()
    # A role that the folder does not name counts where its usual token exists.
    roles = {
        role: token
        for role, token in wanted.items()
        if role in roles or backend.token_to_id(token) is not None
    }
    eos = read_settings(folder / "generation_config.json").get("eos_token_id", [])
    return Tokenizer(
        backend,
        special_tokens=roles,
        eos_ids=eos if isinstance(eos, list) else [] if eos is None else [eos],
        chat_template=_chat_template(folder, settings),
        translation=translation,
        settings=_kept_settings(settings, name),
        files=files,
    )


def _read_backend(
    folder: Path, settings: Mapping[str, Any], name: str | None, roles: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Read tokenizer.json, or build what it would hold from the older files."""
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        # The library raises a bare Exception for whatever is wrong with the file.
        except Exception as error:
            raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from None
    if name is None:
        raise ModelError(
            f"{path} is missing; convert the tokenizer once with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER). Or name its kind as "
            f"tokenizer_class in tokenizer_config.json; known: {', '.join(sorted(KINDS))}"
        )
    kind = KINDS[name]
    _check_files(folder, name, kind)
    assert kind.build is not None
    try:
        backend = kind.build(TokenizerFolder(folder, folder / kind.files[0], settings, roles))
    except ModelError:
        raise
    except Exception as error:  # the library's, which knows no other
        raise ModelError(f"{folder / kind.files[0]} gives no tokenizer: {error}") from None
    _add_tokens(backend, folder, settings, roles)
    return backend


def _check_files(folder: Path, name: str | None, kind: TokenizerKind) -> None:
    missing = [file for file in kind.files if not (folder / file).is_file()]
    if missing:
        asked = " and ".join(kind.files)
        remedy = "" if kind.build is None else ", or a tokenizer.json that transformers saved"
        raise ModelError(f"{folder / missing[0]} is missing: {name} needs {asked}{remedy}")


def _add_tokens(
    backend: tokenizers.Tokenizer,
    folder: Path,
    settings: Mapping[str, Any],
    roles: Mapping[str, str],
) -> None:
    """Add the tokens of added_tokens_decoder and added_tokens.json, each with the id it has there.

    The tokens of the roles become special ones, and so do additional_special_tokens.
    """
    places: dict[int, AddedToken] = {}
    for text, id_ in read_settings(folder / "added_tokens.json").items():
        places[_checked_id(id_)] = AddedToken(text, normalized=False, special=False)
    for id_, token in setting(settings, "added_tokens_decoder", {}).items():
        text = token_text(token)
        if text is None or not isinstance(token, dict):
            raise ModelError(f"tokenizer_config.json: added token {id_} is no token: {token!r}")
        flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
        chosen = {flag: setting(token, flag, False) for flag in flags}
        places[_checked_id(id_)] = AddedToken(text, **chosen)
    specials = [*roles.values(), *_additional(settings)]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for id_, token in sorted(places.items()):
        if token.content not in known:
            token.special = token.special or token.content in specials
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != id_:
            raise ModelError(
                f"{folder}: added token {token.content!r} should have the id {id_} and has "
                f"{backend.token_to_id(token.content)}; the vocabulary is of another checkpoint"
            )
    known |= {token.content for token in places.values()}
    rest = [token for token in dict.fromkeys(specials) if token not in known]
    for token in rest:
        # What is named and not there would get an id that the model has no weights for.
        if backend.token_to_id(token) is not None:
            backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])


def _checked_id(id_: Any) -> int:
    text = str(id_)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ModelError(f"added tokens: {id_!r} is no token id")
    return int(text)


def _additional(settings: Mapping[str, Any]) -> list[str]:
    tokens = setting(settings, "additional_special_tokens", [])
    return [text for token in tokens if (text := token_text(token)) is not None]


def _translation(
    kind: TokenizerKind | None, settings: Mapping[str, Any], backend: tokenizers.Tokenizer
) -> Translation | None:
    """Read the languages of an mBART."""
    if kind is None or kind.languages is None:
        return None
    place, known = kind.languages
    ids = {code: backend.token_to_id(code) for code in known}
    translation = Translation(place, {code: i for code, i in ids.items() if i is not None})
    return translation.between(
        setting(settings, "src_lang", "") or None, setting(settings, "tgt_lang", "") or None
    )


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones, in older folders
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str | None):
        raise ModelError(f"{folder / 'tokenizer_config.json'}: chat_template is no text")
    return template


def _kept_settings(settings: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Return the settings that a saved folder needs, so that transformers frames texts alike."""
    kept = {key: settings[key] for key in KEPT if settings.get(key) is not None}
    if name is not None and "model_input_names" not in kept:
        segments = ["token_type_ids"] if KINDS[name].has_segments else []
        kept["model_input_names"] = ["input_ids", *segments, "attention_mask"]
    # A plain class reads tokenizer.json as it is. These choose languages, and so are needed; the
    # price is that MBartTokenizer of transformers 5 never rewrites characters as NFKC does.
    if name is not None and (KINDS[name].languages or KINDS[name].build is None):
        kept["tokenizer_class"] = name
    return kept
