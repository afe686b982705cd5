"""The values that one coefficient may take, as a study's file has them and as Optuna takes them."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config import Section


class Dimension(Section):
    """The values that one coefficient may take: exactly one of `float`, `int` and `choices`."""

    real: tuple[float, float] | None = Field(default=None, strict=False, alias="float")
    """Lowest and highest value, both included."""
    whole: tuple[int, int] | None = Field(default=None, strict=False, alias="int")
    """Lowest and highest value, both included."""
    choices: tuple[bool | int | float | str, ...] | None = Field(default=None, strict=False)
    """The values, at least two different ones."""
    log: bool = False
    """Whether values are drawn uniformly in the logarithm."""

    @field_validator("choices", mode="before")
    @classmethod
    def _single_values(cls, given: Any) -> Any:
        for each in given if isinstance(given, list | tuple) else ():
            if not isinstance(each, bool | int | float | str):
                raise PydanticCustomError("choices", "Each must be a number, a text, true or false")
        return given

    @model_validator(mode="after")
    def _not_empty(self) -> Dimension:
        given = [name for name, value in self.named.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"float: exactly one of float, int and choices is needed, not {', '.join(given) or 'none'}"
            )
        if self.choices is not None:
            if len(set(self.choices)) < 2:
                raise ValueError(f"choices: two different ones at least, not {list(self.choices)}")
            if self.log:
                raise ValueError("log: choices have no logarithm")
            return self
        low, high = self.real or self.whole or (0, 0)
        if low >= high:
            raise ValueError(f"{given[0]}: an empty range; the first must be below the second, not [{low:g}, {high:g}]")
        if self.log and low <= 0:
            raise ValueError(f"{given[0]}: a range with log must begin above 0, not at {low:g}")
        return self

    @property
    def named(self) -> dict[str, tuple[Any, ...] | None]:
        """The three fields under their names in the YAML file."""
        return {"float": self.real, "int": self.whole, "choices": self.choices}

    @property
    def kind(self) -> str:
        """`float`, `int` or `choices`, followed by ` log` if values are drawn in the logarithm."""
        return next(name for name, value in self.named.items() if value is not None) + " log" * self.log

    @property
    def distribution(self) -> BaseDistribution:
        """The dimension as Optuna takes it."""
        if self.real is not None:
            return FloatDistribution(*self.real, log=self.log)
        if self.whole is not None:
            return IntDistribution(*self.whole, log=self.log)
        return CategoricalDistribution(self.choices or ())

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that a configuration is most likely to refuse: the ends of a range, or all choices."""
        return self.real or self.whole or self.choices or ()

    def contains(self, value: Any) -> bool:
        """Whether the dimension includes a value."""
        if self.choices is not None:
            return value in self.choices
        low, high = self.extremes
        return isinstance(value, int | float) and not isinstance(value, bool) and bool(low <= value <= high)
