"""A system message that a template drops is a promise that the model never hears."""

from collections.abc import Callable
from typing import Any

import pytest

from lmwright.summary.dialogue import SYSTEM, USER, Dialogue, dialogue
from lmwright.tokenizer.chat import ChatTemplate
from lmwright.tokenizer.encode import Tokenizer

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPS = "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}"
MERGES = "<s>{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture
def told(tiny_tokenizer: Tokenizer) -> Callable[[str], Dialogue]:
    def tell(template: str) -> Dialogue:
        tiny_tokenizer.chat_template = ChatTemplate(template)
        found = dialogue(tiny_tokenizer)
        assert found is not None
        return found

    return tell


def test_special_tokens_stand_in_the_example(told: Any, tiny_tokenizer: Tokenizer) -> None:
    found = told(TURNS)
    assert found.text == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{USER}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (found.system, found.default_system, found.refusal) == ("accepted", None, None)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    assert found.n_tokens == len(tiny_tokenizer.chat(messages))


def test_a_system_message_may_be_refused(told: Any) -> None:
    found = told(NO_SYSTEM + TURNS)
    assert found.system == "refused"
    assert found.text == f"<|im_start|>user\n{USER}<|im_end|>\n<|im_start|>assistant\n"
    assert "no system" in found.refusal
    assert found.n_tokens > 0


def test_a_system_message_may_be_dropped_without_a_word(told: Any) -> None:
    assert told(DROPS + TURNS).system == "ignored"


def test_a_system_message_in_the_users_turn_is_accepted(told: Any) -> None:
    assert told(MERGES).system == "accepted"


def test_the_default_system_message_is_found(told: Any, tiny_tokenizer: Tokenizer) -> None:
    told(TURNS)
    tiny_tokenizer.set_default_system("You are the bank's assistant.")
    found = dialogue(tiny_tokenizer)
    assert found is not None
    assert found.default_system == "You are the bank's assistant."


def test_a_template_that_refuses_everything_says_why(told: Any) -> None:
    found = told("{{ raise_exception('tools only') }}")
    assert (found.text, found.n_tokens, found.system) == (None, None, "refused")
    assert "tools only" in found.refusal


def test_a_model_without_a_template_has_no_dialogue(tiny_tokenizer: Tokenizer) -> None:
    tiny_tokenizer.chat_template = None
    assert dialogue(tiny_tokenizer) is None
