"""The base of every recipe table: frozen, and rejects unknown keys."""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from lmwright.core.errors import RecipeError, located, suggestion

# What every generator of random numbers takes.
SeedNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]
# Faults of numbers: what fits is told from the key's own range.
NUMBER_FAULTS = (
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
    "int_", "float_",
)  # fmt: skip
WORDS = {int: "a whole number", float: "a number"}


class Config(BaseModel):
    """A table of the recipe; a wrong key or value is a `RecipeError` that says what was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_no_truth_is_a_number(cls, values: Any) -> Any:
        # pydantic takes true for 1.
        for key, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(key)
            if isinstance(value, bool) and field is not None:
                fits = _number(field.annotation, [*field.metadata])
                if fits is not None:
                    raise RecipeError(f"{key} = {str(value).lower()}: expected {fits}")
        return values

    # pydantic's own __init__ takes keywords only, of any type: it validates them itself.
    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(explain(error, type(self))) from None

    @classmethod
    def read(cls, table: dict[str, Any], prefix: str) -> Self:
        """Validate a table found at `prefix` (`finetune.tuned`), which the error then names."""
        # Not model_validate: it calls __init__ and wraps the RecipeError in an error of its own.
        with located(f"{prefix}."):
            return cls(**table)


def explain(error: ValidationError, cls: type[BaseModel]) -> str:
    """Say in one line per fault which key is wrong, what was given and what fits."""
    lines = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            unknown = str(fault["loc"][-1])
            lines.append(f"{key}: unknown key{suggestion(unknown, cls.model_fields)}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing; add {fault['loc'][-1]} = ...")
        elif isinstance(cause := fault.get("ctx", {}).get("error"), RecipeError):
            # A table inside this one, or a check of several keys: it says itself what is wrong.
            start = f"{key}." if key else ""
            lines += [start + line for line in str(cause).split("\n")]
        else:
            field = cls.model_fields.get(str(fault["loc"][0])) if fault["loc"] else None
            lines.append(f"{key} = {_shown(fault['input'])}: {_expected(fault, field)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Return a value as the recipe has it, long ones shortened."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected(fault: Mapping[str, Any], field: FieldInfo | None) -> str:
    """Say what fits: of a number its range, else what pydantic says."""
    kind = fault["type"]
    if field is not None and kind.startswith(NUMBER_FAULTS):
        found = _number(field.annotation, [*field.metadata])
        if found is not None:
            return f"expected {found}"
    if kind == "too_short":
        return f"expected at least {fault['ctx']['min_length']}"
    said = str(fault["msg"]).removeprefix("Value error, ")
    return said.replace("Input should be", "expected").replace("a valid string", "a text")


def _number(annotation: Any, bounds: list[Any]) -> str | None:
    """Return "a whole number from 1 to 8" for a type that has one kind of number in it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        for each in more:
            bounds += each.metadata if isinstance(each, FieldInfo) else [each]
        return _number(inner, bounds)
    if origin is Literal:
        return None
    if origin in (Union, types.UnionType, tuple, list, dict):
        found = [text for each in get_args(annotation) if (text := _number(each, [*bounds]))]
        return found[0] if found else None
    return f"{WORDS[annotation]}{_range(bounds)}" if annotation in WORDS else None


def _range(bounds: list[Any]) -> str:
    """Write bounds as people say them: " from 0 to 8", " above 0, up to 1"."""
    ends = {
        name: getattr(each, name)
        for each in bounds
        for name in ("ge", "gt", "le", "lt")
        if getattr(each, name, None) is not None
    }
    ends = {name: f"{end:,}" if isinstance(end, int) else f"{end:g}" for name, end in ends.items()}
    if ends.keys() == {"ge", "le"}:
        return f" from {ends['ge']} to {ends['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    said = [f"{word} {ends[name]}" for name, word in words.items() if name in ends]
    return f" {' and '.join(said)}" if said else ""
