"""What is typed must arrive as it was meant: keys, pastes and history of a terminal."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from lmwright.cli.editor import LineEditor

LEFT, UP, ENTER, CTRL_C, CTRL_D = "\x1b[D", "\x1b[A", "\r", "\x03", "\x04"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys:
        yield keys


@pytest.fixture
def editor(keys: PipeInput, tmp_path: Path) -> LineEditor:
    return LineEditor(tmp_path / "home" / "history", input=keys, output=DummyOutput())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("What is a bnk?" + LEFT * 3 + "a" + ENTER, "What is a bank?"),
        ("one\\" + ENTER + "two\x1b" + ENTER + "three" + ENTER, "one\ntwo\nthree"),
        ("\x1b[200~one\r\ntwo\rthree\n\x1b[201~" + ENTER, "one\ntwo\nthree\n"),
        ("caf\u00e9" + ENTER, "caf\u00e9"),
        ("x\udcffy" + ENTER, "x\ufffdy"),
    ],
)
def test_what_is_typed_arrives(
    editor: LineEditor, keys: PipeInput, typed: str, expected: str
) -> None:
    keys.send_bytes(typed.encode(errors="surrogateescape"))
    assert editor.read() == expected


def test_a_paste_of_many_lines_arrives_whole(editor: LineEditor, keys: PipeInput) -> None:
    pasted = "\n".join(f"line {i} {'x' * 90}" for i in range(2_000))
    # From a thread, because a pipe holds only 64 KiB.
    sender = Thread(target=keys.send_text, args=[f"\x1b[200~{pasted}\x1b[201~{ENTER}"])
    sender.start()
    assert editor.read() == pasted
    sender.join()


def test_keys_that_leave(editor: LineEditor, keys: PipeInput) -> None:
    keys.send_text("half a question" + CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        editor.read()
    keys.send_text(CTRL_D)
    with pytest.raises(EOFError):
        editor.read()


def test_what_was_written_is_remembered_and_private(
    editor: LineEditor, keys: PipeInput, tmp_path: Path
) -> None:
    keys.send_text("the first\\" + ENTER + "question" + ENTER)
    editor.read()
    path = tmp_path / "home" / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with create_pipe_input() as keys:
        later = LineEditor(path, input=keys, output=DummyOutput())
        keys.send_text(UP + ENTER)
        assert later.read() == "the first\nquestion"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("/s", ["/system", "/set", "/save"]),
        ("/res", ["/reset"]),
        ("/set te", ["temperature="]),
        ("/save ta", ["lks.jsonl", "xes"]),
        ("hello", []),
        ("", []),
    ],
)
def test_commands_settings_and_files_are_completed(
    typed: str,
    expected: list[str],
    editor: LineEditor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("talks.jsonl").touch()
    Path("tax.txt").touch()
    Path("taxes").mkdir()
    completer = editor._session.completer
    assert completer is not None
    found = completer.get_completions(Document(typed), CompleteEvent())
    assert [completion.text for completion in found] == expected


def test_without_a_place_for_the_history_one_can_still_write(
    tmp_path: Path, keys: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    editor = LineEditor(tmp_path / "file" / "history", input=keys, output=DummyOutput())
    assert "what you write is not kept" in capsys.readouterr().err
    keys.send_text("hello" + ENTER)
    assert editor.read() == "hello"


def test_a_history_that_can_be_written_no_more_ends_no_chat(
    editor: LineEditor, keys: PipeInput, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "home")
    keys.send_text("hello" + ENTER + "again" + ENTER)
    assert [editor.read(), editor.read()] == ["hello", "again"]
