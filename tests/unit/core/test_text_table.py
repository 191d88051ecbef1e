"""A number that is broken over two lines is read wrong."""

import pytest

from lmwright.core.text_table import Styled, TextTable, glued

TABLE = TextTable(
    ["step", "what it does"],
    [["tuned", "learns from dialogues"], ["int8", glued("[1.0, 2.0]")]],
    title="Steps",
    footer="a footer of some words",
)


def test_as_wide_as_it_is():
    assert TABLE.text() == (
        "Steps\n"
        "step   what it does\n"
        "----------------------------\n"
        "tuned  learns from dialogues\n"
        "int8   [1.0, 2.0]\n"
        "a footer of some words"
    )


def test_columns_shrink_between_words():
    assert TABLE.text(20) == (
        "Steps\n"
        "step   what it does\n"
        "--------------------\n"
        "tuned  learns from\n"
        "       dialogues\n"
        "\n"
        "int8   [1.0, 2.0]\n"
        "a footer of some\n"
        "words"
    )


def test_too_narrow_for_columns_is_a_block_a_row():
    table = TextTable(["metric", "a", "tuned"], [["size\nless is better", "98 MB", "1 GB"]])
    assert table.text(16) == "size, less is\nbetter\n  a      98 MB\n  tuned  1 GB"


@pytest.mark.parametrize("width", range(8, 60))
def test_every_width_keeps_what_is_glued(width):
    text = TABLE.text(width)
    assert "[1.0, 2.0]" in text
    longest = max(map(len, text.splitlines()))
    assert longest <= max(width, len("  what it does  [1.0, 2.0]"))


def test_lines_of_a_block_share_one_where_they_fit():
    cell = [Styled(glued("87 % [79, 92]")), Styled("better", "green")]
    table = TextTable(["metric", "tuned", "int8"], [["accuracy", cell, cell]])
    assert table.text(31).splitlines()[1] == "  tuned  87 % [79, 92]  better"
    coloured = table.text(31, is_coloured=True)
    assert "\x1b[32mbetter\x1b[0m" in coloured
    assert "\x1b" not in table.text(31)
