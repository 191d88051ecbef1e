"""A new stage must be a record and a function: nothing in recipe/ may have to learn of it."""

import ast
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
from pydantic import Field

from lmwright import cli
from lmwright.cli import listing
from lmwright.core.config import Config
from lmwright.core.errors import LmwrightError, RecipeError
from lmwright.core.stage import DATA, MODEL, Estimate, Reference, Stage, StepContext
from lmwright.lm import load
from lmwright.recipe.plan import plan
from lmwright.recipe.read import parse
from lmwright.recipe.run import LOCK, run
from lmwright.recipe.stages import STAGES


class Average(Config):
    """Models whose weights are averaged; a stage of this test alone."""

    models: list[str] = Field(min_length=2)
    data: str
    seed: int = 0


def estimate(config: Average, known: Mapping[str, Estimate]) -> Estimate:
    sizes = [known[name].n_params or 0 for name in config.models]
    assert known[config.data].n_tokens is not None
    return Estimate(100 * len(sizes), 7_000_000_000, n_params=max(sizes))


def average(config: Average, out: Path, context: StepContext) -> dict[str, Any]:
    is_resumed = (out / "begun").exists()
    (out / "begun").touch()
    folders = [Path(context.inputs[name]) for name in config.models]
    if Path("stop").exists():
        raise LmwrightError("stopped")
    weights = [safetensors.load_file(folder / "model.safetensors") for folder in folders]
    means = {
        name: sum(each[name] for each in weights) / len(weights)  # type: ignore[union-attr]
        for name in weights[0]
    }
    shutil.copytree(folders[0], out / "model")
    safetensors.save_file(means, out / "model" / "model.safetensors")
    lines = (Path(context.inputs[config.data]) / "train.jsonl").read_text(encoding="utf-8")
    return {
        "is_resumed": is_resumed,
        "n_lines": lines.count("\n"),
        "parents": list(context.parents[out.name]),
        "drawn": context.seed,
    }


AVERAGE = Stage(
    name="average",
    title="Averaging",
    config=Average,
    makes=MODEL,
    version=1,
    run=f"{__name__}:average",
    estimate=estimate,
    references={"models": Reference(MODEL), "data": Reference(DATA)},
    parents=("models",),
    relation="merge",
)
MORE = {**STAGES, AVERAGE.name: AVERAGE}


@pytest.fixture
def text(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    zeros = safetensors.load_file(other / "model.safetensors")
    safetensors.save_file(
        {name: 0 * each for name, each in zeros.items()}, other / "model.safetensors"
    )
    lines = [json.dumps({"prompt": f"a {i}", "completion": "b"}) + "\n" for i in range(40)]
    (tmp_path / "words.jsonl").write_text("".join(lines), encoding="utf-8")
    return f"""
name = "toy"
seed = 5

[compress.small]
model = "middle"
method = "int8"
group_size = 16

[average.middle]
models = ["{tiny_folder.as_posix()}", "{other.as_posix()}"]
data = "words"

[data.words]
source = "words.jsonl"
"""


def test_a_stage_from_outside_is_checked_like_the_others(text: str) -> None:
    with pytest.raises(RecipeError, match=r"average: unknown key"):
        parse(text)
    with pytest.raises(RecipeError, match=r"average\.middle\.modls: unknown key; did you mean"):
        parse(text.replace("models =", "modls ="), stages=MORE)
    with pytest.raises(RecipeError, match=r"\[average\.middle\] makes no data"):
        parse(text.replace('data = "words"', 'data = "middle"'), stages=MORE)
    with pytest.raises(RecipeError, match=r"\[data.words\] makes no model; .* or \[average.NAME\]"):
        parse(text.replace('model = "middle"', 'model = "words"'), stages=MORE)


def test_a_stage_from_outside_is_planned_run_resumed_and_shown(
    text: str, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = parse(text, stages=MORE)
    planned = plan(recipe)
    assert [each.step.table for each in planned.steps] == [
        "data.words", "average.middle", "compress.small"
    ]  # fmt: skip
    assert planned.estimate.seconds > 200
    assert planned.estimate.memory_bytes == 7_000_000_000
    assert re.search(r"middle +average +to do +about 3 min +7.0 GB", listing.plan(planned))

    Path("stop").touch()
    with pytest.raises(LmwrightError, match="stopped"):
        run(planned)
    Path("stop").unlink()
    assert run(plan(recipe)).ran == ["middle", "small"]
    folder = planned.folder / "middle"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    parents = recipe.tables["average"]["middle"].model_dump()["models"]
    assert (result["is_resumed"], result["drawn"], result["parents"]) == (True, 5, parents)
    assert result["n_lines"] > 30
    step = json.loads((planned.folder / LOCK).read_text(encoding="utf-8"))["steps"]["middle"]
    assert step == result["step"]
    assert (step["title"], step["makes"], step["relation"]) == ("Averaging", "model", "merge")
    assert step["parents"] == parents

    # What it made is a model like any other, and the real step after it compressed that.
    whole = safetensors.load_file(tiny_folder / "model.safetensors")
    half = safetensors.load_file(folder / "model" / "model.safetensors")
    assert all(half[name].equal(whole[name] / 2) for name in whole)
    assert load(planned.folder / "small").can_chat
    assert run(plan(recipe)).ran == []
    assert run(plan(parse(text.replace("seed = 5", "seed = 6"), stages=MORE))).ran[1] == "middle"
    assert cli.main(["show", str(planned.folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["steps"]["middle"]
    assert (shown["stage"], shown["is_done"]) == ("average", True)


def test_recipe_knows_no_stage_by_name() -> None:
    import lmwright

    packages = {stage.run.split(".")[1] for stage in STAGES.values()}
    for path in (Path(lmwright.__file__).parent / "recipe").glob("*.py"):
        if path.name == "stages.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[1:2] not in [[name] for name in packages]
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in STAGES, (path, node.lineno)
                assert not re.search(rf"\[({'|'.join(STAGES)})\b", node.value), (path, node.lineno)
