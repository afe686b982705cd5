"""Statistics and pictures of a study; each statistic is compared with another way to compute it."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from benchmarks import tuning as benchmark
from benchmarks.synthetic import SPACE
from pipeline.config import ExperimentConfig
from pipeline.experiment_file import load_experiment
from pipeline.health.history import History
from pipeline.preflight import not_accepted
from pipeline.tuning.figures import figures
from pipeline.tuning.objective import points, windowed_error
from pipeline.tuning.results import TrialCount, eta, importance, intervals, note, ranked, table, tuned_yaml
from pipeline.tuning.study import StudyPlan, StudySection
from pipeline.tuning.trials import DEPTH, ENDED, ERRORS, HEALTH, VALUES
from pipeline.tuning.validation import compare


def plan(**values: Any) -> StudyPlan:
    return StudyPlan(study=StudySection.model_validate({"space": SPACE, **values}), config=ExperimentConfig())


def study(count: int, **values: Any) -> optuna.Study:
    """A study of random trials; a third is unhealthy, and the others have three seeds with deviations of their own."""
    settings, rng = plan(**values).study, np.random.default_rng(1)
    made = optuna.create_study(direction=settings.objective.direction)
    for number in range(count):
        made.sampler = settings.make_sampler(number)
        trial = made.ask(settings.distributions)
        unhealthy = number % 3 == 2
        seeds = (10 * number + rng.normal(0, 2, size=settings.seeds)).tolist()
        told = {VALUES: [] if unhealthy else seeds, ERRORS: [0.5] * settings.seeds, DEPTH: int(unhealthy)}
        for key, value in {**told, ENDED: "pruned" if unhealthy else "complete"}.items():
            trial.set_user_attr(key, value)
        trial.set_constraint(HEALTH, float(unhealthy))
        if unhealthy:
            made.tell(trial, state=TrialState.PRUNED)
        else:
            made.tell(trial, float(np.mean(seeds)))
    return made


def test_random_trials_are_those_of_optuna_with_the_seed() -> None:
    """Whichever worker draws them: each trial has a sampler of its own here."""
    settings = plan(sampler="random", seed=7).study
    ours, theirs = optuna.create_study(), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    for number in range(5):
        ours.sampler = settings.make_sampler(number)
        assert ours.ask(settings.distributions).params == theirs.ask(settings.distributions).params


def test_interval_over_seeds_pools_the_deviation_between_them() -> None:
    """The pooled variance is that of a one-way analysis of variance: the mean square within the trials."""
    trials = study(9, seeds=3).get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    groups = np.array([trial.user_attrs[VALUES] for trial in complete])
    within = np.mean(groups.var(axis=1, ddof=1))
    half = stats.t.ppf(0.975, groups.size - len(groups)) * np.sqrt(within / 3)
    known = intervals(trials)
    assert known.keys() == {trial.number for trial in complete}
    for trial in complete:
        assert known[trial.number] == pytest.approx((trial.value - half, trial.value + half))


def test_interval_of_one_seed_is_that_of_its_games() -> None:
    trials = study(3).get_trials()
    assert intervals(trials)[0] == pytest.approx((trials[0].value - 0.98, trials[0].value + 0.98))
    assert 2 not in intervals(trials)  # unhealthy, without a value


def test_windowed_error_is_that_of_the_games_in_the_window() -> None:
    """For updates that report means of 1 – 6 games, the error is the deviation of a game divided by √games."""
    rng, errors, means = np.random.default_rng(0), [], []
    for _ in range(300):
        history, episodes = History(), 0
        for step in range(1, 60):
            games = int(rng.integers(1, 7))
            episodes += games
            history.add("episodes", step, episodes)
            history.add("score", step, float(rng.normal(20, 10, size=games).mean()))
        error = windowed_error(history, 100)
        assert error is not None
        errors.append(error)
        _, both = history.aligned(["score", "episodes"])
        inside = both["episodes"] > episodes - 100
        weights = np.diff(both["episodes"], prepend=0)[inside]
        means.append(float(np.average(both["score"][inside], weights=weights)))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1) == pytest.approx(1.0, rel=0.15)
    assert windowed_error(History({"score": [(1, 2.0)], "episodes": [(1, 5)]}), 100) is None


def test_points_do_not_depend_on_the_polls() -> None:
    """At each twentieth of the progress, the value is the metric's last one up to the step at which it was reached."""
    progress = [(step, step / 300) for step in range(10, 301, 10)]
    history = History({"progress": progress, "loss": [(step, float(step)) for step in range(7, 301, 7)]})
    found = points(history, "loss", 0)
    assert [percent for percent, _ in found] == list(range(5, 101, 5))
    assert found[0] == (5, 14.0)  # progress 5 % is logged at step 20, loss last at 14
    until = History({"progress": progress[:18], "loss": [(step, float(step)) for step in range(7, 181, 7)]})
    early = points(until, "loss", 0)
    assert early == found[: len(early)] and [*early, *points(history, "loss", early[-1][0])] == found


