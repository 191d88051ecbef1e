"""The command of the README, on real weights: it refuses no right file, and writes no wrong one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import weights
from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.conversion import convert as conversion
from lmwright.conversion.convert import convert
from lmwright.lm import load_local, modules
from lmwright.model import checkpoint
from lmwright.model.transformer import DecoderLM
from lmwright.tokenizer.gguf.writer import gguf_metadata
from lmwright.verification.subject import open_path
from lmwright.verification.verify import verify
from noise import LARGEST, MACHINES, NoisyLlama

pytest.importorskip("xllamacpp", reason="xllamacpp, a part of lmwright[dev], is missing")
pytestmark = [pytest.mark.slow, pytest.mark.weights, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The starter: as it is, as a folder, and rounded to integers."""
    folder = tmp_path_factory.mktemp("sources")
    starter = load_local(weights.smollm2(), precision="bf16")
    starter.save(folder / "bf16")
    for form in ("int8", "int4"):
        settings = Compress(model="x", method=form)
        compress_folder(folder / "bf16", settings, folder / form)
    names = ("bf16", "int8", "int4")
    return {"starter": weights.smollm2(), **{name: folder / name for name in names}}


@pytest.mark.parametrize("form", ["q8_0", "q4_0", "f16"])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("source", ["starter", "int8"])
def test_no_right_file_is_refused_on_any_machine(
    source: str, machine: int, form: str, sources: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def noisy(*args: Any, **options: Any) -> NoisyLlama:
        return NoisyLlama(*args, machine=machine, largest=LARGEST[form.upper()], **options)

    monkeypatch.setattr(conversion, "LlamaSubject", noisy)
    done = convert(str(sources[source]), tmp_path / "x.gguf", to="gguf", number_format=form)
    assert all(result.is_passed for result in done.results)


def scaled(name: str) -> Callable[[DecoderLM], object]:
    return lambda model: model.get_parameter(name).mul_(1.2)


def without_rows(model: DecoderLM) -> None:
    model.decoder.embedding.weight[10_000:12_000] = 0.0


WEIGHTS = {
    "a norm": scaled("decoder.blocks.7.mlp_residual.norm_in.weight"),
    "the last norm": scaled("decoder.norm.weight"),
    "2,000 rows": without_rows,
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_wrong_weights_are_caught_in_four_bits(
    fault: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    spoilt = load_local(sources["bf16"], precision="fp32")
    WEIGHTS[fault](modules(spoilt))  # type: ignore[arg-type]
    path, metadata = tmp_path / "x.gguf", gguf_metadata(spoilt.tokenizer)
    checkpoint.save_gguf(
        modules(spoilt), path, type_name="Q4_0", tokenizer_metadata=metadata, name="x"
    )
    found = verify(open_path(sources["bf16"]), open_path(path), n_prompts=3, n_tokens=4)
    assert "rows of weights" in {check.name for check in found.failures}, found


def swapped_merges(folder: Path) -> None:
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    merges = spec["model"]["merges"]
    merges[20_000], merges[30_000] = merges[30_000], merges[20_000]
    path.write_text(json.dumps(spec), encoding="utf-8")


def another_end(folder: Path) -> None:
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "eos_token_id": [2, 0, 198]}), encoding="utf-8")


@pytest.mark.parametrize("change", [swapped_merges, another_end])
def test_another_tokenizer_is_caught_in_four_bits(
    change: Callable[[Path], None], sources: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(sources["int4"], tmp_path / "copy")
    original = open_path(sources["bf16"])
    assert verify(original, open_path(copy), n_prompts=3, n_tokens=4).is_passed
    change(copy)
    found = verify(original, open_path(copy), n_prompts=3, n_tokens=4)
    assert "vocabulary" in {check.name for check in found.failures}, found
