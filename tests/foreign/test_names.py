"""A script's own metric names, translated wherever a run is read; the store keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.attempt.ending import Ending
from pipeline.callbacks.display import Display
from pipeline.callbacks.terminal import Terminal
from pipeline.compare.from_store import read
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment import watchdog
from pipeline.experiment.conclude import conclude
from pipeline.experiment.watchdog import Watchdog
from pipeline.experiment_file import merge, validate
from pipeline.foreign.names import Names, Source
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.verdict import Verdict
from pipeline.tracking import patience
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store

NAMES = {"score": "rollout/ep_rew_mean", "progress": {"metric": "time/total_timesteps", "of": 200}}


def config(names: dict[str, Any], **parameters: Any) -> ExperimentConfig:
    data = merge({"trainer": {"command": ["train"], "names": names, "parameters": parameters}}, [], "x")
    return validate(data, "x")


def test_sources_of_a_configuration() -> None:
    names = Names.of(config({**NAMES, "episodes": {"of": "{parameters.n}"}}, n=4)).sources
    assert names["progress"] == Source("time/total_timesteps", 200.0)
    assert names["score_window"] == Source("rollout/ep_rew_mean", weak=True)
    assert names["episodes"] == Source(None, 4.0)
    assert Names.read(Names.of(config(NAMES)).tag) == Names.of(config(NAMES))
    assert Names.of(ExperimentConfig()).tag is None and Names.read(None).sources == {}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("progress", {"of": 0}, "trainer.names.progress"),
        ("progress", {"of": "{parameters.m}"}, "unknown placeholder {parameters.m}"),
        ("progress", {"of": "many"}, "trainer.names.progress.of"),
        ("progress", {"of": "{parameters.zero}"}, "must be above 0"),
        ("progress", {"metrc": "x"}, "metrc"),
        ("score", 3, "trainer.names.score"),
        ("score", "", "trainer.names.score"),
        ("a b", "x", "trainer.names"),
    ],
)
def test_refused_in_one_line(name: str, given: Any, expected: str) -> None:
    with pytest.raises(BadInput) as refusal:
        config({name: given}, n=4, zero=0)
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


def attempt_with(store: Store, names: dict[str, Any], points: dict[str, list[tuple[int, float]]]) -> str:
    """An attempt's run with these points."""
    parent = store.start_parent(config(names))
    how: dict[str, Any] = {"rung": "v3", "number": 0, "diff": {}, "warm_start": None, "reason": ""}
    run_id = store.start_attempt(parent, config(names), **how)
    for name, series in points.items():
        for step, value in series:
            store.client.log_metric(run_id, name, value, step=step, timestamp=1000 + step)
    return run_id


def test_everything_that_reads_a_run_sees_the_names(empty_store: Store) -> None:
    rewards = [(step, 10.0 + step / 10) for step in range(0, 101, 10)]
    times = [(step, float(step)) for step in range(0, 101, 10)]
    run_id = attempt_with(empty_store, NAMES, {"rollout/ep_rew_mean": rewards, "time/total_timesteps": times})
    watch = Watchdog(empty_store, run_id, ())
    watch.poll()
    assert watch.latest["score"] == watch.latest["score_window"] == 20.0 and watch.latest["progress"] == 0.5
    history = empty_store.history(run_id, ["progress", "score", "absent"])
    assert history.series("progress")[1].tolist() == [step / 200 for step in range(0, 101, 10)]
    assert history.series("score")[1].tolist() == [value for _, value in rewards] and not len(
        history.series("absent")[0]
    )
    run = empty_store.run(run_id)
    assert isinstance(run, AttemptRun) and run.metrics["progress"] == 0.5 and run.metrics["score_window"] == 20.0
    night = read(empty_store)
    assert night.attempts.score[0] > 10 and night.attempts.best_score[0] == 20.0
    assert night.history(run_id, "score_window").value.tolist() == [value for _, value in rewards]
    assert "score" not in empty_store.client.get_run(run_id).data.metrics  # the store has the script's names alone


def test_progress_by_the_step(empty_store: Store) -> None:
    names = {"progress": {"of": 400}}
    run_id = attempt_with(empty_store, names, {"loss": [(100, 1.0), (200, 0.5)], "system/cpu": [(900, 1.0)]})
    assert empty_store.latest(run_id)["progress"] == (200, 0.5, 1200)
    _, both = empty_store.history(run_id, ["progress", "loss"]).aligned(["progress", "loss"])
    assert both["progress"].tolist() == [0.25, 0.5]
    run = empty_store.run(run_id)
    assert run is not None and run.metrics["progress"] == 0.5


