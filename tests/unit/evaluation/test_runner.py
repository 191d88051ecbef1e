"""The card: who is compared with whom, corrected together, and shown with n and intervals."""

import pytest

from lmwright.core.errors import LmwrightError, RequestError, UnsupportedError
from lmwright.data.samples import Question
from lmwright.evaluation.runner import batch_difference, choose, evaluate, pairs
from lmwright.evaluation.statistics import holm
from lmwright.evaluation.tasks import MEASUREMENTS

QUESTIONS = tuple(
    Question(f"f{i}/0", f"f{i}", ({"role": "user", "content": f"What is f{i}?"},), (f"{i} euros",))
    for i in range(40)
)


@pytest.fixture
def scores(make_model):
    knows = {f"What is f{i}?": f"It is {i} euros." for i in range(38)}
    return evaluate(
        [
            make_model("base", likes={" he would": 0.5}),
            make_model("tuned", replies=knows),
            make_model("small", replies=knows, likes={"the": -0.4}),
        ],
        tasks=["qa_accuracy", "bits_per_byte", "gender_gap", "refusals"],
        data=QUESTIONS,
        parents={"tuned": "base", "small": "tuned", "base": "elsewhere"},
    )


def test_each_model_is_compared_with_the_first_and_with_its_parent(scores):
    found = [(c.baseline, c.model) for c in scores.comparisons if c.metric == "qa_accuracy"]
    assert found == [("base", "tuned"), ("base", "small"), ("tuned", "small")]
    assert scores.parents == {"base": ("elsewhere",), "tuned": ("base",), "small": ("tuned",)}
    assert pairs(["a"], {}) == []
    assert pairs(["a", "b"], {"b": ("a",), "a": ("b",)}) == [("a", "b"), ("b", "a")]
    # Several parents, as after a merge.
    assert pairs(["a", "b", "c"], {"c": ("b", "a")}) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_p_values_are_corrected_over_the_whole_card(scores):
    assert len(scores.comparisons) == 3 * 5
    adjusted = [comparison.p_holm for comparison in scores.comparisons]
    assert adjusted == holm([comparison.p for comparison in scores.comparisons])


def test_verdicts_say_what_was_put_in(scores):
    def verdict(metric, model, baseline):
        return scores.comparison(metric, model, baseline=baseline).verdict

    assert scores.metrics["base"]["qa_accuracy"].value == 0
    assert scores.metrics["tuned"]["qa_accuracy"].value == 38 / 40
    assert verdict("qa_accuracy", "tuned", "base") == "better"
    assert verdict("qa_accuracy", "small", "tuned") == "equivalent"
    assert verdict("bits_per_byte", "tuned", "base") == "equivalent"
    assert verdict("bits_per_byte", "small", "tuned") == "worse"
    assert scores.comparison("qa_accuracy", "tuned", baseline="base").flips == (0, 38)
    assert scores.comparison("qa_accuracy", "base", baseline="tuned") is None


def test_every_metric_comes_with_n_slices_and_what_it_can_find(scores):
    for metrics in scores.metrics.values():
        assert list(metrics) == [
            "qa_accuracy", "bits_per_byte", "gender_gap", "refusal_rate", "over_refusal_rate",
        ]  # fmt: skip
    assert scores.metrics["base"]["gender_gap"].n == 240
    assert set(scores.metrics["base"]["gender_gap"].slices) == {"gender_slope"}
    assert len(scores.metrics["base"]["refusal_rate"].slices) == 10
    assert all(scores.detectable[metric] > 0 for metric in ("qa_accuracy", "gender_gap"))
    assert scores.facts_of_models["base"]["batch_difference"] == 0.0
    assert set(scores.not_measured) == {
        "multiple_choice", "prefill_tokens_per_s", "decode_tokens_per_s",
    }  # fmt: skip


def test_models_that_agree_in_everything_are_not_said_to_find_any_change(make_model):
    scores = evaluate([make_model("a"), make_model("b")], tasks=["gender_gap"])
    assert scores.comparisons[0].verdict == "equivalent"
    alone = evaluate([make_model("a")], tasks=["gender_gap"])
    assert scores.detectable == alone.detectable
    assert scores.detectable["gender_gap"] > 0


