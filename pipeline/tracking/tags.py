"""The names of all tags, each in this one place. What a tag says is read in :mod:`pipeline.tracking.runs`."""

from __future__ import annotations

# Every run

KIND = "ladder.kind"
"""`experiment`, `attempt`, `study`, `trial` or `validation`. A run without it belongs to another program."""
KEY = "ladder.key"
"""A random word. It finds a run again where the answer with its id was lost with the connection."""
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
"""Markdown that the UI shows as the run's description."""
SOURCE_NAME, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
NOT_STORED = "ladder.not_stored"
"""A line for each artifact, metric or param that the store has not taken: its name, and why."""
LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"
"""JSON: the tables that the UI can show."""

# Experiments and studies

OUTCOME = "ladder.outcome"
OWNER = "ladder.owner"
"""JSON: :class:`pipeline.processes.owner.Owner`."""
ALIVE = "ladder.alive"
"""Time of the last sign of life, in ISO format."""
SECONDS = "ladder.seconds"
"""Seconds that the experiment has taken so far, without the time for which no process ran it."""
SETTINGS = "ladder.settings"
"""JSON: the configuration, without what is default. A long one goes on in `ladder.settings.1` and so on."""
PLACE = "ladder.place"
"""JSON: the working folder in which the experiment began, and the files of it that its commands name."""
SERIES = "ladder.series"
"""JSON: key and seeds of the series that the experiment belongs to."""
QUALITY = "ladder.quality"
"""`above_random`, `as_random`, `below_random` or `unknown`: its score beside random play's. Attempts have it too."""
SCORE = "ladder.score"
"""Both scores with their 95 % intervals, in words; of attempts."""
ACCEPTED = "ladder.accepted"
"""The items of the brief's checklist from which the experiment differs on purpose, with commas between them."""
SETTLED_RUNG, SETTLED_RUN = "ladder.settled_rung", "ladder.settled_run"

# Attempts

RUNG = "ladder.rung"
REMEDY = "ladder.remedy"
"""The remedy that was tried on the rung. An attempt without one has no such tag."""
NUMBER = "ladder.attempt"
REASON = "ladder.reason"
"""Why the ladder chose this rung or remedy."""
DIFF = "ladder.diff"
"""JSON: dotted key → [value of the experiment, value of the attempt]."""
WARM_START = "ladder.warm_start"
"""JSON: run id and episode of the checkpoint; or `scratch`."""
COMMAND = "ladder.command"
"""The command of a trainer of the user's own, filled, as one would type it."""
NAMES = "ladder.names"
"""JSON: :class:`pipeline.foreign.names.Names`."""
PLACE_OF_JOB = "ladder.job"
"""JSON: what the attempt waits for, or where it is at work (`said`), whether it `waits`, and `since` when."""
VERDICT, EVIDENCE = "ladder.verdict", "ladder.evidence"
WARNINGS = "ladder.warnings"
"""JSON: a list of evidence, without values and detail."""
POLICY = "ladder.policy"
"""Path of the newest checkpoint of a healthy attempt."""
MODEL = "ladder.model"
"""URI of the logged model."""
SEED = "ladder.seed"
"""`training.seed` of an attempt under a trial."""

# Studies and trials

STUDY, STUDY_STORAGE, BEST_TRIAL = "optuna.study", "optuna.storage", "optuna.best"
VALIDATION = "ladder.validation"
"""A sentence: what the best trial gains over the default on fresh seeds."""
TRIAL, TRIAL_LINK, TRIAL_STATE = "optuna.trial", "optuna.link", "optuna.state"
TRIAL_VALUE, TRIAL_VALUES, FEASIBLE = "optuna.value", "optuna.values", "optuna.feasible"
TRIAL_DEPTH = "ladder.depth"
"""Attempts whose training failed before one held."""
COEFFICIENT = "optuna.param."
"""Beginning of the name; the coefficient's key follows."""

# MLflow's experiments

EXPERIMENT_KIND = "mlflow.experimentKind"
"""Which of its two faces the UI shows."""
PRIMARY_METRIC, PRIMARY_METRIC_RISES = (
    "mlflow.experiment.primaryMetric.name",
    "mlflow.experiment.primaryMetric.greaterIsBetter",
)
"""Which metric the UI's table shows first."""
VIEW = "mlflow.sharedViewState."
"""Before the key of a shared view: which columns the UI's table shows, in what order."""
