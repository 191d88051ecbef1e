"""A template of a stranger runs at each request: it must not take the server's time or memory."""

import resource
import threading
import time

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.chat import ChatTemplate

USER = [{"role": "user", "content": "hi"}]
LOOPS = "{% for i in range(90000) %}{% for j in range(90000) %}BODY{% endfor %}{% endfor %}"
GROW = "{% set n = namespace(s=START) %}{% for i in range(90) %}{% set n.s = NEXT %}{% endfor %}"


def rendered(source: str) -> str:
    return ChatTemplate(source).render(USER, add_generation_prompt=True, special_tokens={})


def grow(start: str, step: str, end: str = "{{ n.s }}") -> str:
    return GROW.replace("START", start).replace("NEXT", step) + end


@pytest.mark.parametrize(
    "source",
    [
        "{{ '{:>6000000000}'.format(1) }}",
        "{{ '{0:{1}}'.format(1, 6000000000) }}",
        "{{ '{a:{w}}'.format_map({'a': 1, 'w': 6000000000}) }}",
        "{{ '%6000000000d' % 1 }}",
        # Of lists, each element is 8 bytes.
        "{% set x = ['a'] * 2000000 %}",
        "{% set n = namespace(s=[1]) %}{% for i in range(21)%}{%set n.s = n.s + n.s%}{% endfor %}",
        "{{ '%*d' % (6000000000, 1) }}",
        "{{ '%6000000000d' | format(1) }}",
        "{{ 'x'.ljust(6000000000) }}",
        "{{ 'x' | center(6000000000) }}",
        "{{ 'x' | indent(6000000000, true) }}",
        "{{ ('\\t' * 9999).expandtabs(9999) }}",
        "{{ [1] | tojson(indent=6000000000) }}",
        "{{ [1] | batch(6000000000, 'x') | list }}",
        "{{ 1 | round(6000000000, 'ceil') }}",
        "{{ (1).to_bytes(6000000000) }}",
        "{{ 'x'.translate({120: 'y' * 99999}) }}",
        "{{ 'x'.encode('utf-8') }}",
        "{{ (['x'] * 90000) | join('y' * 90000) }}",
        "{{ ('y' * 90000).join(['x'] * 90000) }}",
        "{{ ('x' * 90000).replace('x', 'y' * 90000) }}",
        "{{ [[1]] | sum(start=[]) }}",
        "{{ ('<!--' * 99999) | striptags }}",
        LOOPS.replace("BODY", ""),
        LOOPS.replace("BODY", "x"),
        "{% for i in range(9999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{{ range(99999) | list | length }}{% endfor %}",
        "{% for i in range(9999) %}{{ range(99999) | map('string') | join | length }}{% endfor %}",
        "{% set b = 'b' * 9999999 %}{% for i in range(9999) %}{{ 'a' in b }}{% endfor %}",
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
        "{% set x %}" + LOOPS.replace("BODY", "xxxx") + "{% endset %}",
        grow("'ab'", "n.s + n.s"),
        grow("'ab'", "n.s ~ n.s"),
        grow("'ab'", "n.s * 3"),
        grow("[1]", "n.s + n.s", ""),
        grow("9", "n.s * n.s"),
        # Lists that hold one another: short, and endless to write out.
        grow("[1]", "[n.s, n.s]"),
        grow("[1]", "[n.s, n.s]", "{{ n.s | tojson }}"),
        grow("[1]", "[n.s, n.s]", "{{ n.s ~ '' }}"),
        grow("[1]", "[n.s, n.s]", "{{ n.s == [n.s] }}"),
        grow("[1]", "[n.s, n.s]", "{{ '%s' % n.s }}"),
        grow("[1]", "[n.s, n.s]", "{{ '{}'.format(n.s) }}"),
        grow("[1]", "{'a': n.s, 'b': n.s}", "{{ n.s | string }}"),
    ],
)
def test_no_template_takes_much_time_or_memory(source):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    with pytest.raises(RequestError, match="the chat template"):
        rendered(source)
    assert time.thread_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_namespace_that_holds_itself_is_written_short():
    assert rendered("{% set n = namespace() %}{% set n.x = n %}{{ n }}") == "<Namespace>"


def test_each_rendering_has_its_own_steps_in_any_thread():
    template = ChatTemplate("{% for i in range(90000) %}{% set x = i %}{% endfor %}ok")
    found = []

    def render() -> None:
        for _ in range(8):
            found.append(template.render(USER, add_generation_prompt=True, special_tokens={}))

    threads = [threading.Thread(target=render) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["ok"] * 32


def test_a_long_dialogue_is_far_from_the_bound():
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles') }}{% endif %}{{ '<|' ~ m['role'] ~ '|>' + m.content | trim }}"
        "{{ m.content.split('</think>')[-1].strip('\\n') if loop.last else '' }}{% endfor %}"
    )
    dialogue = [
        {"role": ("user", "assistant")[i % 2], "content": "word " * 40} for i in range(10_000)
    ]
    template = ChatTemplate(source)
    text = template.render(dialogue, add_generation_prompt=True, special_tokens={})
    assert len(text) > 2_000_000
