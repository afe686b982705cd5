"""Each tag's name stands once, in `pipeline.tracking.tags`."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import ExperimentConfig, flatten
from pipeline.health.verdict import Evidence
from pipeline.tracking import tags
from pipeline.tracking.serialise import warnings_tag

ROOT = Path(__file__).parents[2]
HERE = Path(tags.__file__)
NAMES = frozenset(value for name, value in vars(tags).items() if name.isupper() and isinstance(value, str))
PATTERN = re.compile(r"(ladder|optuna)\.(?!(db|log)$)[a-z_]+\.?")
KEYS = frozenset(flatten(ExperimentConfig()))
"""Keys of the configuration. `ladder.warm_start` is one, and a tag."""
FILES = sorted(path for folder in ("pipeline", "fallbacks", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The string literals of a module, parts of f-strings included, docstrings of any kind left out."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not isinstance(node, ast.Expr):
                yield child


def is_tag(text: str) -> bool:
    """Whether a literal is a tag's name, or asks the store for one."""
    if re.search(r"\btags\.`?(ladder|mlflow|optuna)\.", text):
        return True
    return text not in KEYS and (
        text in NAMES or re.fullmatch(r"(ladder|optuna)\.(?!(db|log)$)[a-z_]+\.?", text) is not None
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ladder.verdict", True),
        ("ladder.not_known_yet", True),
        ("mlflow.parentRunId", True),
        ("optuna.param.", True),
        ("tags.`ladder.kind` = 'study'", True),
        ("ladder.rungs", False),  # a key of the configuration
        ("ladder.rungs: unknown rung", False),  # a message
        ("mlflow.pytorch", False),  # a logger
        ("optuna.db", False),  # a file
    ],
)
def test_what_counts_as_a_tag(text: str, expected: bool) -> None:
    assert is_tag(text) is expected


def test_no_tag_stands_elsewhere() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{each.lineno}: {each.value}"
        for path in FILES
        if path != HERE
        for each in strings(ast.parse(path.read_text()))
        if is_tag(str(each.value))
    ]
    assert not found


def test_tags_are_read_in_tracking_only() -> None:
    """Also `ladder.warm_start`, whose name cannot tell whether the tag or the key is meant."""
    own = (ROOT / "pipeline/tracking", ROOT / "pipeline/tuning/mlflow_runs.py")
    others = [path for path in FILES if not any(path.is_relative_to(each) for each in own)]
    assert others and not [path.name for path in others if ".data.tags" in path.read_text()]
    tracking = [path for path in FILES if path.is_relative_to(own[0]) and path != HERE]
    texts = [str(each.value) for path in tracking for each in strings(ast.parse(path.read_text()))]
    assert not NAMES.intersection(texts)


def test_each_name_stands_once() -> None:
    counted = Counter(str(each.value) for each in strings(ast.parse(HERE.read_text())))
    assert set(counted) == NAMES and set(counted.values()) == {1}


def test_many_warnings_are_still_json() -> None:
    reason = Evidence(rule="own", detail={"reason": "was never judged"})
    fired = [Evidence(rule=f"rule {number}", metric="x", threshold="> 1" * 50) for number in range(200)]
    kept = json.loads(warnings_tag([reason, *fired]))
    assert kept[0]["detail"] == {"reason": "was never judged"} and 1 < len(kept) < 201
    assert all(Evidence.model_validate(each) for each in kept)
