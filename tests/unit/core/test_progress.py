"""Who watches a log must see that a run lives; progress on stdout would break every script."""

import sys
import time

import pytest

from lmwright.core import progress
from lmwright.core.progress import bar


def test_a_pipe_gets_a_line_at_the_start_now_and_then_and_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.02)
    with bar("training", total=4) as running:
        running.advance(note="loss 1.25")
        deadline = time.monotonic() + 10
        err = ""
        while "loss" not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capsys.readouterr().err
    out, end = capsys.readouterr()
    assert out == ""
    first, *between = err.splitlines()
    assert first == "training: 0/4"
    assert between[-1].startswith("training: 1/4, loss 1.25, about ")
    assert end.splitlines()[-1] == "training: 1/4, loss 1.25, about 1 s left, done in 1 s"


def test_what_is_printed_under_a_bar_goes_where_it_was_sent(capsys, monkeypatch):
    # A terminal on stderr and a file on stdout, as in `generate ... > answers.txt`.
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("generate", total=1) as running:
        sys.stdout.write("an answer\n")
        running.advance()
    out, err = capsys.readouterr()
    assert out == "an answer\n"
    assert "1/1" in err
    assert "an answer" not in err


def test_what_fails_is_not_called_done(capsys):
    with pytest.raises(TypeError), bar("evaluate", total=3) as running:
        running.advance("much")
    assert "stopped after" in capsys.readouterr().err.splitlines()[-1]


def test_a_unit_that_takes_long_moves_by_its_parts():
    running = progress.Bar("evaluate", 3)
    running.advance(note="tuned: bits_per_byte")
    running.within(5, 20, "tuned: multiple_choice")
    assert running.completed == 1.25
    assert running.line.startswith("evaluate: 1/3, tuned: multiple_choice 5/20, about ")
    running.advance(note="tuned: gender_gap")
    assert running.completed == 2


def test_what_was_done_before_makes_no_speed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    running = progress.Bar("training", 100)
    running.skip(90)
    assert running.line == "training: 90/100"
    now = 5.0
    running.advance(5)
    assert running.line == "training: 95/100, about 5 s left"


def test_a_terminal_sees_it_on_stderr_alone(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("finetune tuned", total=3) as running:
        running.advance(2, note="loss [1.25]")
    out, err = capsys.readouterr()
    assert out == ""
    assert "finetune tuned" in err
    assert "2/3" in err
    assert "loss [1.25]" in err
