"""A program's data must be checked as a recipe's is, and its own model must stay as it was."""

import json

import pytest

from lmwright.core.errors import DataError
from lmwright.core.stage import StepContext
from lmwright.data.config import Data
from lmwright.data.run import read_samples, run
from lmwright.engine.request import Sampling
from lmwright.finetuning import run as module
from lmwright.finetuning.config import Finetune
from lmwright.finetuning.run import finetune

GREEDY = Sampling(temperature=0.0, max_tokens=8)


def write(path, **more):
    faq = {
        "id": "fee",
        "questions": [f"What is fee {n}?" for n in range(8)],
        "answers": ["8 euros"],
    }
    path.write_text(json.dumps({**faq, **more}))
    return str(path)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_tuned_copy_answers_otherwise_and_the_base_as_before(tiny_lm, tmp_path, method):
    data = write(tmp_path / "x.jsonl")
    prompt = [{"role": "user", "content": "What is fee 3?"}]
    before = tiny_lm.generate([prompt], GREEDY)
    config = Finetune(data=data, method=method, epochs=40, lr=1e-2, precision="fp32", keep="last")
    tuned = finetune(tiny_lm, config)
    assert tiny_lm.generate([prompt], GREEDY) == before
    assert tuned.generate([prompt], GREEDY)[0].text == "8 euros"


def test_a_heldout_question_that_is_also_trained_on_is_refused(tiny_lm, tmp_path):
    data = write(tmp_path / "x.jsonl", heldout=["what is fee 3"], accept=["8"])
    with pytest.raises(DataError, match="it would measure memory"):
        finetune(tiny_lm, Finetune(data=data))


def test_it_trains_on_the_samples_that_a_recipe_would(tiny_lm, tmp_path, monkeypatch):
    source, seen = write(tmp_path / "x.jsonl"), []

    def fit(model, task, train_set, validation_set, **_):
        seen.extend([[each.id for each in part] for part in (train_set, validation_set)])

    monkeypatch.setattr(module, "fit", fit)
    finetune(tiny_lm, Finetune(data=source, seed=4))
    run(Data(source=source, seed=4), tmp_path / "out", StepContext({}, {}, tmp_path, 4))
    names = ("train.jsonl", "validation.jsonl")
    assert seen == [[s.id for s in read_samples(tmp_path / "out" / name)] for name in names]
