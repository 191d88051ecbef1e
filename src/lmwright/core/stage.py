"""A stage of a recipe as one record: reading, planning, running and reporting follow from it.

A stage is a package with a `stage.py` that holds its record and imports nothing heavy. What does
the work is named as "module:function" and imported when a step runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmwright.core.config import Config

# Python with torch, before any model is loaded.
PROCESS_BYTES = 500_000_000
# SmolLM2-135M; assumed for a model that cannot be looked at without a download.
ASSUMED_PARAMS = 134_515_008


@dataclass(frozen=True)
class Kind:
    """A kind of thing that steps make and that keys of a table name."""

    name: str
    # Where it lies in the folder of the step that made it; "" is the folder itself.
    subfolder: str = ""


DATA = Kind("data")
MODEL = Kind("model", subfolder="model")
EVALUATION = Kind("evaluation")
DECISION = Kind("gate")
PAGE = Kind("report")


@dataclass(frozen=True)
class Reference:
    """What a key of a table must name: one thing, or a list of them."""

    kind: Kind
    # Whether a model behind somebody's API will do (its weights are elsewhere).
    allows_hosted: bool = False


@dataclass(frozen=True)
class Matrices:
    """The linear layers of a model's blocks, by their sizes alone."""

    d_model: int
    # (outputs, inputs) of each matrix of one block.
    shapes: tuple[tuple[int, int], ...]
    n_blocks: int


# SmolLM2-135M: queries, keys, values, what mixes them; gate, up, down.
ASSUMED_MATRICES = Matrices(
    d_model=576,
    shapes=((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)),
    n_blocks=30,
)


@dataclass(frozen=True)
class Estimate:
    """About how long a step takes and how much memory it needs, and how large what it makes is."""

    seconds: float
    memory_bytes: int
    # False where something (a download, an endpoint) could not be looked at beforehand.
    is_complete: bool = True
    # Of a model that is made; of data: the tokens of one pass, its samples for training and its
    # held-out questions. None: not known.
    n_params: int | None = None
    matrices: Matrices | None = None
    n_tokens: int | None = None
    n_samples: int | None = None
    n_questions: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without the sizes of single matrices."""
        return {key: value for key, value in asdict(self).items() if key != "matrices"}


@dataclass(frozen=True)
class StepContext:
    """What a stage's `run` is given besides its table and its folder."""

    # Where each name in the table lies: a step's product, or what was named as it was written.
    inputs: Mapping[str, Path | str]
    # Each model that a step of this run makes -> the models that it is made from.
    parents: Mapping[str, tuple[str, ...]]
    run_folder: Path
    # The table's own seed, or the recipe's. A stage that draws has the key: it is hashed with it.
    seed: int


@dataclass(frozen=True)
class Named:
    """A step that a table names: its own table, and the models that what it makes is made from."""

    config: Any
    parents: tuple[str, ...] = ()


# The tables of a recipe by what their steps make.
TablesByKind = Mapping[Kind, Mapping[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One table of the recipe. `run(config, out, context)` does the work and returns a result.

    The result is plain data for result.json. One with "passed": false ends a run with exit code 3.
    """

    # The table, the verb of the command line and the function of a program.
    name: str
    # How a sentence says what was done: "Fine-tuning starter to tuned improved ...".
    title: str
    config: type[Config]
    makes: Kind
    # Raised when the stage makes something else of the same table: old results are redone.
    version: int
    # "lmwright.finetuning.run:run".
    run: str
    # About what a step takes; the second argument tells of each thing that its table names.
    estimate: Callable[[Any, Mapping[str, Estimate]], Estimate]
    references: Mapping[str, Reference] = field(default_factory=dict)
    # Which of these keys name the models that a new one is made from: none, one or several.
    parents: tuple[str, ...] = ()
    # Hugging Face's word for how a model relates to its parent: finetune, quantized, merge.
    relation: str | None = None
    # Hashes of what a table names that is neither a step nor a model (files, package data).
    external: Callable[[Any], Mapping[str, str]] = lambda _: {}
    # Values for keys that a table leaves open, from the other tables of the recipe.
    complete: Callable[[Any, TablesByKind], Mapping[str, Any]] = lambda _config, _made: {}
    # Raises a RecipeError for what the recipe alone shows; gets all steps of it by name. The
    # message starts with the key; the table's name is put before it.
    check: Callable[[Any, Mapping[str, Named]], None] = lambda _config, _steps: None
    # Values for keys that depend on what is known of the things that a table names (the size of
    # its data, the width of its model); raises a RecipeError where they do not fit together.
    settle: Callable[[Any, Mapping[str, Named], Mapping[str, Estimate]], Mapping[str, Any]] = (
        lambda _config, _steps, _known: {}
    )
    # What is worth knowing before a step runs, a line each: what was settled, what may be little.
    remarks: Callable[[Any, Mapping[str, Estimate]], Sequence[str]] = lambda _config, _known: ()
    # The optional libraries (keys of `extras.EXTRAS`) that a step imports.
    needs: Callable[[Any], tuple[str, ...]] = lambda _: ()
    # What `run` writes in its folder (patterns); anything else there is the user's, and is kept.
    files: tuple[str, ...] = ("*",)
    # Whether [gate] alone is a step of that name; else only [gate.NAME] is one.
    may_be_unnamed: bool = False
