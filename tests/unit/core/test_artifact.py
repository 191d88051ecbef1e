"""A step that only looks finished is passed on as a result; one that is lost is paid for twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmwright.core.artifact import (
    Artifact,
    hash_json,
    hash_path,
    locked,
    read_state,
    read_state_lines,
    replacing,
    sweep_partial,
    write_json,
)
from lmwright.core.errors import BusyError, LmwrightError, StateError


def test_a_file_is_replaced_only_if_the_block_succeeds(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud83d", encoding="utf-8")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_disk_that_is_full_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    full = pytest.raises(LmwrightError, match=r"cannot write .*x\.txt: No space left")
    with full, replacing(path):
        raise OSError(28, os.strerror(28))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LmwrightError, match=r"cannot write .*file/x\.json"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_is_sorted_and_knows_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": "\u00e4"})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": "\u00e4",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == text


def test_hashes_depend_on_contents_and_names_alone(tmp_path):
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 1})
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x").write_text("x")
    assert hash_path(tmp_path / "one") == hash_path(tmp_path / "two")
    (tmp_path / "two" / ".lock").write_text("")
    assert hash_path(tmp_path / "one") == hash_path(tmp_path / "two")
    (tmp_path / "two" / "sub" / "x").rename(tmp_path / "two" / "sub" / "y")
    assert hash_path(tmp_path / "one") != hash_path(tmp_path / "two")


def test_a_step_is_done_exactly_when_finished_with_this_hash(tmp_path):
    step = Artifact(tmp_path / "step", "h1")
    assert step.result is None
    step.begin()
    assert step.result is None
    step.finish({"loss": 1.5})
    assert step.result == {"loss": 1.5, "format_version": 1, "hash": "h1"}
    assert Artifact(tmp_path / "step", "h2").result is None


def test_what_a_killed_run_left_stays_for_the_same_hash_only(tmp_path):
    step = Artifact(tmp_path / "step", "h1")
    step.begin()
    state = tmp_path / "step" / "state"
    state.write_text("at step 7")
    step.begin()
    assert state.read_text() == "at step 7"
    Artifact(tmp_path / "step", "h2").begin()
    assert not state.exists()


def test_a_finished_step_stays_until_its_successor_is_done(tmp_path):
    step = Artifact(tmp_path / "step", "h1")
    (step.begin() / "weights").write_text("of h1")
    step.finish({})
    other = Artifact(tmp_path / "step", "h2")
    place = other.begin()
    assert place == other.begin() == tmp_path / ".part" / "step"
    (place / "weights").write_text("of h2")
    assert step.result
    assert (tmp_path / "step" / "weights").read_text() == "of h1"
    other.finish({})
    assert (step.result, bool(other.result)) == (None, True)
    assert (tmp_path / "step" / "weights").read_text() == "of h2"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_discarded_step_leaves_what_is_the_users(tmp_path):
    step = Artifact(tmp_path / "step", "h1", files=("weights",))
    for name in ("weights", "notes.txt"):
        (step.begin() / name).write_text(name)
    step.finish({})
    step.discard()
    assert step.result is None
    assert [path.name for path in (tmp_path / "step").iterdir()] == ["notes.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_half_written_files_go_and_others_stay(tmp_path):
    program = "from lmwright.core.artifact import *; import os, sys\n"
    program += "with replacing(Path(sys.argv[1])): os._exit(1)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "deep" / "x.json")])
    (tmp_path / "deep" / ".mine.part").write_text("of a user")
    assert len(list((tmp_path / "deep").iterdir())) == 2
    sweep_partial(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [".mine.part"]


def test_a_file_that_cannot_be_removed_is_named_and_harms_nothing(tmp_path, monkeypatch, caplog):
    step = Artifact(tmp_path / "step", "h1")
    (step.begin() / "weights").write_text("w")
    step.finish({})
    unlink = os.unlink

    def refusing(path, **options):
        if os.fspath(path).endswith("weights"):
            raise PermissionError(13, "Permission denied", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refusing)
    step.discard()
    assert "step.old-1: cannot be removed (Permission denied); remove it by hand" in caplog.text
    assert step.result is None
    assert not (tmp_path / "step").exists()
    # Work goes on beside it, and it goes as soon as it can.
    step.begin()
    step.finish({})
    step.discard()
    monkeypatch.undo()
    step.recover()
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_two_renames_is_made_good(tmp_path):
    old, new = (Artifact(tmp_path / "step", name) for name in ("h1", "h2"))
    for each in (old, new):
        (each.begin() / "weights").write_text(each.hash)
        if each is old:
            each.finish({})
    # Finished, but not yet in its place.
    write_json(tmp_path / ".part" / "step" / "result.json", {"hash": "h2"})
    Artifact(tmp_path / "step", "h1").recover()
    assert old.result
    (tmp_path / "step").rename(tmp_path / ".step.old-1")
    old.recover()
    assert new.result
    assert (tmp_path / "step" / "weights").read_text() == "h2"
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b'{"hash": 1}'])
def test_a_damaged_record_counts_as_nothing(tmp_path, content):
    step = Artifact(tmp_path / "step", "h1")
    step.begin()
    step.finish({})
    (tmp_path / "step" / "result.json").write_bytes(content)
    (tmp_path / "step" / "step.json").write_bytes(content)
    (tmp_path / "step" / "left").write_text("over")
    assert step.result is None
    step.begin()
    assert [p.name for p in (tmp_path / "step").iterdir()] == ["step.json"]


def test_two_runs_cannot_work_in_one_folder(tmp_path):
    other = (
        "import sys; from pathlib import Path; from lmwright.core.artifact import locked\n"
        "with locked(Path(sys.argv[1])): print('in')"
    )
    command = [sys.executable, "-c", other, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    with locked(tmp_path):
        busy = pytest.raises(BusyError, match=r"another lmwright works here .*\.lock")
        with busy, locked(tmp_path):
            pass
        refused = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "BusyError" in refused.stderr
    assert subprocess.run(command, env=environment, capture_output=True).stdout == b"in\n"


DAMAGED = [
    b"",
    b"{",
    b"[1]",
    b"\xff\xfe{}",
    b"null",
    b"[" * 100_000,
    b'{"a": ' + b"1" * 5000 + b"}",
]


@pytest.mark.parametrize("raw", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_of_our_own_is_named_with_the_remedy(tmp_path, raw):
    path = tmp_path / "result.json"
    path.write_bytes(raw)
    with pytest.raises(StateError, match=r"result\.json: is damaged .*; run its recipe again$"):
        read_state(path, remedy="run its recipe again")


def test_a_damaged_line_of_our_own_is_told_with_its_number(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xe2\x80\xa8"}\n')
    assert read_state_lines(path, remedy="x") == [{"a": 1}, {"a": "\u2028"}]
    for raw in (b"{}\n[]\n", b"{}\n{", b"{}\n\xff"):
        path.write_bytes(raw)
        with pytest.raises(StateError, match=r"train\.jsonl: is damaged \(line 2: .*\); redo it$"):
            read_state_lines(path, remedy="redo it")


def test_a_missing_file_of_our_own_is_left_to_the_caller(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "result.json", remedy="run its recipe again")
