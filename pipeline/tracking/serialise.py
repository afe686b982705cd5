"""Values as the text that MLflow takes: params, tags that fit, and the status that says the same as a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any, TypeVar

from mlflow.entities import RunStatus

from pipeline.health.verdict import Evidence
from pipeline.secrets import without_passwords

_PARAM_LIMIT = 6000
"""Characters of a param's value: MLflow's own limit."""
_TAG_LIMIT = 8000
_LONG_VALUE = 200
"""Characters of a changed value that are kept where not all of it has room."""
_LAST_VALUES = 10
Content = TypeVar("Content")


def status_of(name: str) -> str:
    """MLflow's status for a verdict or an outcome: FINISHED, KILLED, or FAILED."""
    statuses = {"healthy": RunStatus.FINISHED, "compared": RunStatus.FINISHED, "interrupted": RunStatus.KILLED}
    return str(RunStatus.to_string(statuses.get(name, RunStatus.FAILED)))


def param(value: Any) -> str:
    """A value of the configuration as a param."""
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)
    return without_passwords(text)[:_PARAM_LIMIT]


def cut(text: str) -> str:
    """The text without passwords, if it is short enough for a tag; else its beginning."""
    text = without_passwords(text)
    return text if len(text) <= _TAG_LIMIT else text[: _TAG_LIMIT - 1] + "…"


def in_parts(name: str, text: str) -> dict[str, str]:
    """A text that must stay whole as tags: `NAME`, then `NAME.1`, `NAME.2` and so on for what has no room."""
    parts = [text[first : first + _TAG_LIMIT] for first in range(0, max(1, len(text)), _TAG_LIMIT)]
    return {f"{name}.{number}" if number else name: part for number, part in enumerate(parts)}


def from_parts(name: str, said: Mapping[str, str]) -> str | None:
    """The text of :func:`in_parts`; None: there is none of that name."""
    if name not in said:
        return None
    numbers = takewhile(lambda number: f"{name}.{number}" in said, count(1))
    return said[name] + "".join(said[f"{name}.{number}"] for number in numbers)


def difference_tag(changed: Mapping[str, Sequence[Any]]) -> str:
    """JSON that fits into a tag. Where it is too long, long values are cut, and as many keys kept as have room."""
    return _json_tag(changed, _shorter_difference)


def evidence_tag(evidence: Sequence[Mapping[str, Any]]) -> str:
    """JSON that fits into a tag. Where it is too long, the detail (the log's tail) and all but the last values go.

    Where that is not enough, the longest findings go.
    """
    return _json_tag(evidence, _shorter_evidence)


def warnings_tag(warnings: Sequence[Evidence]) -> str:
    """JSON that fits into a tag: the warnings without values and detail, but for a reason; of many the first."""
    kept: list[Any] = []
    for each in warnings:
        short = each.model_dump(mode="json", exclude={"values", "detail"})
        if "reason" in each.detail:
            short["detail"] = {"reason": str(each.detail["reason"])[:_PARAM_LIMIT]}
        if len(json.dumps([*kept, short])) > _TAG_LIMIT:
            break
        kept.append(short)
    return json.dumps(kept)


def _json_tag(content: Content, shorter: Callable[[Content], Content]) -> str:
    text = json.dumps(content)
    return text if len(text) <= _TAG_LIMIT else json.dumps(shorter(content))


def _shorter_difference(changed: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    kept: dict[str, Sequence[Any]] = {}
    for key, pair in changed.items():
        short = [each if len(text := json.dumps(each)) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…" for each in pair]
        if len(json.dumps({**kept, key: short})) > _TAG_LIMIT:
            break
        kept[key] = short
    return kept


def _shorter_evidence(evidence: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    shorter = [{**each, "values": each.get("values", [])[-_LAST_VALUES:], "detail": {}} for each in evidence]
    while shorter and len(json.dumps(shorter)) > _TAG_LIMIT:
        shorter.remove(max(shorter, key=lambda each: len(json.dumps(each))))
    return shorter
