"""Several seeds, one after another: what has not begun is known, also when nobody was at work at that moment."""

from __future__ import annotations

from pathlib import Path

from pipeline.experiment.series import Series, cut_between_seeds
from pipeline.tracking.store import Store
from tests.conftest import small_config


def test_seeds_that_have_not_begun(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    series = Series.of([1, 2])

    def start(seed: int, tags: dict[str, str]) -> str:
        return store.start_parent(small_config(training__seed=seed), tags)

    def end(parent: str, outcome: str) -> None:
        store.end_parent(parent, outcome, None, None, "")

    assert cut_between_seeds(store) is None
    first = start(1, series.tags)
    assert cut_between_seeds(store) is None and series.to_come(store) == [2]  # it is at work
    end(first, "interrupted")
    assert cut_between_seeds(store) is None  # and this is to go on first
    end(first, "exhausted")
    waiting = cut_between_seeds(store)
    assert waiting is not None and waiting.run_id == first and Series.read(waiting) == series
    end(start(2, series.tags), "healthy")
    assert cut_between_seeds(store) is None and not series.to_come(store)
    end(start(3, Series.of([3]).tags), "healthy")  # a single one is no series
    assert cut_between_seeds(store) is None and len(series.parents(store)) == 2
    assert Series.of([3]).to_come(store) == Series.of([4]).to_come(store) == []
