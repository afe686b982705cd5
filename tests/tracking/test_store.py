"""What is said to a real store."""

from __future__ import annotations

import json

import pytest

from pipeline.tracking import tags
from pipeline.tracking.store import Store
from tests.conftest import small_config


def test_two_who_make_an_experiment_at_once_share_it(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = empty_store.experiment_id("new")
    look, looks = empty_store.client.get_experiment_by_name, 0

    def too_early(name: str) -> object:
        nonlocal looks
        looks += 1
        return look(name) if looks > 1 else None  # the other makes it between our look and our attempt to make it

    monkeypatch.setattr(empty_store.client, "get_experiment_by_name", too_early)
    assert empty_store.experiment_id("new") == theirs and looks == 2


@pytest.mark.parametrize(
    "changed",
    [{"a": ["x" * 4500, "y" * 4500], "b": [1, 2]}, {f"key.{number}": [number, "z" * 150] for number in range(200)}],
)
def test_a_long_difference_stays_one_that_can_be_read(empty_store: Store, changed: dict[str, list[object]]) -> None:
    config = small_config()
    parent = empty_store.start_parent(config)
    run_id = empty_store.start_attempt(parent, config, rung="v3", number=0, diff=changed, warm_start=None, reason="")
    run = empty_store.run(run_id)
    assert run is not None
    text = run.entity.data.tags[tags.DIFF]
    kept = json.loads(text)
    assert len(kept) == len(changed) or len(text) > 7500  # as many as there is room for
    assert set(kept) <= set(changed) and all(len(pair) == 2 for pair in kept.values())
