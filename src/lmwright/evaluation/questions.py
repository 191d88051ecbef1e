"""Held-out questions, wherever they are: in memory, in a data step's folder, in a source."""

from collections.abc import Sequence
from pathlib import Path

from lmwright.core.errors import RequestError
from lmwright.data.config import Data
from lmwright.data.run import QUESTIONS, prepare_data
from lmwright.data.samples import Question
from lmwright.evaluation.tasks.qa_accuracy import read_questions


def heldout(data: str | Path | Data | Sequence[Question] | None) -> tuple[Question, ...]:
    """Return the held-out questions of `data`; a source without any is an error.

    A text is the folder of a data step, or what `[data]` takes as its source.
    """
    if data is None:
        return ()
    if not isinstance(data, str | Path | Data):
        return tuple(data)
    if not isinstance(data, Data):
        if (Path(data) / QUESTIONS).is_file():
            return read_questions(Path(data) / QUESTIONS)
        data = Data(source=str(data))
    questions = tuple(prepare_data(data).questions)
    if not questions:
        raise RequestError(
            f"data = {', '.join(data.sources)}: holds no held-out questions; records of questions "
            "and answers may have some (heldout, accept)"
        )
    return questions
