"""An example that does not work is worse than none: a newcomer tries it first."""

import shlex

import pytest
import typer.main

from lmwright import cli
from lmwright.cli.examples import EXAMPLES
from lmwright.engine.request import EXPECTED

COMMAND = typer.main.get_command(cli.app)


def test_every_verb_has_examples() -> None:
    assert COMMAND.commands.keys() == EXAMPLES.keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("example", [each for lines in EXAMPLES.values() for each in lines])
def test_an_example_is_taken_by_the_parser(example: str) -> None:
    program, verb, *rest = shlex.split(example)
    assert program == "lmwright"
    command = COMMAND.commands[verb]  # type: ignore[attr-defined]
    if verb == "models":
        verb, *rest = rest
        command = command.commands[verb]
    with command.make_context(verb, rest):
        pass


def test_help_ends_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, lines in EXAMPLES.items():
        assert cli.main([verb, "--help"]) == 0
        written = capsys.readouterr().out
        assert written.endswith("\n  Examples:\n" + "".join(f"    {line}\n" for line in lines))


def test_help_names_the_range_of_every_setting() -> None:
    for verb in ("generate", "chat"):
        for option in COMMAND.commands[verb].params:  # type: ignore[attr-defined]
            if option.name in EXPECTED:
                assert EXPECTED[option.name] in option.help
