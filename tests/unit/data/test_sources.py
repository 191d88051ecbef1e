"""A sample that is skipped or misread in silence is found weeks later, in the model."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmwright.core.errors import DataError
from lmwright.data.sources import MAX_LINE_BYTES, locate, read

GOOD = '{"prompt": "a", "completion": "b"}\n'


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (GOOD + GOOD + "{no json}\n", "line 3: not JSON: .* column 2"),
        (GOOD + '{"prompt": "a"', "line 2: not JSON"),
        (GOOD.encode() + b'{"prompt": "\xff"}\n', "line 2: not UTF-8"),
        (GOOD.encode("utf-16"), "line 1: not UTF-8"),
        (GOOD + "\n[1, 2]\n", "line 3: expected an object, found list"),
        (GOOD + '{"prompt": "a"}\n', r"line 2: the fields \['prompt'\] are none of the known"),
        (GOOD + '{"prompt": "a", "completion": 3}', "line 2: completion = 3: expected a text"),
        ('{"prompt": " ", "completion": "b"}', "line 1: prompt = ' ': expected a text that is not"),
        ('{"prompt": null, "completion": "b"}', "line 1: prompt = None"),
        ('{"id": "x", "prompt": "a", "completion": "b"}\n' * 2, "line 2: the id 'x' was used"),
        ('{"prompt": "\\ud83d", "completion": "b"}', "line 1: half a surrogate pair"),
        ('{"prompt": ' + "1" * 5000 + "}", "line 1: not usable JSON"),
        ('{"prompt": ' + "[" * 100_000, "line 1: not usable JSON"),
    ],
)
def test_a_fault_names_the_file_and_the_line(tmp_path, content, expected):
    path = write(tmp_path / "bad.jsonl", content)
    with pytest.raises(DataError, match=expected) as caught:
        read([str(path)])
    assert str(path) in str(caught.value)


def test_a_line_without_end_is_not_read_into_memory(tmp_path):
    path = write(tmp_path / "long.jsonl", GOOD.encode() + b"x" * (MAX_LINE_BYTES + 1))
    with pytest.raises(DataError, match=r"line 2: longer than 16,777,216 bytes"):
        read([str(path)])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "expected a list of records, found dict"),
        ("[]", "the file is empty"),
        (f"[{GOOD}, 7]", "record 2: expected an object, found int"),
        (f"[{GOOD}, {{}}]", "record 2: the fields"),
    ],
)
def test_a_json_list_has_records_instead_of_lines(tmp_path, content, expected):
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(DataError, match=expected) as caught:
        read([str(path)])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("missing.jsonl", "'missing.jsonl': no such file or folder"),
        ("*.jsonl", r"'\*.jsonl': no such file or folder"),
        ("starter:bank-suport", "did you mean 'bank-support'"),
        (".", "no .jsonl, .json, .csv, .tsv, .parquet file in"),
        ("notes.txt", "expected one of .jsonl, .json, .csv, .tsv, .parquet, not '.txt'"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "notes.txt", "hello")
    with pytest.raises(DataError, match=expected):
        locate(source)


def test_folders_and_globs_are_read_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl"):
        write(tmp_path / "data" / name, GOOD)
    write(tmp_path / "data" / "README.md", "not data")
    (tmp_path / "data" / "folder.jsonl").mkdir()
    folder = [path.name for path in locate(str(tmp_path / "data"))]
    assert folder == ["a.jsonl", "b.jsonl", "c.jsonl"]
    found = locate(str(tmp_path / "data" / "*.jsonl"))
    assert [path.name for path in found] == ["a.jsonl", "b.jsonl"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    path = write(tmp_path / "data[1].jsonl", GOOD)
    assert locate(str(path)) == [path]


def test_a_byte_order_mark_and_windows_line_ends_are_no_content(tmp_path):
    path = write(tmp_path / "windows.jsonl", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    samples, _ = read([str(path)])
    assert [turn["content"] for turn in samples[0].messages] == ["a", "b"]


def test_parquet_says_the_same_as_json_lines(tmp_path):
    records = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Hi", "input": None, "output": "Ho"},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet")
    write(tmp_path / "lines" / "x.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    from_parquet, _ = read([str(tmp_path / "x.parquet")])
    from_lines, _ = read([str(tmp_path / "lines" / "x.jsonl")])
    assert from_parquet == from_lines
    assert [s.messages[0]["content"] for s in from_lines] == ["Add.\n\n1 2", "Hi"]


def test_a_parquet_with_nested_dialogues_is_read(tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "x.parquet")
    samples, _ = read([str(tmp_path / "x.parquet")])
    assert list(samples[0].messages) == messages


def test_a_parquet_that_is_none_is_named(tmp_path):
    path = write(tmp_path / "x.parquet", b"PAR1 nothing")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as parquet"):
        read([str(path)])


def test_files_of_the_same_name_in_two_folders_do_not_clash(tmp_path):
    paths = [str(write(tmp_path / name / "train.jsonl", GOOD)) for name in "ab"]
    samples, _ = read(paths)
    assert len({sample.id for sample in samples}) == 2
    # The first keeps the ids it would have alone.
    assert samples[0].id == "train-1"


def test_a_file_that_is_named_twice_would_count_twice(tmp_path):
    path = str(write(tmp_path / "train.jsonl", GOOD))
    with pytest.raises(DataError, match="name this file twice"):
        read([path, str(tmp_path)])


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("question,answer\nWhat?,This.\n", ","),
        ("Question;Answer;Topic\nWhat?;This.;x\n", ";"),
        ("\ufeffprompt\tresponse\r\nWhat?\tThis.\r\n", "tab"),
        ("instruction|input|output\nWhat?||This.\n", "|"),
        ('"prompt","completion"\n\n"What?","This."\n', ","),
    ],
)
def test_a_table_is_read_by_the_names_in_its_first_line(tmp_path, content, delimiter):
    path = write(tmp_path / "faq.csv", content)
    (sample,), _ = read([str(path)])
    assert [turn["content"] for turn in sample.messages] == ["What?", "This."], delimiter


def test_texts_in_quotes_may_hold_anything(tmp_path):
    path = write(tmp_path / "faq.csv", 'question,answer\n"a, ""b""\nc",d\ne,f\n')
    samples, _ = read([str(path)])
    assert samples[0].messages[0]["content"] == 'a, "b"\nc'
    # As a spreadsheet counts them, below the names.
    assert [sample.id for sample in samples] == ["faq-2", "faq-3"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the first line must name the columns, .*question, answer or .*found: nothing"),
        ("When?,At nine.\n", "the first line must name the columns, .*found: when\\?, at nine."),
        ("title;text;n\na;b;1\n", "found: title, text, n"),
        ("question,answer,answer\na,b,c\n", "names a column twice"),
        ("question,answer\nWhat?,This, or that.\n", r"row 2: 3 fields, but 2 columns .*quotes"),
        ("question,answer\nWhat?\n", "row 2: 1 fields, but 2 columns"),
        ("question,answer\na,b\nc,\n", "row 3: answer = '': expected a text"),
        ('question,answer\na,"b\n', "not a table: unexpected end of data"),
        ("question,answer\n", "the file is empty"),
        (b"question,answer\na,\xe9\n", "not UTF-8 .*; save the file as CSV in UTF-8"),
        ("question,answer\na,b\n".encode("utf-16"), "not UTF-8"),
        ("question,answer\na," + "b" * 200_000, "not a table: field larger than field limit"),
    ],
)
def test_a_fault_of_a_table_names_the_file_and_the_row(tmp_path, content, expected):
    path = write(tmp_path / "bad.csv", content)
    with pytest.raises(DataError, match=expected) as caught:
        read([str(path)])
    assert str(path) in str(caught.value)


def test_a_parquet_with_bytes_that_are_no_text_is_named(tmp_path):
    texts = pa.array([b"\xff\xfe", b"b"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": texts, "completion": texts}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as parquet: .*utf-?8"):
        read([str(tmp_path / "x.parquet")])


def test_nobodys_home_is_a_source_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "faq.csv", "question,answer\na,b\n")
    assert locate("~/faq.csv") == locate("~/*.csv") == [path]
    with pytest.raises(DataError, match="'~nosuchuser/x': no such file or folder"):
        locate("~nosuchuser/x")