def test_a_metric_that_has_the_name_stays_unless_another_is_named(empty_store: Store) -> None:
    logged = {"score": [(1, 1.0)], "score_window": [(1, 2.0)], "reward": [(1, 3.0)]}
    run_id = attempt_with(empty_store, {}, logged)
    assert empty_store.latest(run_id)["score_window"][1] == 2.0
    run_id = attempt_with(empty_store, {"score": "reward"}, logged)
    assert empty_store.latest(run_id)["score"][1] == 3.0 and empty_store.latest(run_id)["score_window"][1] == 2.0
    only_score = attempt_with(empty_store, {}, {"score": [(1, 1.0)]})
    assert empty_store.latest(only_score)["score_window"][1] == 1.0


@pytest.mark.parametrize(
    ("latest", "expected"),
    [
        ({"progress": 0.25}, "training, 25%\n"),
        ({"progress": 0.25, "score_window": 3.0}, "25%, score 3\n"),
        ({"score_window": 3.0}, "training, score 3\n"),
        ({"episodes": 7.0, "progress": 0.25}, "episode 7\n"),
        ({"episodes": 7.0}, "episode 7\n"),
        ({"loss": 7.0, "other": 0.25}, "training, loss 7, other 0.25\n"),
        ({"system/cpu": 7.0}, None),
    ],
)
def test_a_line_of_progress_from_whatever_is_known(
    latest: dict[str, float], expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    from fallbacks.ladder import Ladder

    display = Display(Terminal())
    display._config = config({})
    display.attempt_started(Ladder(config({})).first(), 0, "run")
    capsys.readouterr()
    display.progress(latest)
    said = capsys.readouterr().out
    assert expected in said if expected else said == ""


def test_a_name_whose_metric_is_never_logged_is_told_with_those_that_were(empty_store: Store) -> None:
    points = {"rollout/ep_rew_meen": [(1, 1.0)], "loss": [(1, 1.0)], "system/cpu": [(1, 1.0)]}
    run_id = attempt_with(empty_store, NAMES, points)
    watch = Watchdog(empty_store, run_id, ())
    expected = {
        "trainer.names.score": "metric rollout/ep_rew_mean was never logged; nearest: rollout/ep_rew_meen; logged were "
        "rollout/ep_rew_meen, loss",
        "trainer.names.progress": "metric time/total_timesteps was never logged; logged were loss, rollout/ep_rew_meen",
    }
    assert watch.never_met() == expected
    ending = Ending.now(Verdict(name="healthy"), 1.0)
    warnings = conclude(empty_store, run_id, ending, (), ()).warnings
    assert {each.rule: each.sentence() for each in warnings} == expected
    run = empty_store.run(run_id)
    assert isinstance(run, AttemptRun) and {each.rule for each in run.warnings} == set(expected)
    warnings = conclude(empty_store, run_id, Ending.now(Verdict(name="crash"), 1.0), (), ()).warnings
    assert not warnings


def test_a_name_is_told_of_after_some_reports_and_not_once_its_metric_is_there(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "REPORTS_UNTIL_JUDGED", 3)
    run_id = attempt_with(empty_store, {"score": "reward", "episodes": {"of": 4}}, {})
    watch = Watchdog(empty_store, run_id, ())
    told = []
    for step in range(5):
        empty_store.log_metrics(run_id, {"loss": 1.0}, step=step)
        watch.poll()
        told += watch.news()
    assert told == ["trainer.names.score: so far, metric reward was never logged; logged were loss"]
    empty_store.log_metrics(run_id, {"reward": 1.0}, step=9)
    assert watch.never_met() == {}


def test_a_name_is_given_as_the_script_spells_it() -> None:
    data = merge({"trainer": {"command": ["x"], "metrics": "csv", "names": {"score": "acc@1 (%)"}}}, [], "x")
    assert Names.of(validate(data, "x")).sources["score"].metric == "acc_1 ___"


def test_what_is_counted_from_all_metrics_is_no_sign_of_life(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which metrics a look asks decides how many points `progress` has: that is nothing new."""
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    names = {"progress": {"of": 100}, "score": "reward"}
    points = {"loss": [(1, 1.0), (2, 0.9), (3, 0.8)], "reward": [(10, 1.0)]}
    run_id = attempt_with(empty_store, names, points)
    watch = Watchdog(empty_store, run_id, RULE_SETS["generic"])
    for _ in range(130):
        now += 1.0
        watch.poll()
        watch.silence()
    assert watch.silence() > 120 and not watch.has_spoken_unseen() and watch.silence() > 120
