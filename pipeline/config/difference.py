"""How two configurations differ, as dotted keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipeline.config.experiment import ExperimentConfig


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Dotted key → value; lists and free-form mappings stay whole."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, model: BaseModel) -> None:
        for name in type(model).model_fields:
            value = getattr(model, name)
            key = f"{prefix}{name}"
            if isinstance(value, BaseModel):
                visit(f"{key}.", value)
            elif isinstance(value, tuple):
                flat[key] = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
            elif isinstance(value, dict):
                flat[key] = {
                    name: item.model_dump() if isinstance(item, BaseModel) else item for name, item in value.items()
                }
            else:
                flat[key] = value

    visit("", config)
    return flat


def difference(before: ExperimentConfig, after: ExperimentConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with (before, after); of a mapping, the keys inside. None: it is not there."""
    old, new = flatten(before), flatten(after)
    return changed_keys({key: (old[key], new[key]) for key in new})


def changed_keys(values: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, Any]]:
    """The keys whose two values differ; in place of a mapping, the keys inside it."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key, (old, new) in values.items():
        if isinstance(old, dict) and isinstance(new, dict):
            inside = dict.fromkeys((*old, *new))
            changed |= changed_keys({f"{key}.{name}": (old.get(name), new.get(name)) for name in inside})
        elif old != new:
            changed[key] = (old, new)
    return changed
