"""A page that breaks the terminal, or does not fit on it, is not read."""

from dataclasses import replace
from pathlib import Path

import pytest

import weights
from lmwright.summary.dialogue import Dialogue
from lmwright.summary.origin import Made
from lmwright.summary.page import MAX_LINES, page, size
from lmwright.summary.summary import ModelSummary, summarise


@pytest.fixture
def tiny(tiny_folder: Path) -> ModelSummary:
    found = summarise(str(tiny_folder))
    assert isinstance(found, ModelSummary)
    return found


def line(text: str, label: str) -> str:
    (found,) = [each for each in text.splitlines() if each.split("  ")[0] == label]
    return found.removeprefix(label).strip()


def test_it_is_one_screen_of_100_columns(tiny: ModelSummary) -> None:
    lines = page(tiny, is_terminal=False).splitlines()
    assert len(lines) < 45
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)


def test_each_fact_stands_beside_its_label(tiny: ModelSummary) -> None:
    text = page(tiny, is_terminal=False)
    assert line(text, "model") == "llama, a decoder; says which token comes next"
    assert line(text, "shape") == (
        "2 layers, 64 wide; 4 heads of 16; feed-forward 128; context 256; vocabulary 300"
    )
    assert line(text, "differs").startswith("from a plain pre-norm decoder by 2 key/value heads")
    assert line(text, "licence") == "not stated"
    assert line(text, "special") == "bos <|im_start|> 1, eos <|im_end|> 2"
    assert line(text, "a text") == "gets no special tokens around it"
    assert line(text, "chat").startswith("a system message is accepted")
    parts = {words[0]: words[1:] for each in text.splitlines() if (words := each.split())}
    assert parts["attention"] == ["24,576", "21.9%", "98.3", "kB", "32.00", "F32"]
    weights = {"bfloat16": "225", "float32": "450"}[tiny.dtype]
    assert parts["256"][:3] == ["1", weights, "kB"]


def test_text_from_outside_does_nothing_to_the_terminal(tiny: ModelSummary) -> None:
    wild = "[bold]a\x1b[2Jb\x07\r\u202ec"
    found = replace(
        tiny,
        name=wild,
        origin=replace(tiny.origin, title=wild, licence=wild, licence_source="x", tags=(wild,)),
        dialogue=Dialogue(wild, 3, "accepted", wild, wild),
    )
    text = page(found, is_terminal=False)
    assert "[bold]a\\x1b[2Jb\\x07\\r\\u202ec" in text
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert "\u202e" not in text


def test_steps_and_warnings_are_shown(tiny: ModelSummary) -> None:
    made = Made("int4", "compress", {"method": "rtn", "bits": 4}, "f" * 64, "now", "0.1")
    origin = replace(tiny.origin, base="starter", steps=(made,), sha256="ab")
    text = page(replace(tiny, origin=origin, mismatches=("it leaks",)), is_terminal=False)
    assert line(text, "made") == "starter -> int4 (compress, rtn, 4 bits)"
    assert "now with lmwright 0.1; hash ffffffffffffffff" in text
    assert line(text, "sha256") == "ab"
    assert line(text, "beware") == "it leaks"


def test_a_long_template_is_cut_and_says_so(tiny: ModelSummary) -> None:
    whole = "\n".join(f"line {i}" for i in range(40))
    text = page(
        replace(tiny, dialogue=Dialogue(whole, 3, "ignored", None, None)), is_terminal=False
    )
    assert f"line {MAX_LINES - 1}\n" in text
    assert text.endswith(f"... ({40 - MAX_LINES} lines more)")


def test_a_base_model_has_no_chat_and_a_classifier_needs_none(tiny: ModelSummary) -> None:
    text = page(replace(tiny, dialogue=None), is_terminal=False)
    assert line(text, "chat") == "no chat template: it continues texts"
    encoder = replace(tiny, dialogue=None, inventory=replace(tiny.inventory, assembly="encoder"))
    text = page(encoder, is_terminal=False)
    assert "\nchat" not in text
    assert "keys, values" not in text


def test_an_encoder_decoder_shows_both_caches(tiny: ModelSummary) -> None:
    found = replace(tiny, inventory=replace(tiny.inventory, assembly="encoder-decoder"))
    text = page(found, is_terminal=False)
    assert "keys, values  of the source" in text
    assert "the context is read, and as much is written" in " ".join(text.split())


def test_a_narrow_terminal_cuts_no_number(
    tiny: ModelSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    parts = [replace(part, formats=("Q4_K", "Q5_0", "Q6_K")) for part in tiny.inventory.parts]
    wide = replace(tiny, inventory=replace(tiny.inventory, parts=tuple(parts)))
    text = page(wide, is_terminal=True)
    assert "\u2026" not in text
    assert "112,448" in text


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (98_362_432, "98.4 MB"),
     (269_030_016, "269 MB"), (999_600_000, "1000 MB"), (1_094_141_004, "1.09 GB"),
     (141_107_412_992, "141 GB")],
)  # fmt: skip
def test_bytes_are_written_with_three_digits(n_bytes: int, expected: str) -> None:
    assert size(n_bytes) == expected


def test_a_path_below_home_is_short(tiny: ModelSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for path, shown in (("/home/ann/m.gguf", "~/m.gguf"), ("/home/anna/m.gguf",) * 2):
        text = page(replace(tiny, origin=replace(tiny.origin, path=path)), is_terminal=False)
        assert line(text, "file").startswith(f"{shown} (")


@pytest.mark.weights
def test_the_documentation_shows_what_is_really_printed() -> None:
    weights.smollm2()
    documented = Path(__file__).parents[3].joinpath("docs", "show.md").read_text(encoding="utf-8")
    block = documented.split("```text\n")[1].split("\n```")[0]
    printed = page(summarise("starter"), is_terminal=False)

    def comparable(text: str) -> list[str]:
        sections = [s for s in text.split("\n\n") if not s.startswith("to run")]  # this machine's
        return [each for each in "\n".join(sections).splitlines() if not each.startswith("file")]

    assert comparable(block) == comparable(printed)