def test_best_is_feasible_and_in_the_direction() -> None:
    trials = study(9).get_trials()
    values = [trial.value for trial in ranked(trials, "maximize")]
    assert values == sorted(values, reverse=True) and len(values) == 6
    assert ranked(trials, "minimize")[0] is ranked(trials, "maximize")[-1]
    count = TrialCount.of(trials)
    assert (count.complete, count.unhealthy, count.done) == (6, 3, 9)
    rows = table(trials)
    assert list(rows["trial"]) == list(range(9)) and list(rows["feasible"]) == [True, True, False] * 3


def test_tuned_file_is_the_experiment_with_the_best_coefficients(tmp_path: Path) -> None:
    trials, made = study(9).get_trials(), plan()
    best = ranked(trials, "maximize")[0]
    path = tmp_path / "tuned.yaml"
    path.write_text(tuned_yaml(made, best, trials))
    tuned = load_experiment(path)
    assert tuned.with_values({"preflight.accept": ()}) == made.config.with_values(best.params)
    assert "learning_rate" in tuned.preflight.accept and not not_accepted(tuned)  # `ladder run` takes it
    assert f"trial {best.number}" in path.read_text() and "training.learning_rate: 0.0001 →" in path.read_text()


def test_figures_and_note_at_any_time() -> None:
    """They work before the first trial, with unhealthy trials alone, and later."""
    made = plan()
    for count, names in ((0, set()), (9, {"history.png", "slices.png", "importance.png"})):
        grown = study(count)
        shares = importance(grown)
        drawn = figures(made, grown.get_trials(), shares)
        assert drawn.keys() == names
        for figure in drawn.values():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            assert np.asarray(canvas.buffer_rgba()).std() > 5  # something is drawn
        assert set(shares) == (set(SPACE) if count else set())
    assert sum(importance(grown).values()) == pytest.approx(1.0)
    assert "No healthy trial" in note(made, [], {})
    text = note(made, grown.get_trials(), importance(grown))
    assert "| default | |" in text and text.count("\n| ") == 7 and "Importance: " in text
    unhealthy = [trial for trial in grown.get_trials() if trial.state == TrialState.PRUNED]
    assert figures(made, unhealthy, {}).keys() == {"history.png", "slices.png"}
    assert "No healthy trial" in note(made, unhealthy, {})


def test_eta_is_the_mean_of_the_trials_over_the_workers() -> None:
    def lasted(seconds: float) -> FrozenTrial:
        trial = optuna.trial.create_trial(value=1.0)
        trial.datetime_start = datetime(2026, 1, 1)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
        return trial

    assert eta([lasted(100), lasted(200)], missing=6, at_work=2) == timedelta(seconds=450)
    assert eta([], missing=6, at_work=2) is None and eta([lasted(1)], missing=6, at_work=0) is None


