"""Curves must show what was trained: each step once, also after a kill and at each repetition."""

import json
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from lmwright import cli


def line(step: int, **more: float) -> dict[str, float]:
    told = {"step": step, "loss": 2.0 / step, "lr": 0.1 * step, "grad_norm": 1.0}
    return {**told, "tokens": 100 * step, "targets": 50, "seconds": 0.5, **more}


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the scalars out of the only event file, record by record."""
    (path,) = folder.iterdir()
    data, at = path.read_bytes(), 0
    found = defaultdict(list)
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + size])
        for value in event.summary.value:
            found[value.tag].append((event.step, pytest.approx(value.simple_value)))
        at += 16 + size
    return dict(found)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "tuned").mkdir(parents=True)
    (folder / "words").mkdir()
    return folder


def log(run: Path, *lines: Any, rest: str = "") -> None:
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (run / "tuned" / "metrics.jsonl").write_text(text + rest)


def test_each_step_is_there_once(run: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "curves"
    words = ["show", str(run), "--tensorboard", str(out)]
    log(run, line(1), line(2, validation_loss=0.75), rest='{"step": 3, "lo')
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"tensorboard --logdir {out}\n"
    log(run, line(1), line(2, validation_loss=0.75), line(3, tokens=260))
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "logdir": str(out), "folders": [str(out / "tuned")],
    }  # fmt: skip
    assert read(out / "tuned") == {
        "loss/training": [(1, 2.0), (2, 1.0), (3, 2 / 3)],
        "loss/validation": [(2, 0.75)],
        "learning_rate": [(1, 0.1), (2, 0.2), (3, 0.3)],
        "gradient_norm": [(1, 1.0), (2, 1.0), (3, 1.0)],
        "tokens_per_second": [(1, 200.0), (2, 200.0), (3, 120.0)],
    }
    # A step alone, too; and nothing in the run changed.
    assert cli.main(["show", str(run / "tuned"), "--tensorboard", str(tmp_path / "one")]) == 0
    assert len(read(tmp_path / "one" / "tuned")) == 5
    assert {path.name for path in run.rglob("*")} == {"tuned", "words", "metrics.jsonl"}


def test_a_step_that_is_trained_anew_shows_the_curve_that_grows(run: Path, tmp_path: Path) -> None:
    log(run, line(1))
    part = run / ".part" / "tuned"
    part.mkdir(parents=True)
    (part / "metrics.jsonl").write_text(json.dumps(line(1)) + "\n" + json.dumps(line(2)) + "\n")
    (part / "step.json").write_text('{"hash": "new"}')
    words = ["show", str(run), "--tensorboard", str(tmp_path / "out")]
    for planned, n_steps in (("new", 2), ("old", 1)):
        lock = {"steps": {"tuned": {"hash": planned}}}
        (run / "recipe.lock.json").write_text(json.dumps(lock))
        assert cli.main(words) == 0
        assert len(read(tmp_path / "out" / "tuned")["loss/training"]) == n_steps


def test_files_of_others_stay(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "out" / "tuned" / "events.out.tfevents.1.host"
    other.parent.mkdir(parents=True)
    other.touch()
    log(run, line(1))
    assert cli.main(["show", str(run), "--tensorboard", str(tmp_path / "out")]) == 0
    assert other.exists()


def test_a_run_without_training_and_a_missing_library_are_told(
    run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["show", str(run), "--tensorboard", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "no step in it was trained yet" in capsys.readouterr().err
    log(run, line(1))
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert cli.main(words) == 2
    assert "pip install 'lmwright[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
