"""What sentence-transformers writes beside a model: how the vectors of its tokens become one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.core.artifact import write_json
from lmwright.core.errors import ModelError, suggestion
from lmwright.formats.json_file import read_json
from lmwright.formats.settings import Settings, shown

# The names of sentence-transformers 6, and before it one flag each; several are joined in this
# order.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The classes of modules.json in their order; the last may be missing.
MODULES = ("Transformer", "Pooling", "Normalize")
# The file that holds max_seq_length; older folders name it for their model.
LENGTH_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class Pooling:
    """What follows the last hidden states of a sentence-embedding model."""

    # Of FLAGS; the vectors of several stand one behind the other.
    kinds: tuple[str, ...]
    is_normalized: bool
    # Longer texts are not what the model was trained on; None leaves it to the positions.
    max_tokens: int | None = None
    # What stands before each text unless another prompt is asked for.
    prompt: str = ""
    # The prompts for certain uses, "query" and the like.
    prompts: Mapping[str, str] | None = None
    # Whether texts are written small before the tokenizer sees them.
    lowers_case: bool = False

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in FLAGS.values():
                known = suggestion(kind, FLAGS.values())
                raise ModelError(f"pooling {shown(kind)} is not known{known}")
        if not self.kinds:
            raise ModelError("pooling: at least one kind is needed")


def read_pooling(folder: Path) -> Pooling | None:
    """Read the settings of a sentence-transformers folder; None where a folder is of another kind.

    The tokens of a prompt count as those of the text, as is usual.
    """
    modules = read_json(folder / "modules.json", list)
    if modules is None:
        return None
    paths = []
    for i, module in enumerate(modules):
        name, path = _module(folder, i, module)
        if name != MODULES[min(i, 2)]:
            raise ModelError(
                f"{folder / 'modules.json'}: {name} as module {i} is not known; known: a "
                "Transformer, then Pooling, then Normalize"
            )
        paths.append(path)
    if len(paths) < 2:
        raise ModelError(f"{folder / 'modules.json'}: there is no Pooling among the modules")
    path = folder / paths[1] / "config.json"
    settings = read_json(path, dict)
    if settings is None:
        raise ModelError(f"{path} is missing: it says how the vectors of the tokens become one")
    named, prompt = _prompts(folder / "config_sentence_transformers.json")
    if prompt and not Settings(settings, path).flag("include_prompt", True):
        raise ModelError(f"{folder}: include_prompt = false is not known here")
    max_tokens, lowers_case = _limits(folder)
    return Pooling(
        kinds=_kinds(path, settings),
        is_normalized=len(paths) > 2,
        max_tokens=max_tokens,
        prompt=prompt,
        prompts=named,
        lowers_case=lowers_case,
    )


def write_pooling(folder: Path, pooling: Pooling, *, d_model: int) -> None:
    """Write the files beside a Hugging Face folder that make sentence-transformers open it."""
    names = MODULES if pooling.is_normalized else MODULES[:2]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    flags = {flag: kind in pooling.kinds for flag, kind in FLAGS.items()}
    if tuple(kind for flag, kind in FLAGS.items() if flags[flag]) != pooling.kinds:
        raise ModelError(f"pooling {pooling.kinds}: flags cannot say this order")
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": d_model, **flags})
    lengths = {"max_seq_length": pooling.max_tokens, "do_lower_case": pooling.lowers_case}
    write_json(folder / LENGTH_FILES[0], lengths)
    named = dict(pooling.prompts or {})
    default = next((name for name, text in named.items() if text == pooling.prompt), None)
    if pooling.prompt and default is None:
        default = "default"
        named[default] = pooling.prompt
    prompts = {"prompts": named, "default_prompt_name": default if pooling.prompt else None}
    write_json(folder / "config_sentence_transformers.json", prompts)


def _module(folder: Path, i: int, module: Any) -> tuple[str, str]:
    """Return the name of a module's class, without its package, and its folder."""
    path = module.get("path") if isinstance(module, dict) else None
    if not isinstance(path, str) or not isinstance(module.get("type"), str):
        raise ModelError(f"{folder / 'modules.json'}: module {i} needs a type and a path")
    package, _, name = module["type"].rpartition(".")
    if package.partition(".")[0] != "sentence_transformers":
        raise ModelError(
            f"{folder / 'modules.json'}: {module['type']} is the model's own code, which lmwright "
            "never runs"
        )
    if Path(path).is_absolute() or ".." in Path(path).parts or (i == 0 and path not in ("", ".")):
        raise ModelError(
            f"{folder / 'modules.json'}: module {i} lies in {shown(path)}: not known here; "
            "expected the Transformer in the folder itself and the others below it"
        )
    return name, path


def _prompts(path: Path) -> tuple[dict[str, str], str]:
    """Return the prompts by their names, and the one that is used unless another is asked for."""
    settings = read_json(path, dict) or {}
    named, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    # A list, because `default` may be anything.
    if not isinstance(named, dict) or (default is not None and default not in list(named)):
        raise ModelError(
            f"{path}: default_prompt_name = {shown(default)} is not one of the prompts"
        )
    prompts = {name: Settings(named, path).text(name, "") for name in named}
    return prompts, "" if default is None else prompts[default]


def _kinds(path: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    named = settings.get("pooling_mode")
    if named is not None:
        kinds = [named] if isinstance(named, str) else named
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise ModelError(f"{path}: pooling_mode = {shown(named)}: expected a name or several")
        return tuple(kinds)
    unknown = {key for key in settings if key.startswith("pooling_mode_")} - set(FLAGS)
    if unknown:
        raise ModelError(f"{path}: {min(unknown)} is not known")
    flagged = (kind for flag, kind in FLAGS.items() if Settings(settings, path).flag(flag))
    return tuple(flagged) or ("mean",)


def _limits(folder: Path) -> tuple[int | None, bool]:
    """Return the most tokens of a text, and whether texts are written small first."""
    path, settings = folder / LENGTH_FILES[0], {}
    for name in LENGTH_FILES:
        found = read_json(folder / name, dict)
        if found is not None:
            path, settings = folder / name, found
            break
    lowers_case = Settings(settings, path).flag("do_lower_case", False)
    key = "max_seq_length"
    length = settings.get(key)
    if length is None:  # sentence-transformers 6 leaves it to the tokenizer; 1e30 says nothing
        path, key = folder / "tokenizer_config.json", "model_max_length"
        length = (read_json(path, dict) or {}).get(key)
        if isinstance(length, float) and length.is_integer():
            length = int(length)
        if type(length) is int and length >= 10**9:
            length = None
    if length is not None and (type(length) is not int or length < 1):
        raise ModelError(f"{path}: {key} = {shown(length)}: expected a number of tokens")
    return length, lowers_case
