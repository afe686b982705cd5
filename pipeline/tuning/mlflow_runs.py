"""The MLflow side of a study: its parent run, a nested run for each trial, and statuses that agree with Optuna's.

Optuna is told first, MLflow after it; what a kill leaves undone between the two, `reconcile` does. So a run is closed
with nothing but what the trial in Optuna says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.store import Store
from pipeline.tuning.trials import DEPTH, FINISHED, REASON, VALUES, cut_off, feasible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN, LINK = "mlflow.run_id", "mlflow.link"
"""Attributes of a trial: its run, and where the UI shows it."""
UI = "http://127.0.0.1:5000"
DASHBOARD = "http://127.0.0.1:8080"
"""Where `make ui` and `optuna-dashboard` answer, unless told otherwise."""


class StudyStore(Store):
    """The MLflow store, with what a study says to it."""

    def start_study(self, config: ExperimentConfig, tags: Mapping[str, str], plan: str) -> str:
        """The study's parent run: the one that has these tags, RUNNING again, or a new one."""
        experiment = self.experiment_id(config.experiment.name)
        same = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._search([experiment], f"tags.`ladder.kind` = 'study' and {same}")
        if found:
            return str(found[0].info.run_id)
        run_id = self.start_run(config, f"{config.experiment.name} study", {"ladder.kind": "study", **tags})
        self.publish(run_id, {"study.yaml": plan}, {})
        return run_id

    def has(self, run_id: str) -> bool:
        return bool(self._search(self._experiments(), f"attributes.run_id = '{run_id}'"))

    def set_running(self, run_id: str, tags: Mapping[str, str]) -> None:
        """With these tags first, and without what was said at an earlier end; the same again changes nothing."""
        self.set_tags(run_id, tags)

        def again() -> None:
            self.client.update_run(run_id, status="RUNNING")
            if "ladder.outcome" in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, "ladder.outcome")

        self._ask(again)

    def start_trial(
        self, parent: str, config: ExperimentConfig, name: str, kind: str, tags: Mapping[str, str]
    ) -> tuple[str, str]:
        """A nested run for a trial: (its id, where the UI shows it)."""
        run_id = self.start_run(config, name, {"mlflow.parentRunId": parent, "ladder.kind": kind, **tags})
        base = self.uri.rstrip("/") if self.uri.startswith("http") else UI
        return run_id, f"{base}/#/experiments/{self.experiment_id(config.experiment.name)}/runs/{run_id}"

    def close(self, run_id: str, status: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        self.log_metrics(run_id, metrics)
        self.set_tags(run_id, tags)
        self._ask(partial(self.client.set_terminated, run_id, status))

    def running_under(self, parent: str) -> list[Any]:
        """Runs nested directly in this one that have not been closed."""
        nested = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        return self._search(self._experiments(), nested)

    def publish(self, run_id: str, texts: Mapping[str, str], figures: Mapping[str, Figure]) -> None:
        """Artifacts by name, in place of older ones."""
        for name, text in texts.items():
            self.log_text(run_id, text, name)
        for name, figure in figures.items():
            self.log_figure(run_id, figure, name)


def opening_tags(study_id: int, study_name: str, number: int, params: Mapping[str, Any]) -> dict[str, str]:
    """Of a trial's run, from its first moment on."""
    return {
        "optuna.study": study_name,
        "optuna.trial": str(number),
        "optuna.link": f"{DASHBOARD}/dashboard/studies/{study_id}/trials?numbers={number}",
        "optuna.state": TrialState.RUNNING.name,
        **{
            f"optuna.param.{key}": f"{value:.6g}" if isinstance(value, float) else str(value)
            for key, value in params.items()
        },
    }


def close_trial(store: StudyStore, run_id: str, trial: FrozenTrial) -> None:
    """Ends the run of a finished trial, and what is left RUNNING under it, as Optuna has it."""
    for attempt in store.running_under(run_id):
        detail = {"reason": "its worker was killed"}
        store.end_attempt(
            attempt.info.run_id,
            Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail=detail),)),
        )
    reason = trial.user_attrs.get(REASON) or "interrupted; queued again"
    value = trial.value if trial.state != TrialState.FAIL else None
    depth = trial.user_attrs.get(DEPTH)
    tags = {
        "optuna.state": trial.state.name,
        "optuna.value": "" if value is None else f"{value:.6g}",
        "optuna.values": json.dumps(trial.user_attrs.get(VALUES, [])),
        "optuna.feasible": str(feasible(trial)).lower() if trial.state != TrialState.FAIL else "",
        "ladder.depth": "" if depth is None else str(depth),
        "mlflow.note.content": f"**{trial.state.name}** {reason}",
    }
    metrics = {} if value is None else {"value": value, "depth": float(depth or 0)}
    store.close(run_id, status(trial), {key: text for key, text in tags.items() if text}, metrics)


def status(trial: FrozenTrial) -> str:
    """MLflow's status that says the same as a finished trial's state.

    FINISHED: it came to its end. FAILED: the training failed (pruned, infeasible), or could not be done. KILLED: the
    pruner ended it, or somebody did.
    """
    if trial.state == TrialState.COMPLETE:
        return "FINISHED"
    if trial.state == TrialState.PRUNED:
        return "KILLED" if feasible(trial) else "FAILED"
    return "KILLED" if cut_off(trial) else "FAILED"


def reconcile(store: StudyStore, parent: str, study_name: str, trials: Iterable[FrozenTrial]) -> None:
    """Closes the runs of trials that are over: a kill between Optuna and MLflow, or of the whole worker."""
    by_number = {str(trial.number): trial for trial in trials}
    for run in store.running_under(parent):
        trial = by_number.get(run.data.tags.get("optuna.trial", ""))
        if run.data.tags.get("optuna.study") == study_name and trial is not None and trial.state in FINISHED:
            close_trial(store, run.info.run_id, trial)
