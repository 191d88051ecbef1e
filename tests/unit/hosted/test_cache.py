"""A cache that answers wrongly is worse than none: what is damaged is asked for again."""

import json
import logging
import stat
from pathlib import Path

import pytest

from lmwright.hosted.cache import Cache

URL, BODY, ANSWER = "http://host/v1/completions", {"model": "m", "prompt": "x"}, {"choices": []}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hosted")


def test_the_same_request_has_the_same_answer_and_no_other_has_it(cache: Cache) -> None:
    assert cache.read(URL, BODY) is None
    cache.write(URL, BODY, answer=ANSWER)
    assert cache.read(URL, dict(reversed(BODY.items()))) == ANSWER
    for url, body in [
        (URL + "/", BODY),
        (URL, {**BODY, "model": "n"}),
        (URL, {**BODY, "seed": 1}),
        (URL, {**BODY, "prompt": "x "}),
    ]:
        assert cache.read(url, body) is None


def test_a_request_is_one_small_file_for_its_owner_only(cache: Cache, tmp_path: Path) -> None:
    cache.write(URL, BODY, answer=ANSWER)
    (file,) = (tmp_path / "hosted").iterdir()
    assert len(file.stem) == 64
    assert json.loads(file.read_text()) == {"url": URL, "body": BODY, "answer": ANSWER}
    assert stat.S_IMODE((tmp_path / "hosted").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"url": "http://host',
        b"\xff\xfe",
        b"[]",
        b'{"answer": {}}',
        json.dumps({"url": URL, "body": {"model": "other"}, "answer": ANSWER}).encode(),
        json.dumps({"url": URL, "body": BODY, "answer": "text"}).encode(),
    ],
)
def test_a_damaged_file_is_as_none_with_a_warning(
    cache: Cache, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write(URL, BODY, answer=ANSWER)
    path = cache.path(URL, BODY)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cache.read(URL, BODY) is None
    assert path.name in caplog.text
    assert "asking again" in caplog.text
    cache.write(URL, BODY, answer=ANSWER)
    assert cache.read(URL, BODY) == ANSWER
