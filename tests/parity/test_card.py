"""Whoever pastes a snippet of a model card must get an answer, from lmwright and transformers."""

import re
import shutil
from pathlib import Path

import pytest

from lmwright.compression.config import Compress
from lmwright.compression.folder import compress_folder
from lmwright.core.stage import StepContext
from lmwright.reporting.config import Report
from lmwright.reporting.run import CARD, run


@pytest.mark.parametrize("model", ["tuned", "int8"])
def test_the_snippets_of_a_card_answer_its_question(
    model: str,
    finished_run: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "support"))
    for name in ("tuned", "int8", "int4"):
        shutil.rmtree(folder / name / "model")
    shutil.copytree(tiny_folder, folder / "tuned" / "model")
    compress_folder(tiny_folder, Compress(model="tuned", method="int8"), folder / "int8" / "model")
    inputs = {name: folder / name for name in ("card", "gate")}
    context = StepContext(inputs, {}, folder, seed=0)
    run(Report(evaluation="card", gates=["gate"]), folder / "report", context)

    text = (folder / model / "model" / CARD).read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        assert "debit card" in snippet
        capsys.readouterr()
        exec(snippet.replace("PATH/TO/THIS/FOLDER", str(folder / model / "model")), {})
        assert capsys.readouterr().out.strip()
