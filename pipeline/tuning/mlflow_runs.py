"""The runs of a study: its parent run, a nested run for each trial, and statuses that agree with Optuna's.

Optuna is told first, MLflow after it. `reconcile` does what a kill leaves undone between the two, so a run is closed
with nothing but what the trial in Optuna says.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.choose import launcher_of
from pipeline.secrets import without_passwords
from pipeline.tracking import tags
from pipeline.tracking.runs import LadderRun, TrialRun
from pipeline.tracking.store import Store
from pipeline.tuning.trials import DEPTH, FINISHED, REASON, VALUES, cut_off, feasible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN, LINK = "mlflow.run_id", "mlflow.link"
"""Optuna's attributes of a trial: the id of its run, and where the UI shows it. The study has the first, too."""
UI = "http://127.0.0.1:5000"
DASHBOARD = "http://127.0.0.1:8080"
"""Where `make ui` and `optuna-dashboard` answer by default."""


class StudyStore(Store):
    """The MLflow store, with what a study says to it."""

    def start_study(self, config: ExperimentConfig, said: Mapping[str, str], plan: str) -> str:
        """The study's parent run: the one that has these tags, or a new one."""
        experiment = self.experiment_id(config.experiment.name)
        same = " and ".join(f"tags.`{key}` = '{value}'" for key, value in said.items())
        found = self._search([experiment], f"tags.`{tags.KIND}` = 'study' and {same}")
        if found:
            return found[0].run_id
        run_id = self.start_run(config, f"{config.experiment.name} study", {tags.KIND: "study", **said})
        self.publish(run_id, {"study.yaml": plan}, {})
        return run_id

    def has(self, run_id: str) -> bool:
        """Whether there is a run of this id that has not been deleted."""
        return bool(self._search(self._experiments(), f"attributes.run_id = '{run_id}'"))

    def set_running(self, run_id: str, said: Mapping[str, str]) -> None:
        """Sets tags first, then the status, and deletes an earlier outcome. A second call changes nothing."""
        self.set_tags(run_id, said)

        def again() -> None:
            self.client.update_run(run_id, status="RUNNING")
            if tags.OUTCOME in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, tags.OUTCOME)

        self._ask(again)

    def start_trial(
        self, parent: str, config: ExperimentConfig, name: str, kind: str, said: Mapping[str, str]
    ) -> tuple[str, str]:
        """Starts a nested run for a trial. Returns its id, and where the UI shows it."""
        run_id = self.start_run(config, name, {tags.PARENT: parent, tags.KIND: kind, **said})
        base = without_passwords(self.uri.rstrip("/")) if self.uri.startswith("http") else UI
        return run_id, f"{base}/#/experiments/{self.experiment_id(config.experiment.name)}/runs/{run_id}"

    def close(self, run_id: str, status: str, said: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Ends a run with its last metrics and tags."""
        self.log_metrics(run_id, metrics)
        self.set_tags(run_id, said)
        self._ask(partial(self.client.set_terminated, run_id, status))

    def running_under(self, parent: str) -> list[LadderRun]:
        """The runs nested directly in this one that have not been closed, also where a trainer says otherwise."""
        nested, experiments = f"tags.`{tags.PARENT}` = '{parent}'", self._experiments()
        open_attempts = f"tags.`{tags.KIND}` = 'attempt' and tags.`{tags.VERDICT}` IS NULL"
        found = [
            run
            for each in ("attributes.status = 'RUNNING'", open_attempts)
            for run in self._search(experiments, f"{nested} and {each}")
        ]
        return list({run.run_id: run for run in found}.values())

    def publish(self, run_id: str, texts: Mapping[str, str], figures: Mapping[str, Figure]) -> None:
        """Logs artifacts by name, in place of older ones."""
        for name, text in texts.items():
            self.log_text(run_id, text, name)
        for name, figure in figures.items():
            self.log_figure(run_id, figure, name)


def opening_tags(study_id: int, study_name: str, number: int, params: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a trial's run has from its first moment."""
    return {
        tags.STUDY: study_name,
        tags.TRIAL: str(number),
        tags.TRIAL_LINK: f"{DASHBOARD}/dashboard/studies/{study_id}/trials?numbers={number}",
        tags.TRIAL_STATE: TrialState.RUNNING.name,
        **{
            f"{tags.COEFFICIENT}{key}": f"{value:.6g}" if isinstance(value, float) else str(value)
            for key, value in params.items()
        },
    }


def close_trial(store: StudyStore, run_id: str, trial: FrozenTrial) -> None:
    """Ends the run of a finished trial, and the attempts that are left RUNNING under it, as Optuna has it.

    A trainer on a cluster outlives its worker, so it is ended here.
    """
    for attempt in store.running_under(run_id):
        file = AttemptFolder.of(store.root, attempt.run_id).file
        with contextlib.closing(launcher_of(file)) as launcher:
            launcher.end_remains(file)
        detail = {"reason": "its worker was killed"}
        store.end_attempt(
            attempt.run_id,
            Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail=detail),)),
        )
    reason = trial.user_attrs.get(REASON) or "interrupted; to be done again"
    value = trial.value if trial.state != TrialState.FAIL else None
    depth = trial.user_attrs.get(DEPTH)
    said = {
        tags.TRIAL_STATE: trial.state.name,
        tags.TRIAL_VALUE: "" if value is None else f"{value:.6g}",
        tags.TRIAL_VALUES: json.dumps(trial.user_attrs.get(VALUES, [])),
        tags.FEASIBLE: str(feasible(trial)).lower() if trial.state != TrialState.FAIL else "",
        tags.TRIAL_DEPTH: "" if depth is None else str(depth),
        tags.NOTE: f"**{trial.state.name}** {reason}",
    }
    metrics = {} if value is None else {"value": value, "depth": float(depth or 0)}
    store.close(run_id, status(trial), {key: text for key, text in said.items() if text}, metrics)


def status(trial: FrozenTrial) -> str:
    """MLflow's status that says the same as a finished trial's state.

    FINISHED: it came to its end. FAILED: the training failed (pruned, infeasible), or could not be done. KILLED: the
    pruner or an interruption ended it.
    """
    if trial.state == TrialState.COMPLETE:
        return "FINISHED"
    if trial.state == TrialState.PRUNED:
        return "KILLED" if feasible(trial) else "FAILED"
    return "KILLED" if cut_off(trial) else "FAILED"


def reconcile(store: StudyStore, parent: str, study_name: str, trials: Iterable[FrozenTrial]) -> None:
    """Closes the runs of trials that are over in Optuna only: their worker was killed before it told MLflow."""
    by_number = {trial.number: trial for trial in trials}
    for run in store.running_under(parent):
        if not isinstance(run, TrialRun) or run.study_name != study_name or run.number is None:
            continue
        trial = by_number.get(run.number)
        if trial is not None and trial.state in FINISHED:
            close_trial(store, run.run_id, trial)
