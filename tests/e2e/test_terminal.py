"""A chat at a real terminal (a pty): what a pipe cannot show, keys above all, is shown here."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")

CHAT = Path(__file__).with_name("chat_fake.py")
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78])")
LEFT, UP, ENTER, CTRL_C, CTRL_D = "\x1b[D", "\x1b[A", "\r", "\x03", "\x04"


class Terminal:
    """A process at the other end of a pty, and all that it has shown."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(CHAT), *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env={**os.environ, "TERM": "xterm", "LMWRIGHT_HOME": str(folder / "home")},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(terminal)
        self.shown = ""

    def wait_for(self, text: str, *, timeout_s: float = 30) -> None:
        """Read until a text is shown, behind what was waited for before."""
        end_s = time.monotonic() + timeout_s
        while text not in self.shown:
            assert time.monotonic() < end_s, f"{text!r} is not in {self.shown!r}"
            self._read()
        self.shown = self.shown.partition(text)[2]

    def send(self, text: str) -> None:
        """Type; what is shown meanwhile is read, or both ends would wait for each other."""
        raw = text.encode()
        while raw:
            self._read()
            _, ready, _ = select.select([], [self._master], [], 0.05)
            if ready:
                raw = raw[os.write(self._master, raw[:512]) :]

    def end(self) -> int:
        """Return the exit code, and the rest of what was shown in `shown`."""
        while self._read():
            pass
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], 0.02)
        try:
            raw = os.read(self._master, 65_536) if ready else b" "
        except OSError:  # the other end is closed
            return False
        if b"\x1b[6n" in raw:  # where is the cursor? A terminal answers.
            os.write(self._master, b"\x1b[1;1R")
        if ready:
            self.shown += ESCAPES.sub("", raw.decode(errors="replace")).replace("\r\n", "\n")
        return bool(raw)


def _take_terminal() -> None:
    import fcntl
    import termios

    # As a shell does it, so that Ctrl-C reaches the process.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, "--max-tokens", "20")
    yield terminal
    terminal.close()


def test_a_line_is_edited_and_remembered(terminal: Terminal, tmp_path: Path) -> None:
    terminal.wait_for("loading starter ...\n")
    terminal.wait_for("you>")
    terminal.send("What is a bnk?" + LEFT * 3 + "a" + ENTER)
    terminal.wait_for("abcdefghijklmnopqrst [max_tokens = 20 reached]\n")
    terminal.wait_for("you>")
    terminal.send(UP + ENTER)
    terminal.wait_for("abcdefghijklmnopqrst [max_tokens = 20 reached]\n")
    terminal.send("/save talk.jsonl" + ENTER)
    terminal.wait_for("saved 4 messages to talk.jsonl\n")
    terminal.send(CTRL_D)
    assert terminal.end() == 0
    assert terminal.shown.endswith("\n")
    saved = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))["messages"]
    assert [turn["content"] for turn in saved[::2]] == ["What is a bank?"] * 2
    assert (tmp_path / "home" / "chat_history").stat().st_mode & 0o777 == 0o600


def test_a_long_paste_is_one_message(terminal: Terminal, tmp_path: Path) -> None:
    pasted = "\n".join(f"line {i} {'x' * 50}" for i in range(300))
    terminal.wait_for("you>")
    terminal.send(f"\x1b[200~{pasted}\x1b[201~{ENTER}")
    terminal.wait_for("[max_tokens = 20 reached]\n")
    terminal.send("/save talk.jsonl" + ENTER)
    terminal.wait_for("saved 2 messages")
    saved = json.loads((tmp_path / "talk.jsonl").read_text(encoding="utf-8"))["messages"]
    assert saved[0]["content"] == pasted


def test_ctrl_c_ends_a_reply_and_then_says_how_to_leave(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--max-tokens", "2000")
    try:
        terminal.wait_for("you>")
        terminal.send("be slow" + ENTER)
        terminal.wait_for("abcdef")
        terminal.send("typed ahead")
        terminal.wait_for("mno")
        terminal.send(CTRL_C)
        terminal.wait_for(" [cut]\n")
        terminal.wait_for("you>")
        terminal.send(CTRL_C)
        terminal.wait_for("(Ctrl-D or /exit leaves)\n")
        terminal.wait_for("you>")
        terminal.send("/exit" + ENTER)
        assert terminal.end() == 0
    finally:
        terminal.close()


def test_what_is_typed_during_a_reply_waits_for_its_end(terminal: Terminal) -> None:
    terminal.wait_for("you>")
    terminal.send("be slow" + ENTER)
    terminal.wait_for("abc")
    terminal.send("and again")
    terminal.wait_for("defghijklmnopqrst [max_tokens = 20 reached]\n")
    terminal.wait_for("and again")
    terminal.send(ENTER)
    terminal.wait_for("abcdefghijklmnopqrst")
