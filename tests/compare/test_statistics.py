"""The statistics, against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.compare.statistics import interquartile_mean, interval, probability_of_improvement, recent_mean

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_the_trimmed_mean(count: int) -> None:
    values = RANDOM.normal(size=count)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_interval_is_the_percentile_bootstrap() -> None:
    values = RANDOM.normal(10, 3, size=12)
    ours = interval(values)
    theirs = stats.bootstrap(
        (values,), lambda each, axis: stats.trim_mean(each, 0.25, axis=axis), method="percentile", n_resamples=20_000
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.2) and ours.high == pytest.approx(theirs.high, abs=0.2)
    assert ours.low < ours.value < ours.high


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """With 20 runs of a normal distribution: 95 % nominally; the percentile bootstrap is known to be a little short."""
    covered = [
        low <= 5.0 <= high
        for _, low, high in (interval(RANDOM.normal(5, 2, size=20), lambda each: each.mean(-1)) for _ in range(300))
    ]
    assert 0.87 < np.mean(covered) < 0.98


def test_probability_of_improvement_is_mann_whitney() -> None:
    x, y = RANDOM.integers(0, 6, size=7).astype(float), RANDOM.integers(0, 6, size=9).astype(float)
    ours = probability_of_improvement(x, y)
    assert ours.value == pytest.approx(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    assert ours.low <= ours.value <= ours.high
    assert probability_of_improvement(y, x).value == pytest.approx(1 - ours.value)


def test_few_runs_have_no_interval() -> None:
    assert interval(np.array([3.0])).value == 3.0 and np.isnan(interval(np.array([3.0])).low)
    assert np.isnan(interval(np.array([])).value)
    assert np.isnan(probability_of_improvement(np.array([]), np.array([1.0])).value)
    one = probability_of_improvement(np.array([2.0]), np.array([1.0, 3.0]))
    assert one.value == 0.5 and np.isnan(one.low)


def test_recent_mean_is_that_of_the_episodes() -> None:
    """Updates in which several episodes ended weigh as many; updates longer ago than the window do not count."""
    scores = [[100.0], [1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]
    values = np.array([np.mean(each) for each in scores])
    episodes = np.cumsum([len(each) for each in scores])
    found = recent_mean(values, episodes, window=6)
    assert found.value == pytest.approx(np.mean([1, 2, 3, 4, 5, 6]))
    assert found.low < found.value < found.high < 100
    assert recent_mean(values, episodes, window=5).value == pytest.approx(np.mean([1.5, 3, 4, 5, 6]))
    assert recent_mean(values, episodes, window=1).value == pytest.approx(5.0)