def test_one_model_alone_has_numbers_and_a_detectable_effect(make_model):
    scores = evaluate([make_model()], tasks=["bits_per_byte", "speed"])
    assert scores.comparisons == ()
    assert scores.detectable["bits_per_byte"] > 0
    assert scores.facts_of_models["fake"]["peak_memory_bytes"] > 1_000_000
    assert scores.metrics["fake"]["decode_tokens_per_s"].n == 3


def test_the_same_evaluation_twice_is_the_same(make_model):
    first, second = (
        evaluate([make_model("a"), make_model("b", likes={"he": 0.1})], tasks=["gender_gap"])
        for _ in range(2)
    )
    assert first == second


def test_answers_without_questions_are_not_measured_or_refused_when_asked_for():
    choice = choose(None, ())
    names = [each.spec.name for each in choice.measurements]
    assert names == [name for name in MEASUREMENTS if name != "qa_accuracy"]
    assert "no held-out questions" in choice.not_measured["qa_accuracy"]
    with pytest.raises(RequestError, match="data = "):
        choose(["qa_accuracy"], ())


def test_one_model_without_a_list_is_refused(make_model):
    with pytest.raises(RequestError, match="expected a list of models"):
        evaluate(make_model())


def test_unknown_tasks_and_names_used_twice_are_refused(make_model):
    with pytest.raises(RequestError, match="did you mean 'refusals'"):
        choose(["refusal"], QUESTIONS)
    with pytest.raises(RequestError, match="at least one task"):
        choose([], QUESTIONS)
    with pytest.raises(RequestError, match="'a' occurs twice"):
        evaluate([make_model("a"), make_model("a")])
    with pytest.raises(RequestError, match="at least one model"):
        evaluate([])


def test_a_batch_that_changes_results_stops_an_exact_evaluation(make_model):
    assert batch_difference(make_model(batch_error=1e-5)) == pytest.approx(1e-5)
    with pytest.raises(LmwrightError, match=r"0\.01 nats"):
        evaluate([make_model(batch_error=0.01)], tasks=["bits_per_byte"])
    with pytest.raises(LmwrightError, match="nan nats"):
        batch_difference(make_model(batch_error=float("nan")))
    # In bf16 rounding alone is larger: recorded, not refused.
    assert batch_difference(make_model(batch_error=0.01, dtype="bfloat16")) == pytest.approx(0.01)


def mute(model):
    """Let a model give no log-probabilities."""

    def score(requests):
        raise UnsupportedError("no log-probabilities here", reason="it tells none")

    model.score = score
    return model


def test_what_a_model_cannot_be_asked_is_left_out_with_the_reason(make_model):
    models = [make_model("base"), mute(make_model("mute")), make_model("small")]
    scores = evaluate(models, tasks=["bits_per_byte", "refusals"])
    assert set(scores.metrics["mute"]) == {"refusal_rate", "over_refusal_rate"}
    assert scores.gaps == {"mute": {"bits_per_byte": "it tells none"}}
    # All else is compared as usual.
    compared = {(c.model, c.metric) for c in scores.comparisons}
    refusals = {(name, m) for name in ("mute", "small") for m in scores.metrics["mute"]}
    assert compared == {*refusals, ("small", "bits_per_byte")}
    assert "bits_per_byte" not in scores.not_measured
    text = str(scores)
    assert "not measured: it tells none" in text
    assert "n = 24 items" in text


def test_the_baseline_may_be_the_one_that_cannot_be_asked(make_model):
    scores = evaluate(
        [mute(make_model("mute")), make_model("a"), make_model("b")],
        tasks=["bits_per_byte", "refusals"],
        parents={"b": "a"},
    )
    found = [(c.baseline, c.model) for c in scores.comparisons if c.metric == "bits_per_byte"]
    assert found == [("a", "b")]
    assert scores.detectable["bits_per_byte"] > 0
    assert "n = 24 items" in str(scores)


def test_what_no_model_can_be_asked_is_not_measured_at_all(make_model):
    scores = evaluate([mute(make_model("mute"))], tasks=["bits_per_byte", "refusals"])
    assert scores.not_measured["bits_per_byte"] == "it tells none"
    assert [spec.name for spec in scores.specs] == ["refusal_rate", "over_refusal_rate"]
    with pytest.raises(RequestError, match="nothing could be measured: it tells none"):
        evaluate([mute(make_model("mute"))], tasks=["bits_per_byte"])
