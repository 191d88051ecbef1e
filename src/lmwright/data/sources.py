"""Where data comes from: the package's starter sets, files, folders, globs, the Hub."""

import csv
import glob
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from lmwright.core import extras
from lmwright.core.errors import DataError, suggestion
from lmwright.core.paths import expanded
from lmwright.data.samples import Question, Sample, parse

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
STARTER = Path(str(files("lmwright.data"))) / "starter"
# A line of a data file is one sample, not a book.
MAX_LINE_BYTES = 16 * 1024 * 1024
# What is counted in a file.
PLACES = {".jsonl": "line", ".csv": "row", ".tsv": "row"}
# Tried in this order; spreadsheets of many countries write semicolons.
DELIMITERS = (",", ";", "\t", "|")


def locate(source: str) -> list[Path]:
    """Return the data files that a source names, sorted; it is an error if there are none."""
    if source.startswith("starter:"):
        name = source.removeprefix("starter:")
        names = [p.name for p in STARTER.iterdir() if p.is_dir()]
        if name not in names:
            raise DataError(f"data source {source!r}: no such starter set{suggestion(name, names)}")
        return _in_folder(STARTER / name, source)
    if source.startswith("hub:"):
        from lmwright.hub import fetch

        return _in_folder(fetch(source, kind="dataset"), source)
    path = expanded(source)
    if path.is_dir():
        return _in_folder(path, source)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path}: expected one of {', '.join(SUFFIXES)}, not {path.suffix!r}")
        return [path]
    # Path.glob refuses absolute patterns.
    found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207
    found = [p for p in found if p.suffix in SUFFIXES and p.is_file()]
    if not found:
        raise DataError(
            f"data source {source!r}: no such file or folder. Give a path, a glob, "
            "starter:NAME or hub:ORG/NAME"
        )
    return found


def read(sources: list[str], system: str | None = None) -> tuple[list[Sample], list[Question]]:
    """Read all samples and held-out questions; a fault names the file and the line."""
    samples, questions, ids = [], [], set()
    for path, name in _named([path for source in sources for path in locate(source)]):
        n_before = len(samples) + len(questions)
        for number, where, record in records(path):
            id_ = record.get("id")
            id_ = f"{name}-{number}" if id_ is None else str(id_)
            if id_ in ids:
                raise DataError(f"{where}: the id {id_!r} was used before; ids must be unique")
            ids.add(id_)
            new_samples, new_questions = parse(record, where=where, id_=id_, system=system)
            samples += new_samples
            questions += new_questions
        if len(samples) + len(questions) == n_before:
            raise DataError(f"{path}: the file is empty; expected one record a line")
    return samples, questions


def _named(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each file with a name of its own, which records without an id are known by."""
    names: dict[str, Path] = {}
    for path in paths:
        if path in names.values():
            raise DataError(f"{path}: the data sources name this file twice; name it once")
        name = path.stem if path.stem not in names else str(path)
        names[name] = path
        yield path, name


def records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (number from 1, where it stands, record) of a file of one of `SUFFIXES`."""
    for number, record in READERS[path.suffix](path):
        where = _where(path, number)
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, found {type(record).__name__}")
        yield number, where, record


def _read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{_where(path, number)}: longer than {MAX_LINE_BYTES:,} bytes")
            if line.strip():
                yield number, _parse_json(line, _where(path, number))


def _read_list(path: Path) -> Iterator[tuple[int, Any]]:
    data = _parse_json(path.read_bytes(), str(path))
    if not isinstance(data, list):
        raise DataError(f"{path}: expected a list of records, found {type(data).__name__}")
    yield from enumerate(data, start=1)


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    extras.need(str(path), "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches()
        yield from enumerate((r for batch in batches for r in batch.to_pylist()), start=1)
    # Text columns are not checked when they are written, only when they are read.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None


def _read_table(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a CSV file by the names in its first line; numbers are a spreadsheet's."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            delimiter, names = _columns(path, first)
            file.seek(0)
            rows = (row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(row))
            next(rows)
            for number, row in enumerate(rows, start=2):
                if len(row) != len(names):
                    raise DataError(
                        f"{_where(path, number)}: {len(row)} fields, but {len(names)} columns "
                        f"({', '.join(names)}); a text with {delimiter!r} or a line break in it "
                        'must be in double quotes, a " inside it twice'
                    )
                yield number, dict(zip(names, row, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason}); save the file as CSV in UTF-8"
        ) from None
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}") from None


def _columns(path: Path, line: str) -> tuple[str, list[str]]:
    """Return the delimiter by which a first line names the columns of a known shape, and those."""
    found = []
    for delimiter in DELIMITERS:
        try:
            row = next(csv.reader([line], delimiter=delimiter))
        except (csv.Error, StopIteration):
            continue
        names = [name.strip().lower() for name in row]
        if any(set(names) >= {*columns} for columns in TABLE_COLUMNS):
            if len(set(names)) < len(names):
                raise DataError(f"{path}: the first line names a column twice: {', '.join(names)}")
            return delimiter, names
        found = max(found, names, key=len)
    pairs = " or ".join(", ".join(names) for names in TABLE_COLUMNS)
    raise DataError(
        f"{path}: the first line must name the columns, among them {pairs}; "
        f"found: {', '.join(found)[:200] or 'nothing'}"
    )


# What a table may hold; the other shapes have lists in them.
TABLE_COLUMNS = (
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("instruction", "output"),
)
READERS = {
    ".jsonl": _read_lines,
    ".json": _read_list,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
}


def _parse_json(text: bytes, where: str) -> Any:
    try:
        data = json.loads(text.decode("utf-8-sig"))
        if b"\\u" in text:  # half a surrogate pair is JSON, but no text
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a surrogate pair (\\ud800 and the like)") from None
    except (RecursionError, ValueError) as error:  # too deep, or a number of too many digits
        raise DataError(f"{where}: not usable JSON: {error}") from None


def _where(path: Path, number: int) -> str:
    return f"{path}, {PLACES.get(path.suffix, 'record')} {number}"


def _in_folder(folder: Path, source: str) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not found:
        raise DataError(f"data source {source!r}: no {', '.join(SUFFIXES)} file in {folder}")
    return found
