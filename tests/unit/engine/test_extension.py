"""An engine from outside src/ must do all that the project asks of a model, and need no torch."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from fakes import answer_to, fake_model
from lmwright.engine.request import Sampling, ScoreRequest
from lmwright.evaluation.runner import evaluate

model = fake_model(reply=answer_to({"Hi": "Hello."}), labels=("even", "odd"))
chat = [{"role": "user", "content": "Hi"}]
assert [c.text for c in model.generate([chat, "x"], Sampling())] == ["Hello.", "Here you are."]
assert "".join(chunk.text for chunk in model.stream(chat, Sampling())) == "Hello."
assert model.score([ScoreRequest("a", "bc")])[0].token_ids == (98, 99)
assert model.embed(["abc"]).tolist() == [[3, 0.5]]
assert [each.label for each in model.classify(["abc", "ab"])] == ["odd", "even"]
admitted, engine = model.admit(chat, Sampling(max_tokens=None)), model.engine()
ids = engine.add(admitted.prompt_ids, [admitted.sampling] * 2)
texts = dict.fromkeys(ids, "")
while not engine.is_idle:
    for id_, chunk in engine.step():
        texts[id_] += chunk.text
assert texts == dict.fromkeys(ids, "Hello."), texts
scores = evaluate([model, fake_model("other", likes={" he": 0.5})], tasks=["gender_gap"])
assert set(scores.metrics) == {"fake", "other"}
assert "torch" not in sys.modules, "torch was imported"
"""


def test_a_backend_of_a_few_lines_writes_scores_serves_and_is_evaluated_without_torch() -> None:
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tests, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
