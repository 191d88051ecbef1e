"""Without the extras, every verb must answer, or say in one sentence what to install."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import lmwright

PROGRAM = """
import contextlib, io, json, sys
for name in ("torch", "pyarrow", "scipy", "fastapi", "uvicorn", "openai", "xllamacpp"):
    sys.modules[name] = None
from lmwright.cli import main
done = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


def outcomes(folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    root = str(Path(lmwright.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "OPENAI_API_KEY": "none"},
        input="",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def test_what_needs_no_extra_answers(tmp_path: Path) -> None:
    text = 'name = "small"\n[data.words]\nsource = "starter:bank-support"\n'
    (tmp_path / "small.toml").write_text(text, encoding="utf-8")
    found = outcomes(
        tmp_path,
        ["new", "mine"],
        ["run", "mine.toml", "--dry-run"],
        ["run", "small.toml"],
        ["show", "runs/small"],
        ["show", "openai:m"],
        ["--help"],
    )
    assert [(code, err) for code, _, err in found if code] == []
    (code, out, _), = outcomes(tmp_path, ["doctor"])  # fmt: skip
    assert code == 1
    assert "pip install 'lmwright[train]'" in out


def test_what_needs_an_extra_says_so_in_one_sentence(tiny_folder: Path, tmp_path: Path) -> None:
    model, hosted = str(tiny_folder), "openai:m@http://127.0.0.1:9/v1"
    parquet = 'name = "rows"\n[data.words]\nsource = "words.parquet"\n'
    (tmp_path / "words.parquet").write_bytes(b"PAR1")
    (tmp_path / "rows.toml").write_text(parquet, encoding="utf-8")
    expected = [
        (["run", "mine.toml"], "train"),
        (["run", "rows.toml"], "evaluate"),
        (["generate", model, "--prompt", "a"], "train"),
        (["generate", hosted, "--prompt", "a"], "hosted"),
        (["chat", model], "train"),
        (["evaluate", model], "train"),
        (["evaluate", hosted], "evaluate"),
        (["show", model], "train"),
        (["convert", model, "out", "--to", "hf"], "train"),
        (["convert", model, "out.gguf", "--to", "gguf"], "train"),
        (["verify", model, model], "train"),
        (["serve", model], "train"),
        (["serve", hosted, "--port", "0"], "hosted"),
    ]
    _, *found = outcomes(tmp_path, ["new", "mine"], *(command for command, _ in expected))
    for (command, extra), (code, out, err) in zip(expected, found, strict=True):
        assert (code, out) == (2, ""), (command, err)
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert re.fullmatch(rf"error: .* needs? .*pip install 'lmwright\[{extra}\]'", last), command
