"""A result is read by people and by programs; both must get the same."""

import json
from io import StringIO

from rich.console import Console

from lmwright.verification.result import Check, Place, VerificationResult


def result(*checks: Check, value: float = 0.25) -> VerificationResult:
    place = Place(value, prompt=2, position=4, token_id=7, token=" [b]", text="the end")
    numbers = {"largest_difference": value}
    return VerificationResult(
        "a", "b", "8 bits", checks, ("the [rest]",), place, numbers, 3, 12, 0.5
    )


GOOD = Check("weights", True, "the same", "0 %")
BAD = Check("tokens of texts", False, "'[x]' differs")
SHOWN = Check("relative error", None, "3 %")


def test_one_failure_is_enough() -> None:
    assert result(GOOD, SHOWN).is_passed
    assert not result(GOOD, BAD, SHOWN).is_passed
    assert result(GOOD, BAD).failures == (BAD,)


def test_text_and_table_show_all_that_was_found() -> None:
    found = result(GOOD, BAD, SHOWN)
    console = Console(file=StringIO(), width=300)
    console.print(found.table())
    assert isinstance(console.file, StringIO)
    for text in (str(found), console.file.getvalue()):
        for piece in (
            "a against b", "8 bits", "weights", "the same", "'[x]' differs", "relative error",
            "not compared: the [rest]",
            "FAIL: tokens of texts; largest difference 0.25, of token 7 ' [b]', "
            "4 tokens behind prompt 3",
        ):  # fmt: skip
            assert piece in " ".join(text.split())


def test_infinity_is_null_in_json() -> None:
    data = json.loads(json.dumps(result(GOOD, value=float("inf")).to_json(), allow_nan=False))
    assert (data["is_passed"], data["numbers"]["largest_difference"]) == (True, None)
    assert data["largest"]["value"] is None
    assert data["checks"][0] == {
        "name": "weights", "is_passed": True, "found": "the same", "allowed": "0 %",
    }  # fmt: skip
