"""Reading the tokenizer of a Hugging Face folder."""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lmwright.core.errors import ModelError
from lmwright.formats.settings import Settings, shown
from lmwright.tokenizer.encode import Tokenizer
from lmwright.tokenizer.huggingface.kinds import KINDS, TokenizerKind, kind_name
from lmwright.tokenizer.huggingface.marian import marian
from lmwright.tokenizer.huggingface.settings import (
    TokenizerFolder,
    read_settings,
    token_roles,
    token_text,
)
from lmwright.tokenizer.sentencepiece import mark_special
from lmwright.tokenizer.translation import Translation

# Settings that a tokenizer.json does not hold.
KEPT = ("model_max_length", "model_input_names")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a Hugging Face folder, with or without a tokenizer.json."""
    settings = read_settings(folder / "tokenizer_config.json")
    name = kind_name(folder, settings)
    kind = None if name is None else KINDS[name]
    roles = token_roles(settings, read_settings(folder / "special_tokens_map.json"))
    usual = kind.roles if kind else {}
    file = folder / (kind.vocabulary if kind else "tokenizer.json")
    whole = TokenizerFolder(folder, file, settings, {**usual, **roles})
    files, translation = {}, None
    if kind is not None and kind.build is None:
        _check_files(folder, name, kind)
        backend, translation = marian(whole)
        files = {file: (folder / file).read_bytes() for file in kind.files}
    else:
        backend = _read_backend(whole, name)
        translation = _translation(whole, kind, backend)
    # A file may ask for texts of one length, cut or filled up. What is too long is refused, though,
    # where it is used, and what is shorter is not filled up.
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(
        backend,
        # A role that the folder does not name counts where its usual token exists.
        special_tokens={
            role: token
            for role, token in whole.roles.items()
            if role in roles or backend.token_to_id(token) is not None
        },
        eos_ids=_ends(folder),
        chat_template=_chat_template(folder, settings),
        translation=translation,
        settings=_kept_settings(settings, name),
        files=files,
    )


def _ends(folder: Path) -> tuple[int, ...]:
    """Return the tokens that end an answer, from the file that transformers takes them from."""
    path = folder / "generation_config.json"
    source = path if path.is_file() else folder / "config.json"
    return read_settings(source).tokens("eos_token_id")


def _read_backend(folder: TokenizerFolder, name: str | None) -> tokenizers.Tokenizer:
    """Read tokenizer.json, or build what it would hold from the older files."""
    path = folder.path / "tokenizer.json"
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
    _check_files(folder.path, name, kind)
    assert kind.build is not None
    try:
        backend = kind.build(folder)
    except ModelError:
        raise
    except Exception as error:  # the library's, which knows no other
        raise ModelError(f"{folder.file} gives no tokenizer: {error}") from None
    _add_tokens(backend, folder)
    return backend


def _check_files(folder: Path, name: str | None, kind: TokenizerKind) -> None:
    missing = [file for file in kind.files if not (folder / file).is_file()]
    if missing:
        asked = " and ".join(kind.files)
        remedy = "" if kind.build is None else ", or a tokenizer.json that transformers saved"
        raise ModelError(f"{folder / missing[0]} is missing: {name} needs {asked}{remedy}")


def _add_tokens(backend: tokenizers.Tokenizer, folder: TokenizerFolder) -> None:
    """Add the tokens of added_tokens_decoder and added_tokens.json, each with the id it has there.

    The tokens of the roles become special ones, and so do additional_special_tokens.
    """
    places: dict[int, AddedToken] = {}
    for text, id_ in read_settings(folder.path / "added_tokens.json").values.items():
        places[_checked_id(id_)] = AddedToken(text, normalized=False, special=False)
    decoder = folder.settings.table("added_tokens_decoder")
    for id_ in decoder.values:
        token = decoder.table(id_)
        text = token.text("content")
        if text is None:
            raise decoder.fault(id_, "has no content, which is the token's text")
        flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
        places[_checked_id(id_)] = AddedToken(
            text, **{flag: token.flag(flag, False) for flag in flags}
        )
    additional = map(token_text, folder.settings.items("additional_special_tokens"))
    specials = [*folder.roles.values(), *(text for text in additional if text is not None)]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for id_, token in sorted(places.items()):
        if token.content not in known:
            token.special = token.special or token.content in specials
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != id_:
            raise ModelError(
                f"{folder.path}: added token {token.content!r} should have the id {id_} and has "
                f"{backend.token_to_id(token.content)}; the vocabulary is of another checkpoint"
            )
    known |= {token.content for token in places.values()}
    rest = [token for token in dict.fromkeys(specials) if token not in known]
    # What is named and not there would get an id that the model has no weights for.
    mark_special(backend, [token for token in rest if backend.token_to_id(token) is not None])


def _checked_id(id_: Any) -> int:
    text = str(id_)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ModelError(f"added tokens: {shown(id_)} is no token id")
    return int(text)


def _translation(
    folder: TokenizerFolder, kind: TokenizerKind | None, backend: tokenizers.Tokenizer
) -> Translation | None:
    """Read the languages of an mBART."""
    if kind is None or kind.languages is None:
        return None
    place, known = kind.languages
    ids = {code: backend.token_to_id(code) for code in known}
    translation = Translation(place, {code: i for code, i in ids.items() if i is not None})
    source, target = (folder.settings.text(key) or None for key in ("src_lang", "tgt_lang"))
    return translation.between(source, target)


def _chat_template(folder: Path, settings: Settings) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    template = settings.values.get("chat_template")
    if isinstance(template, list):  # several named ones, in older folders
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0].get("template") if named else None
    return Settings({"chat_template": template}, settings.source).text("chat_template")


def _kept_settings(settings: Settings, name: str | None) -> dict[str, Any]:
    """Return the settings that a saved folder needs, so that transformers frames texts alike."""
    kept = {key: value for key in KEPT if (value := settings.values.get(key)) is not None}
    if name is not None and "model_input_names" not in kept:
        segments = ["token_type_ids"] if KINDS[name].has_segments else []
        kept["model_input_names"] = ["input_ids", *segments, "attention_mask"]
    # A plain class reads tokenizer.json as it is. These choose languages, and so are needed; the
    # price is that MBartTokenizer of transformers 5 never rewrites characters as NFKC does.
    if name is not None and (KINDS[name].languages or KINDS[name].build is None):
        kept["tokenizer_class"] = name
    return kept
