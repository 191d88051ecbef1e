"""The URL decides who gets the key and the texts, so it is read strictly."""

import pytest

from lmwright.core.errors import ModelError
from lmwright.hosted.address import Address, is_hosted, parse


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("openai:gpt-4o", "gpt-4o", "https://api.openai.com/v1"),
        ("openai:m@http://127.0.0.1:8000/v1/", "m", "http://127.0.0.1:8000/v1"),
        ("openai:runs/a/int8@HTTPS://Host.example/V1", "runs/a/int8", "https://host.example/V1"),
        ("openai:@cf/meta/x@https://host/v1", "@cf/meta/x", "https://host/v1"),
        ("openai:org/m:free@https://host/a@b", "org/m:free", "https://host/a@b"),
        ("openai:m@http://[::1]:8000/v1", "m", "http://[::1]:8000/v1"),
    ],
)
def test_a_name_is_a_model_and_a_url(name: str, model: str, url: str) -> None:
    assert is_hosted(name)
    assert parse(name) == Address(model, url)
    assert parse(str(parse(name))) == parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai:", "expected openai:MODEL"),
        ("openai:@https://host/v1", "what follows the @ is no URL"),
        ("openai: m@https://host/v1", "expected openai:MODEL"),
        ("openai:m@host:8000/v1", "what follows the @ is no URL"),
        ("openai:m@https://", "is no URL"),
        ("openai:m@https://host:port/v1", "is no URL"),
        ("openai:m@https://host/v 1", "is no URL"),
        ("openai:m@https://host/v1?api-key=x", "must end before any [?]"),
        ("openai:m@https://host/v1#x", "must end before any [?]"),
        ("starter", "expected openai:MODEL"),
    ],
)
def test_what_is_no_address_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(name)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY") as caught:
        parse("openai:m@https://user:hunter2@host:x/v1")
    assert "hunter2" not in str(caught.value)


def test_what_others_may_read_on_the_way() -> None:
    secret = ["https://host/v1", "http://localhost/v1", "http://127.9.9.9/v1", "http://[::1]/v1"]
    assert all(Address("m", url).is_secret for url in secret)
    open_ = ["http://host/v1", "http://10.0.0.1/v1", "http://localhost.example/v1"]
    assert not any(Address("m", url).is_secret for url in open_)


def test_whom_the_newer_names_of_fields_are_for() -> None:
    assert parse("openai:gpt-5").is_openai
    assert parse("openai:gpt-5@https://me.openai.azure.com/openai/v1").is_openai
    assert not parse("openai:gpt-5@https://api.openai.com.example/v1").is_openai
    assert not parse("openai:gpt-5@https://xapi.openai.com/v1").is_openai
