"""What the typed views say of runs in a real store."""

from __future__ import annotations

import json

import pytest

from pipeline.attempt.file import WarmStart
from pipeline.errors import InfrastructureFailure
from pipeline.experiment.series import Series
from pipeline.health.verdict import Evidence, Verdict
from pipeline.processes.owner import Owner, life_sign
from pipeline.tracking import tags
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun, Source, StudyRun, TrialRun
from pipeline.tracking.store import Store
from tests.conftest import small_config

EVIDENCE = Evidence(rule="load", metric="expert_usage_excess", values=(0.9, 0.95), threshold="> 0.73", onset_step=64)


def test_an_experiment(empty_store: Store) -> None:
    config, owner = small_config(training__seed=7, experiment__description="a note"), Owner.here(empty_store.root)
    run_id = empty_store.start_parent(config, {tags.OWNER: owner.model_dump_json(), **Series.of([7, 8]).tags})
    run = empty_store.find(run_id)
    assert isinstance(run, ExperimentRun)
    assert (run.run_id, run.kind, run.status, run.is_running, run.parent_id) == (
        (run_id, "experiment", "RUNNING", True, None)
    )
    assert (run.seed, run.note, run.experiment_name) == (7, "a note", config.experiment.name)
    assert json.loads(run.settings)["training"]["seed"] == 7 and "7, 8" in (run.series or "")
    assert run.owner == owner and run.last_sign is None and run.seconds == 0.0
    assert run.outcome is run.settled_rung is run.settled_run is run.end_time is None

    sign = life_sign()
    empty_store.set_tags(run_id, {tags.ALIVE: sign, tags.SECONDS: "12.50", tags.SETTLED_RUN: "x"})
    empty_store.end_parent(run_id, "healthy", "v3", None, "another note")
    (run,) = empty_store.parents()
    assert run.last_sign is not None and run.last_sign.isoformat(timespec="seconds") == sign and run.seconds == 12.5
    assert (run.outcome, run.settled_rung, run.settled_run, run.note) == ("healthy", "v3", "x", "another note")
    assert run.status == "FINISHED" and not run.is_running and (run.end_time or 0) >= run.start_time


def test_an_attempt(empty_store: Store) -> None:
    config = small_config()
    parent = empty_store.start_parent(config)
    start = WarmStart(checkpoint="x.pt", run_id="abc", episode=20)
    for number in (1, 0):
        empty_store.start_attempt(
            parent, config, rung="v3", number=number, diff={"a.b": [1, 2]}, warm_start=start if number else None,
            reason="a reason",
        )  # fmt: skip
    experiment = empty_store.run(parent)
    assert experiment is not None
    first, second = empty_store.attempts(experiment)
    assert (first.number, second.number, second.rung, second.reason) == (0, 1, "v3", "a reason")
    assert first.warm_start is None and second.warm_start == Source("abc", 20)
    assert second.diff == {"a.b": [1, 2]} and second.parent_id == parent and second.name == "1 v3"
    assert first.verdict is first.verdict_name is first.policy is first.model is None and first.warnings == ()

    verdict = Verdict(name="expert_collapse", evidence=(EVIDENCE,))
    warning = json.dumps([EVIDENCE.model_dump(mode="json", exclude={"values", "detail"})])
    empty_store.set_tags(first.run_id, {tags.WARNINGS: warning, tags.POLICY: "1.pt", tags.MODEL: "models:/m"})
    empty_store.end_attempt(first.run_id, verdict, "a summary")
    ended = empty_store.run(first.run_id)
    assert isinstance(ended, AttemptRun)
    assert ended.verdict == verdict and ended.verdict_name == "expert_collapse" and ended.status == "FAILED"
    assert ended.warnings == (EVIDENCE.model_copy(update={"values": ()}),)
    assert (ended.policy, ended.model) == ("1.pt", "models:/m") and ended.note.endswith("a summary")

    empty_store.set_tags(first.run_id, {tags.EVIDENCE: "cut o…"})
    damaged = empty_store.run(first.run_id)
    assert isinstance(damaged, AttemptRun) and damaged.verdict_name == "expert_collapse"
    with pytest.raises(ValueError):
        _ = damaged.verdict


def test_studies_trials_and_other_programs_runs(empty_store: Store) -> None:
    config = small_config()
    study = empty_store.start_run(config, "study", {tags.KIND: "study"})
    said = {tags.PARENT: study, tags.STUDY: "mine", tags.TRIAL: "3"}
    trials = [empty_store.start_run(config, kind, {tags.KIND: kind, **said}) for kind in ("trial", "validation")]
    foreign = empty_store.start_run(config, "foreign", {})
    assert isinstance(empty_store.run(study), StudyRun)
    for trial in map(empty_store.run, trials):
        assert isinstance(trial, TrialRun) and (trial.study_name, trial.number, trial.parent_id) == ("mine", 3, study)
    other = empty_store.run(foreign)
    assert type(other) is LadderRun and other.kind is None and other.name == "foreign"
    assert [run.run_id for run in empty_store.left_running()] == [study]
    assert empty_store.parents() == [] and empty_store.run("0" * 32) is None


def test_runs_that_only_claim_to_be_attempts_are_those_of_other_programs(empty_store: Store) -> None:
    parent = empty_store.start_parent(small_config())
    experiment = empty_store.find(parent)
    own = {tags.KIND: "attempt", tags.PARENT: parent}
    for more in ({}, {tags.NUMBER: "0"}, {tags.RUNG: "v3"}, {tags.NUMBER: "one", tags.RUNG: "v3"}):
        empty_store.client.create_run(experiment.experiment_id, tags={**own, **more})
    assert empty_store.attempts(experiment) == []
    made = empty_store.client.create_run(
        experiment.experiment_id,
        tags={**own, tags.NUMBER: "0", tags.RUNG: "v3", tags.DIFF: "[", tags.WARM_START: "[1]", tags.WARNINGS: "{}"},
    )
    (run,) = empty_store.attempts(experiment)
    assert run.run_id == made.info.run_id and (run.diff, run.warm_start, run.warnings, run.reason) == ({}, None, (), "")
    for name, text in ((tags.SECONDS, "long"), (tags.ALIVE, "now"), (tags.OWNER, "me")):
        empty_store.client.set_tag(parent, name, text)
    found = empty_store.find(parent)
    assert isinstance(found, ExperimentRun) and (found.seconds, found.last_sign, found.owner) == (0.0, None, None)


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_what_was_deleted_is_told_as_that(what: str, empty_store: Store) -> None:
    run_id = empty_store.start_parent(small_config())
    empty_store.check_active(run_id)
    experiment = empty_store.find(run_id).experiment_id
    if what == "run":
        empty_store.client.delete_run(run_id)
    else:
        empty_store.client.delete_experiment(experiment)
    with pytest.raises(InfrastructureFailure, match=f"run {run_id} was deleted in MLflow"):
        empty_store.check_active(run_id)
    empty_store.set_tags(run_id, {"x": "1"})  # what is said of a run restores it: no verdict is lost
    restored = empty_store.run(run_id)
    assert restored is not None and not restored.is_deleted
