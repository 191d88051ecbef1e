"""A model in another file format; what is written is compared with its source before it counts."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lmwright.conversion.check import VerificationError, any_number, demand
from lmwright.core.artifact import LOCK, locked, write_json
from lmwright.core.errors import LmwrightError, ModelError, RequestError, suggestion
from lmwright.formats.space import check_space
from lmwright.hosted.address import is_hosted
from lmwright.hub import resolve
from lmwright.lm import LocalModel, load_local, modules, weight_bytes
from lmwright.verification.remote import LLAMA_CPP, LlamaSubject
from lmwright.verification.result import VerificationResult
from lmwright.verification.stored import stored_weights
from lmwright.verification.subject import LocalSubject, open_path
from lmwright.verification.verify import verify

Target = Literal["hf", "gguf"]
# The number formats of each target, by the names of the command line, and what each stands for.
FORMATS: dict[Target, dict[str, str]] = {
    "hf": {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"},
    "gguf": {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"},
}
FLAGS: dict[Target, str] = {"hf": "--dtype", "gguf": "--type"}
# A quantised source is written to a folder in this, and any source to a GGUF in that.
DEFAULTS: dict[Target, str] = {"hf": "bf16", "gguf": "f16"}
# Where both sides have the same weights, a wrong setting shows at once.
FEW_PROMPTS = 6
GENERATION = "generation_config.json"
# What lies beside the weights and belongs to them.
COMPANIONS = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class Conversion:
    """A finished export, with the comparisons that it passed."""

    source: str
    out: str
    format: str
    size_bytes: int
    results: tuple[VerificationResult, ...]
    # What was not compared for lack of a program.
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        data = {**vars(self), "verdicts": [result.to_json() for result in self.results]}
        del data["results"]
        return data


def convert(
    model: str,
    out: Path,
    *,
    to: Target,
    number_format: str | None = None,
    is_forced: bool = False,
    keeps_failed: bool = False,
) -> Conversion:
    """Write `model` to `out`, a Hugging Face folder or a .gguf file, and verify it.

    It lies under a temporary name until it has passed; a VerificationError says what is wrong.
    `number_format` None is the source's own where the target has it. `is_forced` replaces an older
    model at `out`, `keeps_failed` keeps what did not pass as OUT.failed.
    """
    source = _check_request(model, out, to=to, is_forced=is_forced)
    loaded = load_local(source, precision="fp32", name=model)
    stored = stored_weights(source)
    number_format = _chosen(number_format, to=to, stored=stored.most)
    if to == "gguf" and loaded.kind != "decoder":
        raise ModelError(
            f"{model} is an {loaded.kind} ({loaded.info.architecture}); GGUF is written for "
            "decoders only. --to hf writes a folder"
        )
    with _working_folder(out) as folder:
        product = folder / out.name
        _write(loaded, product, source=source, to=to, number_format=number_format)
        try:
            results, notes = _verify(LocalSubject(loaded, stored), product, out=out, to=to)
        except VerificationError as error:
            if not keeps_failed:
                raise VerificationError(f"{error}\nnothing was written", error.results) from None
            kept = _free_name(out)
            product.rename(kept)
            raise VerificationError(f"{error}\nkept as {kept}", error.results) from None
        _replace(product, out, folder)
    size = weight_bytes(out)
    return Conversion(model, str(out), number_format, size, tuple(results), tuple(notes))


def _check_request(model: str, out: Path, *, to: Target, is_forced: bool) -> Path:
    """Refuse what cannot work before anything is loaded; return where the source lies."""
    if to not in FORMATS:
        raise RequestError(f"--to {to}: no such format{suggestion(to, FORMATS)}")
    if is_hosted(model) or model.startswith(LLAMA_CPP):
        raise ModelError(f"{model}: its weights are not here; give the model's folder or file")
    if to == "gguf" and out.suffix != ".gguf":
        raise RequestError(f"{out}: --to gguf writes a file; let its name end with .gguf")
    if to == "hf" and out.suffix == ".gguf":
        raise RequestError(f"{out}: --to hf writes a folder; --to gguf writes a .gguf file")
    source = resolve(model)
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise RequestError(f"{out}: is, holds or lies in the model to be converted ({source})")
    if out.exists() or out.is_symlink():
        if not is_forced:
            raise RequestError(
                f"{out} exists already; choose another name, or replace it (--force)"
            )
        is_model = out.is_file() if to == "gguf" else (out / "config.json").is_file()
        if not is_model or out.is_symlink():
            raise RequestError(
                f"{out}: is no model of this kind, so that --force does not replace it"
            )
    return source


def _chosen(number_format: str | None, *, to: Target, stored: str) -> str:
    known = FORMATS[to]
    if number_format is not None:
        if number_format not in known:
            raise RequestError(f"{FLAGS[to]} {number_format}: --to {to} writes {', '.join(known)}")
        return number_format
    return stored if stored in known and to == "hf" else DEFAULTS[to]


@contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, on the same disk, that is gone afterwards.

    It is for one run at a time. What one that was killed left in it goes, but for the older model
    that it had put aside.
    """
    folder = out.with_name(f".{out.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LmwrightError(f"cannot write {out}: {error.strerror or error}") from error
    with locked(folder):
        try:
            older = _older(out, folder)
            if older.exists() and not out.exists():
                older.rename(out)
            for rest in folder.iterdir():
                if rest.is_dir():
                    shutil.rmtree(rest)
                elif rest.name != LOCK:
                    rest.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(
    loaded: LocalModel, product: Path, *, source: Path, to: Target, number_format: str
) -> None:
    import torch

    from lmwright.formats.sentence_transformers import write_pooling
    from lmwright.model.checkpoint import save, save_gguf
    from lmwright.tokenizer.gguf.writer import gguf_metadata, harmless_name

    model, tokenizer, stored = modules(loaded), loaded.tokenizer, FORMATS[to][number_format]
    if to == "gguf":
        metadata = gguf_metadata(tokenizer, vocab_size=model.config.vocab_size)
        name = harmless_name(product.stem)
        save_gguf(model, product, type_name=stored, tokenizer_metadata=metadata, name=name)
        return
    dtype: torch.dtype = getattr(torch, stored)
    check_space(product, sum(p.numel() for p in model.parameters()) * dtype.itemsize)
    save(model, product, dtype)
    _keep_defaults(source, product)
    tokenizer.save(product)
    if (pooling := loaded.backend.pooling) is not None:
        write_pooling(product, pooling, d_model=model.config.d_model)
    beside = source if source.is_dir() else source.parent
    for path in sorted(path for name in COMPANIONS for path in beside.glob(name)):
        if path.is_file():
            shutil.copyfile(path, product / path.name)


def _keep_defaults(source: Path, product: Path) -> None:
    """Keep what a folder says of sampling: temperature, top_p, repetition_penalty and the like."""
    from lmwright.formats.json_file import read_json

    given = read_json(source / GENERATION, dict) if source.is_dir() else None
    if given:
        written = read_json(product / GENERATION, dict) or {}
        # What the model itself says of its tokens was read with it.
        write_json(product / GENERATION, {**given, **written})


def _verify(
    original: LocalSubject, product: Path, *, out: Path, to: Target
) -> tuple[list[VerificationResult], list[str]]:
    """Compare the export with its source here, and a GGUF with itself in llama.cpp.

    Both have the same weights then, so that even of four bits little is allowed.
    """
    copy = open_path(product, name=str(out))
    is_coarse = copy.weights == "Q4_0"
    results = [verify(original, copy, tolerance=any_number("4 bits") if is_coarse else None)]
    demand(results, what=str(out))
    if is_coarse:
        # What is not rounding is seen with the same weights on both sides.
        original.model.load_state_dict(copy.model.state_dict(), assign=True)
        original.name = f"{original.name} with the weights of {out}"
        results.append(verify(original, copy, n_prompts=FEW_PROMPTS))
        demand(results, what=str(out))
    if to == "hf":
        return results, []
    if find_spec("xllamacpp") is None:
        return results, [
            "not opened in llama.cpp, which is not installed: pip install 'lmwright[llama-cpp]'"
        ]
    with closing(LlamaSubject(product, name=f"{LLAMA_CPP}{out}", here=copy)) as there:
        results.append(verify(copy, there))
    demand(results, what=str(out))
    return results, []


def _replace(product: Path, out: Path, folder: Path) -> None:
    """Give the export its name; an older model goes with the working folder."""
    if not out.is_dir():
        product.replace(out)
        return
    # A folder cannot be replaced in one go.
    older = out.rename(_older(out, folder))
    try:
        product.rename(out)
    except BaseException:
        older.rename(out)
        raise


def _older(out: Path, folder: Path) -> Path:
    return folder / f"{out.name}.older"


def _free_name(out: Path) -> Path:
    """Return OUT.failed (OUT.failed.gguf), or one with a number that is not taken."""
    suffix = out.suffix if out.suffix == ".gguf" else ""
    stem = out.name.removesuffix(suffix)
    for tail in ("", *(f"-{number}" for number in range(2, 1000))):
        path = out.with_name(f"{stem}.failed{tail}{suffix}")
        if not path.exists():
            return path
    raise LmwrightError(f"{out}: there are too many failed exports beside it; remove some")
