"""A process that runs command lines in forks of itself and kills one at a chosen change of a file.

Reads a JSON object a line: the folder, the arguments of lmwright, and at which change the process
is killed, before or after it (null: never). Answers with how it ended and how many changes it made.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import torch

from lmwright.cli import main

CHANGES = ("unlink", "remove", "rename", "replace", "rmdir", "truncate")


class Press:
    """Counts the changes that are made below a folder, and kills the process at one of them."""

    def __init__(self, folder, kill_at, is_before, report):
        self.folder, self.kill_at, self.is_before = folder, kill_at, is_before
        self.n_changes, self.report = 0, report

    def install(self):
        for name in CHANGES:
            setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, change):
        def call(path, *arguments, **options):
            if not self.is_ours(path, options):
                return change(path, *arguments, **options)
            self.n_changes += 1
            # Written at once, as nothing is written later.
            os.pwrite(self.report, f"{self.n_changes:9}".encode(), 0)
            is_last = self.n_changes == self.kill_at
            if is_last and self.is_before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return change(path, *arguments, **options)
            finally:
                if is_last:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    def is_ours(self, path, options):
        if threading.current_thread() is not threading.main_thread():
            return False
        if options.get("dir_fd") is not None:
            return True
        return not isinstance(path, int) and Path(path).absolute().is_relative_to(self.folder)


def press(folder, arguments, kill_at, is_before):
    """Run one command line in a fork; return how it ended, and the changes that it made."""
    with Path(folder).with_suffix(".count").open("w+b") as report:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.chdir(folder)
                log = os.open(
                    Path(folder).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                )
                os.dup2(log, 1)
                os.dup2(log, 2)
                Press(Path(folder), kill_at, is_before, report.fileno()).install()
                status = main(arguments)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                Path(folder).with_suffix(".modules").write_text(" ".join(sys.modules))
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(ended), int(report.read() or 0)


def preload(path):
    """Import what a command needed, so that the next fork has it at once."""
    for name in path.read_text().split():
        # Some modules exist only under the name of another one.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # Nothing of it is garbage: collecting it in each fork would take half of the time.
    gc.freeze()


if __name__ == "__main__":
    # Threads do not survive a fork.
    torch.set_num_threads(1)
    # Export without it: its process takes seconds, and changes nothing here.
    sys.modules["xllamacpp"] = None
    for line in sys.stdin:
        order = json.loads(line)
        answer = press(**order)
        if order["kill_at"] is None:
            preload(Path(order["folder"]).with_suffix(".modules"))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
