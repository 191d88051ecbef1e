"""A bar that stands still for a minute looks like a program that hangs."""

from lmwright.core.progress import Bar
from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.evaluation.watched import SCORE_CHARACTERS, Watched


class Seen(Bar):
    """A bar that remembers what it showed."""

    def __init__(self) -> None:
        super().__init__("evaluate", 4)
        self.states: list[tuple[float, str]] = []

    def _changed(self) -> None:
        self.states.append((self.completed, self.note))


def test_answers_move_the_bar_one_by_one(tiny_lm):
    seen = Seen()
    seen.advance(1, "tiny: refusal_rate")
    prompts = [f"prompt {i}" for i in range(4)]
    sampling = Sampling(max_tokens=3)
    assert Watched(tiny_lm, seen).generate(prompts, sampling) == tiny_lm.generate(prompts, sampling)
    assert seen.states[1:] == [(1 + i / 4, f"tiny: refusal_rate {i}/4") for i in range(1, 5)]


def test_scores_come_in_groups_that_do_not_part_one_context(make_model):
    model, seen = make_model("a"), Seen()
    third = "x" * (SCORE_CHARACTERS // 3)
    requests = [ScoreRequest(f"context {i}", third) for i in range(5) for _ in range(2)]
    scores = Watched(model, seen).score(requests)
    assert [s.logprob for s in scores] == [s.logprob for s in model.score(requests)]
    assert [note for _, note in seen.states] == ["4/10", "8/10", "10/10"]


def test_a_timing_has_no_parts(make_model):
    seen = Seen()
    Watched(make_model("a"), seen).generate(
        [[{"role": "user", "content": "one"}]], Sampling(max_tokens=2)
    )
    assert seen.states == []
