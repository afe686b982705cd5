"""`ladder tune`, which reads like this:

open the study and its parent run in MLflow, or continue them
start the workers
until they are done:
    show the progress, replace killed workers, write down what has been found
close the runs that killed workers left open
write the last results
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from pipeline.attempt.folder import study_folder
from pipeline.config import difference
from pipeline.errors import (
    EXIT_EXHAUSTED,
    EXIT_HEALTHY,
    EXIT_INTERRUPTED,
    BadInput,
    InfrastructureFailure,
)
from pipeline.foreign.flags import text
from pipeline.launchers.local import PRELOADED
from pipeline.processes.owner import LIFE_SIGN_SECONDS, Owner, life_sign
from pipeline.tracking import tags
from pipeline.tracking.access import sqlite_uri, tracking_root, tracking_uri
from pipeline.tuning import validation
from pipeline.tuning.display import StudyDisplay
from pipeline.tuning.figures import figures
from pipeline.tuning.mlflow_runs import RUN, StudyStore, reconcile
from pipeline.tuning.pool import PATIENCE_SECONDS, PATIENCE_WITH_CLUSTER_SECONDS, WorkerPool
from pipeline.tuning.results import TrialCount, importance, intervals, note, ranked, table, tuned_yaml, with_interval
from pipeline.tuning.storage import open_storage, shown, storage_reachable, turn
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.worker import Assignment

PLAN, VALIDATION = "plan", "validation"
"""Attributes of the study in Optuna: its plan as JSON; a trial's number → the result of its validation. `RUN` names its
run in MLflow."""
_RESULTS_EVERY_SECONDS = 15.0


class Tuning:
    """One study, as this machine works on it.

    Raises:
        BadInput: the study in the storage has this name and another plan.
        InfrastructureFailure: the storage or the MLflow store is out of reach, or no worker can go on.
    """

    def __init__(self, plan: StudyPlan, display: StudyDisplay) -> None:
        self.plan, self.display = plan, display
        self.root = tracking_root(plan.config)
        uri = tracking_uri(plan.config)  # may refuse, so it comes before anything is written
        self.url = plan.study.storage or sqlite_uri(self.root / "optuna.db")
        with storage_reachable(self.url), turn(self.url):
            self.storage: RDBStorage = open_storage(self.url, plan.study.heartbeat_seconds)
            self.study = self._open(plan.name)
            self._compare_with_what_was_begun()
            self.store = StudyStore(uri, self.root)
            self.parent = self._parent_run()
            if not self.study.get_trials(deepcopy=False) and self._default_is_inside():
                self.study.enqueue_trial(plan.default)  # all other trials are compared with it
            self.study.set_user_attr(PLAN, plan.shown.model_dump_json(by_alias=True, exclude={"study": {"storage"}}))
        self.folder = study_folder(self.root, self.parent)
        self.folder.mkdir(parents=True, exist_ok=True)

    # The study in the storage

    def _open(self, name: str) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=self.storage,
            direction=self.plan.study.objective.direction,
            load_if_exists=True,
        )

    def _compare_with_what_was_begun(self) -> None:
        text = self.study.user_attrs.get(PLAN)
        if text is None:
            if self.study.get_trials(deepcopy=False):
                raise BadInput(
                    f"study {self.plan.name!r} in {shown(self.url)} is not of `ladder tune`: another name is needed"
                )
            return
        try:
            problem = self.plan.shown.incomparable(StudyPlan.model_validate_json(text).shown)
        except ValidationError:
            problem = "it was begun by another version"
        if problem is not None:
            raise BadInput(
                f"study {self.plan.name!r} in {shown(self.url)} has been begun, and its trials could not be compared: "
                f"{problem}; another study needs another experiment.name"
            )

    def _parent_run(self) -> str:
        known = self.study.user_attrs.get(RUN)
        if known is not None:
            if not self.store.has(known):
                raise BadInput(
                    f"study {self.plan.name!r} in {shown(self.url)} has its runs in another MLflow store than "
                    f"{self.store.uri}: all who work on it need the same one (MLFLOW_TRACKING_URI or tracking.uri)"
                )
            return str(known)
        said = {tags.STUDY: self.plan.name, tags.STUDY_STORAGE: shown(self.url)}
        run_id = self.store.start_study(self.plan.config, said, self.plan.to_yaml(shown(self.url)))
        self.study.set_user_attr(RUN, run_id)
        return run_id

    def _default_is_inside(self) -> bool:
        default = self.plan.default
        return all(dimension.contains(default[key]) for key, dimension in self.plan.study.space.items())

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study, as the storage has them."""
        with storage_reachable(self.url):
            return self.study.get_trials(deepcopy=False)

    # Tuning

    def tune(self) -> int:
        """Tunes until the budget is spent; returns the exit code."""
        study = self.plan.study
        self._sign_of_life()
        budget = f"{study.trials} trials or {study.hours:g} h, workers {study.workers}"
        objective = f"{study.objective.direction} {study.objective.metric}, seeds a trial {study.seeds}"
        where = (
            f"{budget}; {objective}; sampler {study.sampler}, pruner {study.pruner}",
            f"optuna {shown(self.url)}; MLflow {self.store.uri}, run {self.parent}",
            *self._shortened(),
        )
        self.display.study_started(self.plan, "study", study.trials, where, self.folder / "study.log")
        if had := TrialCount.of(self.trials()).done:
            self.display.say(f"goes on after {had} trials")
        try:
            finished = self._work(self._assignment("trial", self.plan.name), self.study, study.trials)
        except InfrastructureFailure:
            with contextlib.suppress(InfrastructureFailure):
                self.store.close(self.parent, "FAILED", {tags.OUTCOME: "error"}, {})
            raise
        best = self.publish()
        outcome = "interrupted" if not finished else "tuned" if best else "exhausted"
        status = "KILLED" if not finished else "FINISHED" if best else "FAILED"
        self.store.close(self.parent, status, {tags.OUTCOME: outcome}, {})
        more = [] if finished else ["interrupted; the same command goes on with it"]
        self.display.study_ended([*self._summary(best), *more])
        return EXIT_INTERRUPTED if not finished else EXIT_HEALTHY if best else EXIT_EXHAUSTED

    def _shortened(self) -> list[str]:
        """What a trial is, beside its base, in words."""
        base = f"base {self.plan.study.base}" if self.plan.study.base else "base: the file itself"
        if not self.plan.study.trial:
            return [base] if self.plan.study.base else []
        changes = difference(self.plan.config, self.plan.shortened)
        named = ", ".join(f"{key}={text(now)} (base {text(was)})" for key, (was, now) in changes.items())
        return [f"{base}; a trial has {named}"]

    def publish(self) -> FrozenTrial | None:
        """Writes down what has been found so far; returns the best trial, None if there is none."""
        trials = self.trials()
        shares = importance(self.study)
        best = next(iter(ranked(trials, self.plan.study.objective.direction)), None)
        texts = {"trials.csv": table(trials).to_csv(index=False)}
        if best is not None:
            texts["tuned.yaml"] = self._write_tuned(best, trials)
        self.store.publish(self.parent, texts, figures(self.plan, trials, shares))
        self.store.set_tags(self.parent, {tags.NOTE: note(self.plan, trials, shares)})
        count = TrialCount.of(trials)
        metrics = {
            f"trials/{name}": float(getattr(count, name)) for name in ("complete", "pruned", "unhealthy", "failed")
        }
        if best is not None and best.value is not None:
            metrics["best/value"] = best.value
            self.store.set_tags(self.parent, {tags.BEST_TRIAL: str(best.number)})
        self.store.log_metrics(self.parent, metrics, step=count.done)
        return best

    def _write_tuned(self, best: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        """Writes `tuned.yaml`, whole or not at all; returns its content."""
        with storage_reachable(self.url):
            validated = self.study.user_attrs.get(VALIDATION, {}).get(str(best.number))
        content = tuned_yaml(self.plan, best, trials, validated)
        unfinished = self.tuned_file.with_suffix(".tmp")
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(self.tuned_file)
        return content

    @property
    def tuned_file(self) -> Path:
        """The best configuration as an experiment's file."""
        return self.folder / "tuned.yaml"

    def _summary(self, best: FrozenTrial | None) -> list[str]:
        trials = self.trials()
        if best is None:
            return [f"{TrialCount.of(trials)}; no healthy trial has come to its end, so there is no best one"]
        known = intervals(trials)
        lines = [f"{TrialCount.of(trials)}", f"best: trial {best.number}, {with_interval(best, known)}"]
        lines += [
            f"  {key} = {value:.4g}" if isinstance(value, float) else f"  {key} = {value}"
            for key, value in best.params.items()
        ]
        return [
            *lines,
            f"as an experiment: ladder run {self.tuned_file}",
            "the best of many is partly the luckiest; on fresh seeds: ladder tune … --validate 6",
        ]

    # Validating

    def validate(self, count: int) -> int:
        """Runs the best configuration and the default on `count` fresh seeds each; returns the exit code.

        Raises:
            BadInput: the study has no healthy trial yet, or the best is the base itself.
        """
        study = self.plan.study
        best = next(iter(ranked(self.trials(), study.objective.direction)), None)
        if best is None:
            raise BadInput(
                f"--validate: the study {self.plan.name!r} has no healthy trial to validate yet; `ladder tune` first"
            )
        if best.params == self.plan.default:
            raise BadInput(
                f"--validate: trial {best.number}, the best of the study {self.plan.name!r}, has the base's own "
                "coefficients, so there is no gain to validate; more trials: study.trials"
            )
        name = validation.study_name(self.plan, best)
        with storage_reachable(self.url), turn(self.url):
            again = self._open(name)
            validation.enqueue(again, self.plan, count)
        where = (
            f"trial {best.number} and the default, {count} fresh seeds each; optuna {name!r} in {shown(self.url)}",
        )
        self.display.study_started(self.plan, "validation", 2 * count, where, self.folder / "study.log")
        finished = self._work(self._assignment("validation", name, best.params), again, 2 * count)
        direction = study.objective.direction
        found = validation.results(
            again.get_trials(deepcopy=False), direction, validation.fresh_seeds(self.plan, count)
        )
        missing = 2 * count - sum(map(len, found.values()))
        spent = f"study.hours={study.hours:g} spent, {missing} of {2 * count} runs are missing"
        more = [f"{spent}; the same command goes on"] if finished and missing else []
        if min(map(len, found.values())) < 2:
            self.display.study_ended(["too few runs came to their end to compare", *more])
            return EXIT_EXHAUSTED if finished else EXIT_INTERRUPTED
        gain = validation.compare(found[validation.TUNED], found[validation.DEFAULT])
        content = {"trial": best.number, **gain.described(1.0 if direction == "maximize" else -1.0)}
        self.store.publish(self.parent, {"validation.json": json.dumps(content, indent=2)}, {})
        self.store.set_tags(self.parent, {tags.VALIDATION: gain.sentence})
        with storage_reachable(self.url):
            known = self.study.user_attrs.get(VALIDATION, {})
            self.study.set_user_attr(VALIDATION, {**known, str(best.number): gain.sentence})
        self._write_tuned(best, self.trials())
        self.store.publish(self.parent, {"tuned.yaml": self.tuned_file.read_text(encoding="utf-8")}, {})
        self.display.study_ended([gain.sentence, *more])
        return EXIT_HEALTHY if finished else EXIT_INTERRUPTED

    # Workers

    def _assignment(
        self, kind: Literal["trial", "validation"], name: str, best: dict[str, Any] | None = None
    ) -> Assignment:
        return Assignment(
            plan=self.plan,
            study_name=name,
            url=self.url,
            parent=self.parent,
            kind=kind,
            deadline=time.time() + 3600 * self.plan.study.hours,
            best=best or {},
        )

    def _work(self, assigned: Assignment, study: optuna.Study, total: int) -> bool:
        """Has the workers do what is left of `total` trials; returns False if the user asked to stop."""
        count = min(self.plan.study.workers, total)
        patience = PATIENCE_SECONDS if self.plan.config.launcher.kind == "local" else PATIENCE_WITH_CLUSTER_SECONDS
        text = assigned.model_dump_json(by_alias=True)
        pool = WorkerPool(count, text, self.folder, self._say, self._preloaded(), patience)
        written, had = time.monotonic(), TrialCount.of(study.get_trials(deepcopy=False)).done

        def show(at_work: int) -> None:
            nonlocal written, had
            if assigned.kind == "trial" and time.monotonic() - self._signed > LIFE_SIGN_SECONDS:
                self._sign_of_life()
            with storage_reachable(self.url):
                trials = study.get_trials(deepcopy=False)
            self.display.study_progress(trials, at_work, assigned.deadline)
            done = TrialCount.of(trials).done
            due = done != had and time.monotonic() - written > _RESULTS_EVERY_SECONDS
            if assigned.kind == "trial" and due:
                self.publish()
                written, had = time.monotonic(), done

        def on_poll(at_work: int) -> None:
            with contextlib.suppress(InfrastructureFailure):  # the workers decide how long a failure is waited out
                show(at_work)

        try:
            finished = pool.run(on_poll)
            on_poll(0)  # shows what ended after the last poll
            return finished
        finally:
            reconcile(self.store, self.parent, assigned.study_name, study.get_trials(deepcopy=False))

    def _preloaded(self) -> tuple[str, ...]:
        """What the workers load, beside their own module: with torch in them, they fork their trainers themselves.

        Where the trainers are jobs of a cluster, the workers stay small: as many as there are trials at a time.
        """
        config = self.plan.config
        own = config.trainer.command is None and config.launcher.kind == "local"
        return ("pipeline.tuning.experiment", *(PRELOADED if own else ()))

    def _sign_of_life(self) -> None:
        """Marks the study's run as RUNNING and owned by this process.

        If every process that tunes the study dies, the next command sees that the owner is dead, and closes the run.
        """
        owner = Owner.here(self.root).model_dump_json()
        self.store.set_running(self.parent, {tags.OWNER: owner, tags.ALIVE: life_sign()})
        self._signed = time.monotonic()

    def _say(self, news: str) -> None:
        self.display.say(news, markup=False)
