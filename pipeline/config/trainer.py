"""The section `trainer`: a training script of the user's own."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.section import Command, NonNegative, Positive, Section, refuse_what_json_cannot_hold
from pipeline.health.rule import Name


def _words(value: Any) -> Any:
    """A command as YAML has it: numbers are words too."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"must be a list of words, such as [python, train.py, --epochs, 3], not {value!r}")
    for word in value:
        if isinstance(word, bool) or not isinstance(word, str | int | float):
            raise ValueError(f"words are texts or numbers, not {word!r}; put it in quotes")
    return tuple(map(str, value))


class NamedMetric(Section):
    """A metric of a script's, scaled: `{metric: time/total_timesteps, of: 500000}`."""

    metric: Annotated[str, Field(min_length=1)] | None = None
    """Default: the step with which metrics are logged."""
    of: Positive | str = 1.0
    """Divides it. A number, or a placeholder, such as `{parameters.total_timesteps}`."""


def _by_name(key: str) -> BeforeValidator:
    """A section that may also be written as the value of one of its keys alone."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class MetricsSource(Section):
    """Where a script's metrics come from: `csv`, or `{kind: csv, path: "logs/*.csv", step: epoch}`."""

    kind: Literal["mlflow", "tensorboard", "csv", "jsonl"] = "mlflow"
    """`mlflow`: it logs to MLflow itself, or to `metrics.jsonl` in its folder. Otherwise its files are read."""
    path: Annotated[str, Field(min_length=1)] | None = None
    """Which files: a pattern, relative to the attempt's folder or to the folder in which the script runs. Default: all
    of the kind in the attempt's folder; of the other, those with the usual names."""
    step: Annotated[str, Field(min_length=1)] | None = None
    """Column or key of the step. Default: the first of the usual names that is there, else the number of the row."""


BY_TIME = "mtime"
PRESETS = {
    "sb3": {"pattern": "**/*_steps.zip", "step": r"_(\d+)_steps"},
    "lightning": {"pattern": "**/*.ckpt", "step": r"step=(\d+)"},
    "huggingface": {"pattern": "**/checkpoint-*", "step": r"checkpoint-(\d+)$"},
}
"""Where libraries write their checkpoints by default."""


def _preset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"unknown preset {value!r}; allowed: {', '.join(PRESETS)}, or {{pattern: …, step: …}}")
    return PRESETS[value]


class CheckpointSource(Section):
    """The checkpoints that a script writes of itself: `{pattern: "ckpts/*.zip", step: "_([0-9]+)"}`."""

    pattern: Annotated[str, Field(min_length=1)]
    """Files or folders, relative to the attempt's folder or to the one in which the script runs."""
    step: str = BY_TIME
    """A regular expression whose group is the step, as metrics are logged with. `mtime`: the step of the newest metrics
    when it was written, for a file that is overwritten."""
    keep: Annotated[int, Field(ge=2)] = 5
    """How many are kept of each attempt: the newest two, the oldest, and others between them."""

    @model_validator(mode="after")
    def _has_a_group(self) -> CheckpointSource:
        if self.step == BY_TIME:
            return self
        try:
            groups = re.compile(self.step).groups
        except re.error as error:
            raise ValueError(f"step: {self.step!r} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"step: {self.step!r} must have one group, as in 'step_([0-9]+)'; or mtime")
        return self


class OutOfMemory(Section):
    """What a retry has less of: `{set: {trainer.parameters.batch_size: 64}}`, or `{scale: {…: 0.5}}`."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Keys and their values."""
    scale: dict[str, Positive] = Field(default_factory=dict)
    """Keys and factors."""

    @model_validator(mode="after")
    def _is_something(self) -> OutOfMemory:
        if not self.set and not self.scale:
            raise ValueError("must have set: {key: value}, or scale: {key: factor}")
        return self


class TrainerSection(Section):
    command: Annotated[Command, BeforeValidator(_words)] = None
    """The trainer, as a list of words (no shell), with placeholders (docs/your-own.md). Default: this project's own."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Free keys for a trainer of your own: `{parameters.KEY}` in its command."""
    flags: Literal["argparse", "tyro"] = "argparse"
    """How `{flags}` says that a parameter is false: not at all, or `--no-KEY`."""
    redirect: bool = True
    """A Python script that calls `mlflow.set_experiment`, `set_tracking_uri` or `start_run` in its own way is led to
    the run of its attempt. It says so in its log."""
    metrics: Annotated[MetricsSource, _by_name("kind")] = MetricsSource()
    checkpoints: Annotated[CheckpointSource | None, BeforeValidator(_preset)] = None
    """Which of a script's files are checkpoints: a preset (`sb3`, `lightning`, `huggingface`), or pattern and step."""
    on_out_of_memory: OutOfMemory | None = None
    """What a retry has less of. Default: nothing, with a trainer of your own."""
    grace_seconds: NonNegative = 8.0
    """Between SIGTERM and SIGKILL, for a trainer that is asked to end: it may write a checkpoint."""
    names: dict[Name, Annotated[str, Field(min_length=1)] | NamedMetric] = Field(default_factory=dict)
    """What the ladder knows by a name (`score`, `score_window`, `progress`, `episodes`, `steps_per_second`, those of
    the rules), and the metric of the script's that it is."""

    @property
    def counts(self) -> str:
        """What the number of a checkpoint counts."""
        return "episode" if self.checkpoints is None else "step"

    @model_validator(mode="after")
    def _plain(self) -> TrainerSection:
        refuse_what_json_cannot_hold("parameters", self.parameters)
        return self
