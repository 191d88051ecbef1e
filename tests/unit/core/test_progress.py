"""Progress on stdout would break every script that reads a command's --json."""

from lmwright.core.progress import bar


def test_without_a_terminal_nothing_is_drawn_and_nothing_breaks(capsys):
    with bar("finetune tuned", total=3) as running:
        running.advance(note="loss 1.25")
        running.advance(0.5)
        task = running.progress.tasks[0]
        assert (task.completed, task.total) == (1.5, 3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_it_on_stderr_alone(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("finetune tuned", total=3) as running:
        running.advance(2, note="loss 1.25")
    out, err = capsys.readouterr()
    assert out == ""
    assert "finetune tuned" in err
    assert "2/3" in err
    assert "loss 1.25" in err
