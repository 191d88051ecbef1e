"""The base of every recipe table: frozen, and rejects unknown keys."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lmwright.core.errors import RecipeError, located, suggestion


class Config(BaseModel):
    """A table of the recipe; a wrong key or value is a `RecipeError` that says what was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

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
            lines.append(f"{key} = {fault['input']!r}: {fault['msg']}")
    return "\n".join(lines)