def test_gain_against_other_implementations() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 1, 8), rng.normal(0, 1, 7)
    gain = compare(x, y)
    statistic, p_value = stats.mannwhitneyu(x, y, method="exact")
    assert gain.probability == pytest.approx(statistic / (8 * 7)) and gain.p_value == pytest.approx(p_value, abs=1e-9)
    # At each end of the interval, so extreme a rank sum comes in 2.5 % of draws of that probability.
    for end, sign in ((gain.low, 1), (gain.high, -1)):
        shift = math.sqrt(2) * stats.norm.ppf(end)
        drawn = rng.normal(size=(40_000, 15)) + shift * (np.arange(15) < 8)
        wins = (drawn[:, :8, None] > drawn[:, None, 8:]).mean(axis=(1, 2))
        assert np.mean(sign * (wins - gain.probability) >= -1e-9) == pytest.approx(0.025, abs=0.004)


def test_interval_has_a_width_where_the_runs_do_not_overlap() -> None:
    lows = [compare(np.arange(count) + 100.0, np.arange(count) + 0.0).low for count in (4, 5, 6, 8)]
    assert lows == sorted(lows) and lows[0] > 0.5 and lows[-1] < 0.9


def test_gain_is_real_only_when_it_is_sure() -> None:
    assert compare([3.0, 4, 5, 6], [0.0, 1, 2, 2.5]).is_real
    assert not compare([3.0, 4, 5], [0.0, 1, 2]).is_real  # no overlap, but that happens by chance in 1 of 10
    assert not compare([0.0, 1, 2, 2.5], [3.0, 4, 5, 6]).is_real
    assert not compare([1.0, 5, 2, 6], [1.5, 4, 2.5, 5.5]).is_real
    same = compare([1.0, 1, 1, 1], [1.0, 1, 1, 1])
    assert (same.probability, same.low, same.high) == (0.5, 0.0, 1.0) and not same.is_real


@given(
    x=st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0, 4.0]), min_size=2, max_size=6),
    y=st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0, 4.0]), min_size=2, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_interval_excludes_a_half_exactly_where_the_test_is_significant(x: list[float], y: list[float]) -> None:
    gain, other = compare(x, y), compare(y, x)
    assert 0 <= gain.low <= gain.probability <= gain.high <= 1
    assert (gain.low > 0.5 or gain.high < 0.5) is (gain.p_value <= 0.05)
    assert (gain.low, gain.high) == pytest.approx((1 - other.high, 1 - other.low), abs=0.03)
    assert gain.is_real is (gain.low > 0.5)


def test_failed_runs_lose_against_all_others() -> None:
    gain = compare([1.0, 2, 3, 4, -np.inf], 5 * [-np.inf])
    assert gain.probability == pytest.approx((4 * 5 + 0.5 * 5) / 25) and gain.is_real
    assert "the best failed 1 of 5" in gain.sentence and "the default failed 5 of 5" in gain.sentence
    assert gain.described(-1.0)["tuned"] == [-1.0, -2.0, -3.0, -4.0, None]


def test_no_gain_is_seldom_taken_for_one() -> None:
    """Two equal configurations are compared two hundred times, with five seeds each."""
    rng = np.random.default_rng(5)
    assert np.mean([compare(rng.normal(size=5), rng.normal(size=5)).is_real for _ in range(200)]) <= 0.07


def test_benchmark_writes_every_seed_and_the_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tuning.json"
    monkeypatch.setattr("sys.argv", ["tuning", "--seeds", "2", "--budget", "14", "--out", str(out)])
    benchmark.main()
    written = json.loads(out.read_text())
    assert len(written["runs"]) == 4 and {run["sampler"] for run in written["runs"]} == {"tpe", "random"}
    for run in written["runs"]:
        assert len(run["best_so_far"]) == 14 and run["best_so_far"][-1] == pytest.approx(run["best"], abs=0.01)
        assert run["best"] <= written["optimum"] == pytest.approx(88.0) and 0 < run["unhealthy"] < 1
    assert 0 <= written["probability_of_improvement"][0] <= 1
