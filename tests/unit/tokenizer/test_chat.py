"""A template is code from outside: it may fail, but not reach out, eat the memory or crash us."""

import pytest

from lmwright.core.errors import ModelError, RequestError
from lmwright.tokenizer.chat import MAX_TEMPLATE_CHARACTERS, ChatTemplate

USER = [{"role": "user", "content": "hi"}]


def rendered(source: str, messages=USER) -> str:
    return ChatTemplate(source).render(messages, add_generation_prompt=True, special_tokens={})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ strftime_now['__globals__']['datetime'] }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ (messages|attr('__class__')).__mro__ }}",
        "{{ messages.append(1) }}",
        "{% include 'secret' %}",
    ],
)
def test_python_cannot_be_reached(source):
    with pytest.raises(RequestError, match="the chat template refuses this dialogue"):
        rendered(source)


@pytest.mark.parametrize("source", ["{{ ''.__class__ }}", "{{ raise_exception.__globals__ }}"])
def test_what_is_private_is_as_if_it_were_not_there(source):
    assert rendered(source) == ""
    with pytest.raises(RequestError, match="unsafe"):
        rendered(source.replace(" }}", ".x }}"))


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ 10 ** 12 * 'x' }}",
        "{{ [0] * 10 ** 12 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_no_template_can_eat_the_memory(source):
    with pytest.raises(RequestError, match="the chat template refuses"):
        rendered(source)


def test_output_is_bounded(monkeypatch):
    monkeypatch.setattr("lmwright.tokenizer.chat.MAX_CHARACTERS", 1000)
    source = "{% for i in range(200) %}{{ messages[0].content }}{% endfor %}"
    assert rendered(source) == "hi" * 200
    with pytest.raises(RequestError, match="more than 1,000 characters"):
        rendered(source, [{"role": "user", "content": "x" * 6}])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for %}", "line 1: "),
        ("\n\n{{ 1 + }}", "line 3: "),
        ("{{ a | no_such_filter }}", "no_such_filter"),
        ("{% for a in b %}" * 40 + "{% endfor %}" * 40, "nested"),
        (" " * (MAX_TEMPLATE_CHARACTERS + 1), "at most 200,000"),
    ],
)
def test_a_faulty_template_is_a_model_error_that_names_the_fault(source, expected):
    with pytest.raises(ModelError, match=expected):
        ChatTemplate(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].name.first }}", "has no attribute 'name'"),
        ("{{ 1 | dictsort }}", "'int' object"),
        ("{{ messages['a'] + 1 }}", "has no attribute 'a'"),
    ],
)
def test_a_template_that_refuses_says_why(source, expected):
    with pytest.raises(RequestError, match=expected):
        rendered(source)


def test_what_templates_of_the_hub_use_works():
    source = (
        "{% for m in messages %}\n"
        "    {% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "    {{- m | tojson }}{{ loop.index0 % 2 }}{{ 2 * 3 }}{{ 2 ** 3 }}{{ '-' * 3 }}\n"
        "{% endfor %}{{ strftime_now('%Y') | length }}"
    )
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "<\u00e4>"}]
    assert rendered(source, messages) == '{"role": "user", "content": "<\u00e4>"}168---\n4'


def test_a_template_cannot_change_the_dialogue():
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(RequestError):
        rendered("{{ messages[0].update({'content': 'ho'}) }}", messages)
    assert messages == USER
