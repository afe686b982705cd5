"""The statistics, against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.compare.statistics import (
    difference,
    interquartile_mean,
    interval,
    method,
    probability_of_improvement,
    recent,
    statistic_for,
    weighted_mean,
)

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_the_trimmed_mean(count: int) -> None:
    values = RANDOM.normal(size=count)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_the_interval_of_the_mean_is_students() -> None:
    for count in (3, 5, 9):
        values = RANDOM.normal(10, 3, size=count)
        theirs = stats.ttest_1samp(values, 0).confidence_interval()
        assert interval(values) == pytest.approx((values.mean(), theirs.low, theirs.high))
        assert interval(values, "mean") == interval(values)


def test_the_interval_of_the_interquartile_mean_is_yuens() -> None:
    """Of two samples, one of which is the other mirrored, the error is √2 times that of one."""
    for count in (10, 13, 20):
        values = RANDOM.standard_t(3, size=count)
        ours, both = interval(values), stats.ttest_ind(values, -values, equal_var=False, trim=0.25)
        error = 2 * stats.trim_mean(values, 0.25) / both.statistic / np.sqrt(2)
        half = stats.t.ppf(0.975, count - 2 * (count // 4) - 1) * error
        assert ours == pytest.approx((stats.trim_mean(values, 0.25), ours.value - half, ours.value + half))


def test_a_difference_is_welchs() -> None:
    a, b = RANDOM.normal(size=4), RANDOM.normal(2, 5, size=7)
    theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert difference(a, b) == pytest.approx((b.mean() - a.mean(), theirs.low, theirs.high))


def test_runs_side_by_side_are_summed_up_alike() -> None:
    assert statistic_for([12, 10]) == "IQM" and statistic_for([12, 0, 10]) == "IQM"
    assert statistic_for([12, 9]) == "mean" and statistic_for([]) == "mean" and statistic_for([0]) == "mean"
    many = RANDOM.exponential(size=12)
    assert interval(many, "mean").value == pytest.approx(many.mean()) != interval(many).value


@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int) -> None:
    covered = [low <= 5.0 <= high for _, low, high in (interval(RANDOM.normal(5, 2, size=count)) for _ in range(800))]
    assert 0.92 < np.mean(covered) < 0.98


def test_updates_cover_the_mean_of_their_games() -> None:
    """Updates in which one to five games ended, each of a skewed score."""
    covered = []
    for _ in range(500):
        games = RANDOM.integers(1, 6, size=40)
        found = weighted_mean(np.array([RANDOM.exponential(size=each).mean() for each in games]), games)
        covered.append(found.low <= 1.0 <= found.high)
    assert 0.90 < np.mean(covered) < 0.98


def test_probability_of_improvement_is_mann_whitney() -> None:
    x, y = RANDOM.integers(0, 6, size=7).astype(float), RANDOM.integers(0, 6, size=9).astype(float)
    ours = probability_of_improvement(x, y)
    assert ours.value == pytest.approx(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    assert ours.low <= ours.value <= ours.high
    assert probability_of_improvement(y, x).value == pytest.approx(1 - ours.value)


def test_few_runs_have_no_interval() -> None:
    two = interval(np.array([3.0, 5.0]))
    assert two.value == 4.0 and np.isnan(two.low)
    assert np.isnan(interval(np.arange(4.0), "IQM").low) and np.isnan(difference(np.arange(2.0), np.arange(9.0)).low)
    assert "too few" in method("mean") and "Student" in method("mean") and "IQM" in method("IQM")
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
    found = weighted_mean(*recent(values, episodes, window=6))
    assert found.value == pytest.approx(np.mean([1, 2, 3, 4, 5, 6]))
    assert found.low < found.value < found.high < 100
    assert weighted_mean(*recent(values, episodes, window=5)).value == pytest.approx(np.mean([1.5, 3, 4, 5, 6]))
    assert weighted_mean(*recent(values, episodes, window=1)).value == pytest.approx(5.0)
    assert np.isnan(weighted_mean(*recent(np.array([]), np.array([]), window=6)).value)


def test_the_first_update_of_a_run_counts_for_all_games_that_had_ended() -> None:
    values, episodes = np.array([10.0, 4.0]), np.array([3.0, 5.0])
    assert weighted_mean(*recent(values, episodes, window=100, begun=0.0)).value == pytest.approx(38 / 5)
    assert recent(values, episodes, window=4, begun=0.0)[1].tolist() == [2.0, 2.0]


def test_runs_that_do_not_overlap_leave_something_open() -> None:
    found = probability_of_improvement(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    assert found.value == 0.0 and found.low == 0.0 and 0.2 < found.high < 0.6
    assert found.of_the_other.value == 1.0 and found.of_the_other.low == 1 - found.high


def test_runs_that_are_all_equal_have_no_width() -> None:
    assert interval(np.full(4, 7.0)) == (7.0, 7.0, 7.0) and interval(np.full(12, 7.0)) == (7.0, 7.0, 7.0)
    assert difference(np.full(3, 1.0), np.full(3, 3.0)) == (2.0, 2.0, 2.0)


def test_numbers_that_cannot_be_squared_have_no_interval() -> None:
    huge = np.array([1e300, -1e300, 1e299, 2e300])
    assert (
        np.isnan(interval(huge).low) and np.isnan(interval(np.tile(huge, 3)).low) and np.isfinite(interval(huge).value)
    )
    assert np.isnan(difference(huge, huge).low)
