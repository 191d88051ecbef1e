"""A wrong export is worse than none: it is refused, and nothing that was there is lost."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from conftest import build_model
from copies import local_model
from lmwright.conversion import convert as conversion
from lmwright.conversion.check import VerificationError
from lmwright.conversion.convert import convert
from lmwright.core.artifact import locked
from lmwright.core.errors import BusyError, LmwrightError, ModelError, RequestError
from lmwright.formats.gguf import open_gguf
from lmwright.lm import load_local
from lmwright.model import checkpoint
from lmwright.model.config import ModelConfig
from lmwright.model.transformer import DecoderLM, EncoderLM
from lmwright.tokenizer.encode import Tokenizer
from lmwright.verification import weights
from lmwright.verification.remote import LlamaSubject
from lmwright.verification.stored import weights_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads of llama.cpp that wait for each other take seconds on a busy machine.
    monkeypatch.setattr(conversion, "LlamaSubject", partial(LlamaSubject, n_threads=1))


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ["f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.usefixtures("no_llama_cpp")
def test_a_folder_becomes_a_gguf(form: str, tiny_folder: Path, here: Path) -> None:
    done = convert(str(tiny_folder), Path("tiny.gguf"), to="gguf", number_format=form)
    stored = {"f16": "fp16", "bf16": "bf16"}.get(form, form.upper())
    assert weights_of(Path("tiny.gguf")) == stored
    assert names(here) == ["tiny.gguf"]
    assert done.results[0].b == "tiny.gguf"
    assert all(result.is_passed for result in done.results)
    assert done.size_bytes == Path("tiny.gguf").stat().st_size
    assert json.loads(json.dumps(done.to_json()))["format"] == form


def test_a_gguf_is_compared_in_llama_cpp_too(tiny_folder: Path, here: Path) -> None:
    pytest.importorskip("xllamacpp", reason="xllamacpp, a part of lmwright[dev], is missing")
    done = convert(str(tiny_folder), Path("tiny.gguf"), to="gguf")
    assert [result.b for result in done.results] == ["tiny.gguf", "llama.cpp:tiny.gguf"]
    assert done.notes == ()


def test_where_llama_cpp_is_missing_that_is_said(
    no_llama_cpp: None, tiny_folder: Path, here: Path
) -> None:
    done = convert(str(tiny_folder), Path("tiny.gguf"), to="gguf")
    assert len(done.results) == 1
    assert "not opened in llama.cpp" in done.notes[0]


@pytest.mark.usefixtures("no_llama_cpp")
def test_there_and_back_is_the_same_model(tiny_folder: Path, here: Path) -> None:
    convert(str(tiny_folder), Path("there.gguf"), to="gguf", number_format="f16")
    done = convert("there.gguf", Path("back"), to="hf")
    assert done.format == "fp16"
    assert done.results[0].numbers["largest_difference"] == 0
    first, second = load_local(tiny_folder), load_local("back")
    assert second.tokenizer.chat_template is not None
    assert first.tokenizer.encode("The bank") == second.tokenizer.encode("The bank")
    # What a GGUF ends a reply with stays known.
    assert set(second.tokenizer.eos_ids) == {0, 2}


@pytest.fixture
def padded_folder(tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, here: Path) -> Path:
    """A model with rows that no token has, as most have for speed."""
    model = build_model(replace(tiny_config, vocab_size=320))
    local_model(model.requires_grad_(False), tiny_tokenizer).save(here / "padded")
    return here / "padded"


@pytest.mark.parametrize("form", ["f16", "q8_0", "q4_0"])
@pytest.mark.usefixtures("no_llama_cpp")
def test_rows_without_a_token_are_no_fault(form: str, padded_folder: Path) -> None:
    done = convert(str(padded_folder), Path("x.gguf"), to="gguf", number_format=form)
    assert all(result.is_passed for result in done.results)
    with open_gguf(Path("x.gguf")) as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 320
        assert file.metadata["tokenizer.ggml.tokens"][310] == "[PAD310]"
    # And back: the file's tokens are the folder's then.
    assert convert("x.gguf", Path("back"), to="hf").results[0].is_passed


@pytest.mark.usefixtures("no_llama_cpp")
def test_a_token_without_a_row_is_left_out(tiny_folder: Path, here: Path, caplog) -> None:
    shutil.copytree(tiny_folder, here / "model")
    path = here / "model" / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 300, "content": "<image>"})
    path.write_text(json.dumps(spec))
    assert convert("model", Path("x.gguf"), to="gguf").results[0].is_passed
    assert "'<image>' is left out: the model has no row 300" in caplog.text


@pytest.mark.usefixtures("no_llama_cpp")
def test_a_name_does_not_bring_rules_of_another_family(tiny_folder: Path, here: Path) -> None:
    convert(str(tiny_folder), Path("my-phi3.gguf"), to="gguf")
    with open_gguf(Path("my-phi3.gguf")) as file:
        assert file.metadata["general.name"] == "my-phi_3"


def test_defaults_of_sampling_are_kept(tiny_folder: Path, here: Path) -> None:
    shutil.copytree(tiny_folder, here / "model")
    path = here / "model" / "generation_config.json"
    before = json.loads(path.read_text())
    ours = {"temperature": 0.6, "top_p": 0.95, "do_sample": True, "repetition_penalty": 1.1}
    path.write_text(json.dumps({**before, **ours}))
    convert("model", Path("out"), to="hf", number_format="bf16")
    assert json.loads((here / "out" / "generation_config.json").read_text()) == {**before, **ours}
    # A GGUF says nothing of them.
    convert("model", Path("out.gguf"), to="gguf", number_format="f16")
    convert("out.gguf", Path("bare"), to="hf")
    assert "temperature" not in json.loads((here / "bare" / "generation_config.json").read_text())


@pytest.mark.usefixtures("no_llama_cpp")
def test_in_four_bits_a_wrong_setting_is_seen_with_the_same_weights(
    tiny_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = convert(str(tiny_folder), Path("right.gguf"), to="gguf", number_format="q4_0")
    first, second = done.results
    assert (first.tolerance, second.tolerance) == ("4 bits", "the same numbers")
    assert second.a == f"{tiny_folder} with the weights of right.gguf"
    assert second.numbers["largest_difference"] == 0
    # A fault that neither the weights nor the settings show.
    monkeypatch.setattr(weights, "_values", lambda config: {})
    write = checkpoint.write_gguf_config

    def wrong(*args: object) -> dict:
        return {**write(*args), "llama.rope.freq_base": 20_000.0}  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "write_gguf_config", wrong)
    with pytest.raises(VerificationError, match=r"with the weights of .*: largest difference"):
        convert(str(tiny_folder), Path("wrong.gguf"), to="gguf", number_format="q4_0")


@pytest.mark.usefixtures("no_llama_cpp")
def test_what_is_rounded_already_may_be_rounded_again(tiny_folder: Path, here: Path) -> None:
    for form in ("q8_0", "q4_0"):
        convert(str(tiny_folder), Path(f"{form}.gguf"), to="gguf", number_format=form)
        done = convert(f"{form}.gguf", Path(f"{form}-2.gguf"), to="gguf", number_format=form)
        assert done.results[0].is_passed


@pytest.mark.parametrize(
    ("wished", "stored"), [(None, "fp32"), ("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16")]
)
def test_a_folder_is_written_in_the_format_that_was_wished(
    wished: str | None, stored: str, tiny_folder: Path, here: Path
) -> None:
    done = convert(str(tiny_folder), Path("out"), to="hf", number_format=wished)
    assert (done.format, weights_of(Path("out"))) == (stored, stored)


def test_licences_and_encoders_come_along(
    tiny_config: ModelConfig, tiny_tokenizer: Tokenizer, here: Path
) -> None:
    settings = {"family": "bert", "positions": "learned", "norm": "layer", "n_kv_heads": 4}
    settings |= {"head": "none", "norm_places": ("sum",), "is_gated": False, "activation": "gelu"}
    settings |= {"has_embedding_norm": True, "has_final_norm": False, "qkv_bias": True}
    settings |= {"out_bias": True, "mlp_bias": True, "n_token_types": 2, "eos_ids": ()}
    config = ModelConfig(**{**vars(tiny_config), **settings})
    torch.manual_seed(0)
    local_model(EncoderLM(config), tiny_tokenizer).save(here / "encoder")
    (here / "encoder" / "LICENSE").write_text("free")
    convert("encoder", Path("out"), to="hf", number_format="bf16")
    assert (here / "out" / "LICENSE").read_text() == "free"
    with pytest.raises(ModelError, match="GGUF is written for decoders"):
        convert("encoder", Path("out.gguf"), to="gguf")
    assert names(here) == ["encoder", "out"]


Spoil = Callable[[pytest.MonkeyPatch], None]


def spoil_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    save = checkpoint.save

    def wrong(model: DecoderLM, folder: Path, dtype: torch.dtype) -> None:
        weight = model.decoder.blocks[0].attention.q.weight
        kept = weight.clone()
        weight.copy_(weight.view(4, 2, 8, 64).transpose(1, 2).reshape(64, 64))
        save(model, folder, dtype)
        weight.copy_(kept)

    monkeypatch.setattr(checkpoint, "save", wrong)


def spoil_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if llama.cpp had Hugging Face's order of rotary pairs.
    monkeypatch.setattr(checkpoint, "permute", lambda weight, n_heads: weight)


@pytest.mark.parametrize(
    ("to", "out", "kept", "spoil"),
    [
        ("hf", "out", "out.failed", spoil_folder),
        ("gguf", "out.gguf", "out.failed.gguf", spoil_gguf),
    ],
)
def test_a_wrong_export_is_refused(
    to: conversion.Target, out: str, kept: str, spoil: Spoil, tiny_folder: Path, here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spoil(monkeypatch)
    with pytest.raises(VerificationError, match="weights: relative error") as error:
        convert(str(tiny_folder), Path(out), to=to)
    assert str(error.value).endswith("nothing was written")
    assert error.value.exit_code == 1
    assert names(here) == []
    for name in (kept, kept.replace("failed", "failed-2")):
        with pytest.raises(VerificationError, match=f"kept as {name}"):
            convert(str(tiny_folder), Path(out), to=to, keeps_failed=True)
    assert names(here) == sorted([kept, kept.replace("failed", "failed-2")])


def test_an_older_model_stays_when_the_new_one_is_wrong(
    tiny_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(str(tiny_folder), Path("out"), to="hf")
    before = (here / "out" / "model.safetensors").read_bytes()
    spoil_folder(monkeypatch)
    with pytest.raises(VerificationError):
        convert(str(tiny_folder), Path("out"), to="hf", is_forced=True)
    assert (here / "out" / "model.safetensors").read_bytes() == before
    assert names(here) == ["out"]


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize(("to", "out"), [("hf", "out"), ("gguf", "out.gguf")])
def test_an_older_model_is_replaced_only_if_told(
    to: conversion.Target, out: str, tiny_folder: Path, here: Path
) -> None:
    convert(str(tiny_folder), Path(out), to=to)
    with pytest.raises(RequestError, match="exists already"):
        convert(str(tiny_folder), Path(out), to=to)
    other = "fp16" if to == "hf" else "q8_0"
    convert(str(tiny_folder), Path(out), to=to, number_format=other, is_forced=True)
    assert weights_of(Path(out)) == ("fp16" if to == "hf" else "Q8_0")
    assert names(here) == [out]


def test_a_folder_of_other_things_is_never_replaced(tiny_folder: Path, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(RequestError, match="no model of this kind"):
        convert(str(tiny_folder), Path("out"), to="hf", is_forced=True)
    assert (here / "out" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("model", "out", "options", "message"),
    [
        ("model", "model", {"to": "hf"}, "is, holds or lies in the model"),
        ("model", "model/inner", {"to": "hf"}, "is, holds or lies in the model"),
        ("model", ".", {"to": "hf"}, "is, holds or lies in the model"),
        ("model", "out", {"to": "gguf"}, "let its name end with .gguf"),
        ("model", "out.gguf", {"to": "hf"}, "--to hf writes a folder"),
        ("model", "out", {"to": "ggfu"}, "did you mean 'gguf'"),
        ("model", "out", {"to": "hf", "number_format": "q8_0"}, "--dtype q8_0: --to hf writes"),
        ("model", "o.gguf", {"to": "gguf", "number_format": "fp32"}, "--type fp32: --to gguf"),
        ("openai:x@http://127.0.0.1:9/v1", "out", {"to": "hf"}, "its weights are not here"),
        ("llama.cpp:x.gguf", "out", {"to": "hf"}, "its weights are not here"),
        ("no/such", "out", {"to": "hf"}, "no such model"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    model: str, out: str, options: dict, message: str, tiny_folder: Path, here: Path
) -> None:
    shutil.copytree(tiny_folder, here / "model")
    with pytest.raises(RequestError, match=message):
        convert(model, Path(out), **options)
    assert names(here) == ["model"]


def test_a_disk_that_is_too_small_is_an_error(
    tiny_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(here)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    for to, out in (("hf", "out"), ("gguf", "out.gguf")):
        with pytest.raises(LmwrightError, match="only 1,000 are free"):
            convert(str(tiny_folder), Path(out), to=to)  # type: ignore[arg-type]
    assert names(here) == []


def test_a_place_that_cannot_be_written_is_an_error(tiny_folder: Path, here: Path) -> None:
    (here / "file").write_text("no folder")
    with pytest.raises(LmwrightError, match=r"cannot write file/out: "):
        convert(str(tiny_folder), Path("file/out"), to="hf")


def test_an_interruption_leaves_nothing_behind(
    tiny_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(str(tiny_folder), Path("out"), to="hf")
    assert names(here) == []


def test_what_a_killed_run_left_is_cleared(tiny_folder: Path, here: Path) -> None:
    for name in ("out", "out.older"):
        shutil.copytree(tiny_folder, here / ".out.part" / name)
    (here / ".out.part" / "out" / "config.json").unlink()
    (here / ".out.part" / "half.gguf").write_bytes(b"GGUF")
    convert(str(tiny_folder), Path("out"), to="hf", number_format="fp16")
    assert names(here) == ["out"]
    assert weights_of(Path("out")) == "fp16"


def test_an_older_model_that_a_killed_run_put_aside_comes_back(
    tiny_folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, here / ".out.part" / "out.older")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(conversion, "_write", fail)
    with pytest.raises(OSError, match="no space left"):
        convert(str(tiny_folder), Path("out"), to="hf")
    assert names(here) == ["out"]
    assert names(Path("out")) == names(tiny_folder)


def test_two_runs_at_once_do_not_write_the_same_model(tiny_folder: Path, here: Path) -> None:
    with (
        locked(here / ".out.part"),
        pytest.raises(BusyError, match="another lmwright works here"),
    ):
        convert(str(tiny_folder), Path("out"), to="hf")
