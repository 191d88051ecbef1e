"""A dialogue must become the text that the model was trained on: transformers is the oracle."""

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.chat import ChatTemplate
from lmwright.tokenizer.encode import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs the `dev` extra")
templates = pytest.importorskip("transformers.utils.chat_template_utils")

DIALOGUE = [
    {"role": "system", "content": " Be <brief>. "},
    {"role": "user", "content": "H\u00e4llo 'x' & \"y\"\n\n"},
    {"role": "assistant", "content": "<think>a</think>b"},
    {"role": "user", "content": "and?"},
]
SOURCES = {
    "chatml": "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n"
    "{{ m.content }}\n{% endgeneration %}{% else %}"
    "{{ m.content }}{% endif %}{% endfor %}",
    "tools": "{{ tools is none }}{{ documents is none }}{% if tools %}x{% endif %}"
    "{{ tools is defined }}{{ tools }}",
    "tojson": "{{ messages | tojson }}{{ messages[1] | tojson(true) }}{{ {'b': 1, 'a': [1, 2]} | "
    "tojson(false, 2) }}{{ {'b': 1, 'a': '\u00e4<'} | tojson(sort_keys=true, separators=(',', ':'))"
    " }}{{ messages | tojson(indent=4) }}",
    "namespace": "{% set ns = namespace(n=0, l=[]) %}{% for m in messages[::-1] %}{% set ns.n = "
    "ns.n + m.content | length %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.l }}",
    "macro": "{% macro f(m, x='-') %}{{ x * 3 }}{{ m.content.split('</think>')[-1].lstrip('\\n') }}"
    "{{ caller() if caller }}{% endmacro %}{% for m in messages %}{% call f(m) %}c{% endcall %}"
    "{{ f(m, x='+') }}{% endfor %}",
    "filters": "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', "
    "'equalto', 'user') | map(attribute='content') | join('|') }}{{ messages | length }}"
    "{{ messages[0].content | upper | replace('B', 'b') | indent(2, true) }}{{ [3, 1] | sort }}"
    "{{ messages | first | items | list }}{{ 'a' | default('b') }}{{ x | default('b') }}"
    "{{ '%s-%d' | format('a', 3) }}{{ messages | batch(3) | list | length }}{{ 2.5 | round }}",
    "tests": "{{ messages[0].content is string }}{{ 'role' in messages[0] }}{{ messages is iterable"
    " and messages is not mapping }}{{ messages[0] == messages[0] }}{{ 3 is odd }}{{ 1 < 2 <= 2 }}",
    "methods": "{{ messages[1].content.startswith('H') }}{{ ' a b '.strip().title() }}{{ 'a,b'."
    "split(',') }}{{ '{:>5}|{}'.format('x', 2) }}{{ messages[0].get('x', 'y') }}{{ 'x'.join(['1', "
    "'2']) }}{{ messages[0].items() | list }}{{ 'abc'[1:] ~ 1 ~ none }}{{ 'a' 'b' }}",
    "loops": "{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.previtem.role if not "
    "loop.first }}{{ loop.cycle('x', 'y') }}{{ loop.changed(m.role) }}{% continue %}{% endfor %}"
    "{% for k, v in messages[0] | dictsort %}{{ k }}{{ v }}{% else %}none{% endfor %}"
    "{% for m in messages if m.role == 'user' recursive %}{{ loop.length }}{% endfor %}",
    "set": "{% set x %}{{ messages[0].content }}{% endset %}{{ x | trim }}{% filter upper %}a"
    "{{ x }}{% endfilter %}{% set a, b = 1, 2 %}"
    "{{ a + b }}{{ -a }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 3 }}",
    "prompt": "{{ bos_token }}{{ messages[-1].content }}{{ 'A:' if add_generation_prompt }}",
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_template_gives_the_text_that_transformers_gives(name):
    specials = {"bos_token": "<s>", "eos_token": "</s>"}
    [expected], _ = templates.render_jinja_template(
        [DIALOGUE], chat_template=SOURCES[name], add_generation_prompt=True, **specials
    )
    found = ChatTemplate(SOURCES[name]).render(
        DIALOGUE, add_generation_prompt=True, special_tokens=specials
    )
    assert found == expected


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ a.b.c }}", "{{ 1 / 0 }}"])
def test_what_transformers_refuses_is_refused(source):
    with pytest.raises(Exception):  # noqa: B017, PT011
        templates.render_jinja_template([DIALOGUE], chat_template=source)
    with pytest.raises(RequestError):
        ChatTemplate(source).render(DIALOGUE, add_generation_prompt=True, special_tokens={})


def test_a_dialogue_gets_no_bos_that_apply_chat_template_would_not_add(tmp_path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, processors

    backend = Backend(models.WordLevel({"<s>": 0, "a": 1}, unk_token="a"))
    backend.add_special_tokens(["<s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    for template in ("{{ messages[0].content }}", "{{ bos_token }}{{ messages[0].content }}"):
        ours = Tokenizer(backend, special_tokens={"bos_token": "<s>"}, chat_template=template)
        ours.save(tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        messages = [{"role": "user", "content": "a"}]
        expected = theirs.apply_chat_template(messages, return_dict=False)
        assert ours.chat(messages) == expected
