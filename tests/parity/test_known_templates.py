"""No bound of the sandbox may refuse a template that people use, tools and long dialogues included.

The templates are those of well-known models, some of them shortened.
"""

import copy
from pathlib import Path

import pytest

from lmwright.core.errors import RequestError
from lmwright.tokenizer.chat import ChatTemplate
from lmwright.tokenizer.meter import MAX_STEPS

templates = pytest.importorskip(
    "transformers.utils.chat_template_utils", reason="needs the `dev` extra"
)

SOURCES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"get_{i}",
            "description": "Returns <the> 'weather' of a \u00e9tat. " * 6,
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Where", "enum": ["here", "there"]},
                    "days": {"type": ["integer", "null"], "default": 3},
                    "units": {"type": "array", "items": {"type": "string"}, "default": ["C"]},
                    "more": {"type": "object", "additionalProperties": {"type": "number"}},
                },
                "required": ["place"],
            },
        },
    }
    for i in range(50)
]
CALL = {
    "id": "abcdefgh1",
    "type": "function",
    "function": {"name": "get_1", "arguments": {"place": "here", "days": 2}},
}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


DIALOGUES = {
    "plain": [said("user", "H\u00e4llo 'x'\n")],
    "turns": [
        said("user", "a"),
        said("assistant", "<think>\nm\n</think>\n\nb"),
        said("user", "c"),
    ],
    "system": [said("system", " Be brief. /no_think "), said("user", "a")],
    "tools": [
        said("system", "Be brief."),
        said("user", "Weather?"),
        said("assistant", "", tool_calls=[CALL]),
        said("tool", '{"t": 3}', tool_call_id="abcdefgh1"),
        said("assistant", "It is 3 degrees."),
        said("user", "Thanks."),
    ],
    # About 128k tokens.
    "long": [
        said(("user", "assistant")[i % 2], f"word <think>x</think> {i} " * 90) for i in range(201)
    ],
    "many turns": [said(("user", "assistant")[i % 2], f"hello {i}") for i in range(2001)],
    "one text": [said("user", "a few words\n" * 50_000)],
}


def theirs(source, messages, tools):
    """Return what transformers makes of a dialogue, None where the template refuses it."""
    try:
        [[text], _] = templates.render_jinja_template(
            [copy.deepcopy(messages)],
            tools=copy.deepcopy(tools),
            chat_template=source,
            add_generation_prompt=True,
            **SPECIALS,
        )
    except Exception:
        return None
    return text


def ours(source, messages, tools):
    """Return what our sandbox makes of a dialogue, None where the template itself refuses it."""
    given = {**SPECIALS, **({"tools": tools} if tools else {})}
    try:
        return ChatTemplate(source).render(
            messages, add_generation_prompt=True, special_tokens=given
        )
    except RequestError as error:
        reason = str(error)
    return reason if "steps" in reason or "not among" in reason else None


@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("name", SOURCES)
def test_a_known_template_gives_the_text_that_transformers_gives(name, dialogue):
    for tools in (None, TOOLS):
        # Some write today's date, which may change in between.
        asked = SOURCES[name], DIALOGUES[dialogue], tools
        assert ours(*asked) == theirs(*asked) or ours(*asked) == theirs(*asked)


@pytest.mark.parametrize("name", SOURCES)
def test_the_longest_dialogues_leave_most_of_the_steps(name):
    template = ChatTemplate(SOURCES[name])
    sandbox = template._sandbox
    given = {**SPECIALS, "tools": TOOLS, "documents": None, "add_generation_prompt": True}
    for dialogue in ("long", "many turns", "one text"):
        with sandbox.metered():
            "".join(template._template.generate({**given, "messages": DIALOGUES[dialogue]}))
            assert sandbox.meter.left > MAX_STEPS / 2
