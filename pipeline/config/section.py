"""What every section of the configuration has in common, and the types of its keys."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Discount = Annotated[float, Field(gt=0, le=1)]


def _executable(command: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if command is not None and not command[0].strip():
        raise PydanticCustomError("command", "The first word must name a program")
    if command is not None and any("\0" in word for word in command):
        raise PydanticCustomError("command", "No word can have a NUL character in it")
    return command


Command = Annotated[tuple[str, ...] | None, Field(strict=False, min_length=1), AfterValidator(_executable)]
"""A program and its arguments, as a list of words."""


def sequence(default: tuple[Any, ...], **constraints: Any) -> Any:
    """A tuple field that accepts the list which YAML gives."""
    return Field(default=default, strict=False, **constraints)


class Section(BaseModel):
    """Frozen, strict (a string is no number), finite, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restores a pickled section; keys that have been added since then have their defaults."""
        fields = type(self).model_fields
        defaults = {name: each.get_default(call_default_factory=True) for name, each in fields.items()}
        super().__setstate__(state | {"__dict__": defaults | state["__dict__"]})


def refuse_what_json_cannot_hold(key: str, value: Any) -> None:
    """A trainer reads its parameters from a JSON file, which would have null in place of infinity."""
    if isinstance(value, dict):
        for name, each in value.items():
            refuse_what_json_cannot_hold(f"{key}.{name}", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            refuse_what_json_cannot_hold(f"{key}.{index}", each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: must be finite, not {value}; a text such as '{value}' is allowed")
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise ValueError(f"{key}: must be text, a number, true, false, null, a list or a mapping, not {kind} {value!r}")
