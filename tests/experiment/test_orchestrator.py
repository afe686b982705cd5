"""What the orchestrator tells its callbacks, and what they can ask of it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from fallbacks.ladder import Plan
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.callbacks.callback import Callback, ExperimentEnded, ExperimentStarted
from pipeline.config import ExperimentConfig
from pipeline.errors import InfrastructureFailure
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.health.verdict import Evidence
from pipeline.launchers.exit import Exit
from pipeline.preflight import not_accepted
from pipeline.tracking.store import Store
from tests.conftest import small_config


class Recorder(Callback):
    """Notes what it is told; asks for an end when the attempt of this number starts."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[str] = []
        self._stop_at = stop_at

    def experiment_started(self, event: ExperimentStarted) -> None:
        self.told.append(f"started, nested {event.nested}")
        self._stop = event.stop

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self.told.append(f"attempt {number} on {plan.rung.name}")
        if number == self._stop_at:
            self._stop("enough")

    def progress(self, latest: Mapping[str, float]) -> None:
        self.told.append("progress")

    def warning(self, evidence: Evidence) -> None:
        self.told.append(f"warning {evidence.rule}")

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        self.told.append(f"attempt {summary.attempt} {summary.verdict}")

    def experiment_ended(self, event: ExperimentEnded) -> None:
        self.told.append(f"{event.outcome}: {event.reason}; resumable {event.resume is not None}")

    def message(self, text: str, *, error: bool = False) -> None:
        self.told.append(text)

    def close(self) -> None:
        self.told.append("closed")


class Job:
    """A trainer that has ended; it has logged nothing."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "trainer.log"
        self.log.touch()

    def wait(self, seconds: float) -> Exit:
        return Exit.of(-signal.SIGSEGV, self.log, 0)

    waiting, place, late_seconds = None, "here", 0.0

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class FailingLauncher:
    """Every trainer crashes at once."""

    def warm_up(self) -> None: ...

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Job:
        return Job(folder)

    def attach(self, attempt: Path) -> None:
        return None

    def remains(self, attempt: Path) -> Literal["nothing"]:
        return "nothing"

    def end_remains(self, attempt: Path) -> int:
        return 0

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("stop_at", "end"),
    [
        (
            None,
            [
                *("attempt 0 on v3", "attempt 0 crash", "attempt 1 on freeze_gat", "attempt 1 crash"),
                "exhausted: no rung is left; resumable False",
            ],
        ),
        (
            1,
            [
                *("attempt 0 on v3", "attempt 0 crash", "attempt 1 on freeze_gat", "attempt 1 interrupted"),
                "interrupted: enough; resumable True",
            ],
        ),
    ],
    ids=["to the end", "stopped by a callback"],
)
def test_callbacks_hear_everything_in_order_and_can_ask_for_the_end(
    stop_at: int | None, end: list[str], empty_store: Store
) -> None:
    config = small_config(ladder__rungs=["v3", "freeze_gat"], budget__retries=0)
    first, second = Recorder(stop_at), Recorder()
    outcome = Orchestrator(config, empty_store, FailingLauncher(), (first, second)).run().outcome
    assert first.told == second.told == ["started, nested False", *end, "closed"]
    (parent,) = empty_store.parents()
    assert parent.outcome == outcome == end[-1].split(":")[0]


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        ({}, None),
        ({"training__learning_rate": 1e-3, "preflight__accept": ["learning_rate", "encoder"]}, "learning_rate"),
        (
            {"policy__gat_layers": 3, "training__max_grad_norm": 9.0, "preflight__accept": ["encoder", "clipping"]},
            "clipping, encoder",
        ),
    ],
)
def test_what_was_accepted_is_a_tag_of_the_parent(changes: dict[str, Any], tag: str | None, empty_store: Store) -> None:
    """Of what an experiment accepts, that in which it differs. The file of an attempt accepts its rung as well."""
    config = small_config(ladder__rungs=["v3", "freeze_gat"], budget__retries=0, **changes)
    Orchestrator(config, empty_store, FailingLauncher()).run()
    (parent,) = empty_store.parents()
    assert parent.entity.data.tags.get("ladder.accepted") == tag
    frozen = empty_store.attempts(parent)[-1]
    file = empty_store.read_text(frozen.run_id, "experiment.yaml")
    assert file is not None and not not_accepted(ExperimentConfig.model_validate(yaml.safe_load(file)))


def test_an_experiment_under_another_programs_run_leaves_that_run_alone(empty_store: Store) -> None:
    config = small_config(ladder__rungs=["v3"], budget__retries=0)
    parent = empty_store.start_run(config, "a study's trial", {"ladder.kind": "trial"})
    recorder = Recorder()
    Orchestrator(config, empty_store, FailingLauncher(), (recorder,), parent=parent).run()
    assert recorder.told[0] == "started, nested True" and "resumable False" in recorder.told[-2]
    run = empty_store.client.get_run(parent)
    assert run.info.status == "RUNNING" and "ladder.outcome" not in run.data.tags


@pytest.mark.parametrize("nested", [False, True])
def test_an_attempt_that_cannot_begin_is_not_left_running(
    nested: bool, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, describe, runs = small_config(ladder__rungs=["v3"]), empty_store.describe, []
    parent = empty_store.start_run(config, "a study's trial", {"ladder.kind": "trial"}) if nested else None

    def refused(run_id: str, of: ExperimentConfig) -> None:
        runs.append(run_id)
        if len(runs) > (0 if nested else 1):
            raise InfrastructureFailure("no room for artifacts")
        describe(run_id, of)

    monkeypatch.setattr(empty_store, "describe", refused)
    with pytest.raises(InfrastructureFailure, match="no room"):
        Orchestrator(config, empty_store, FailingLauncher(), parent=parent).run()
    attempt = empty_store.client.get_run(runs[-1])
    assert (attempt.info.status, attempt.data.tags["ladder.verdict"]) == ("FAILED", "crash")
