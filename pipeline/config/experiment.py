"""The whole configuration of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.config.environment import EnvironmentSection
from pipeline.config.health import HealthSection
from pipeline.config.ladder import AS_IT_STANDS, LadderSection, PreflightSection
from pipeline.config.launcher import LauncherSection
from pipeline.config.policy import PolicySection
from pipeline.config.section import Command, Positive, PositiveInt, Section, sequence
from pipeline.config.trainer import TrainerSection
from pipeline.config.training import PhasesSection, TrainingSection
from pipeline.health.definitions import definition
from pipeline.health.rule import Rule


class ExperimentSection(Section):
    name: Annotated[str, Field(min_length=1, max_length=200)] = "ladder"
    """Name of the MLflow experiment."""
    description: str = ""


class BudgetSection(Section):
    hours: Positive = 12.0
    attempts: PositiveInt = 20
    retries: Annotated[int, Field(ge=0)] = 2
    """Infrastructure failures (crash, hang, out of memory) that a rung may have before the ladder steps down."""
    hang_after_seconds: Positive = 300.0
    """Silence of a run (no new metric) that counts as a hang."""
    store_away_seconds: Positive = 1800.0
    """How long to wait for a store that is out of reach, while training goes on; then the experiment ends in order."""


class TrackingSection(Section):
    root: Annotated[str, Field(min_length=1)] = "mlruns"
    """Everything that an experiment writes is under this folder."""
    uri: str | None = None
    """MLflow tracking URI; default: the SQLite file under the root. MLFLOW_TRACKING_URI, if set, wins."""
    publish: bool = True
    """A healthy attempt leaves its policy as a logged model, a film of its best game, and its attention on the map."""


class NotifySection(Section):
    command: Command = None
    """Run at each verdict and at the end, as a list of words (no shell), with the facts as JSON on its input."""


class Fault(Section):
    """An infrastructure fault, for drills and tests."""

    kind: Literal["crash", "hang", "out_of_memory", "nan_gradient", "nan_observation"]
    at_update: PositiveInt
    times: PositiveInt = 1
    """How many attempts it strikes; nan_gradient: how many minibatches; nan_observation: how many rollouts."""


class ExperimentConfig(Section):
    """Everything that defines an experiment."""

    experiment: ExperimentSection = ExperimentSection()
    environment: EnvironmentSection = EnvironmentSection()
    policy: PolicySection = PolicySection()
    training: TrainingSection = TrainingSection()
    phases: PhasesSection = PhasesSection()
    health: HealthSection = HealthSection()
    ladder: LadderSection = LadderSection()
    preflight: PreflightSection = PreflightSection()
    budget: BudgetSection = BudgetSection()
    tracking: TrackingSection = TrackingSection()
    notify: NotifySection = NotifySection()
    launcher: LauncherSection = LauncherSection()
    trainer: TrainerSection = TrainerSection()
    faults: tuple[Fault, ...] = sequence(())

    @model_validator(mode="before")
    @classmethod
    def _rungs_of_another_trainer(cls, data: Any) -> Any:
        """A trainer of the user's own has built-in rungs and remedies only where they are asked for."""
        if not isinstance(data, dict):
            return data
        trainer, ladder = data.get("trainer") or {}, data.get("ladder", {})
        command = trainer.get("command") if isinstance(trainer, dict) else getattr(trainer, "command", None)
        if command is None or not isinstance(ladder, dict):
            return data
        return {**data, "ladder": {"rungs": (AS_IT_STANDS,), "remedies": 0, **ladder}}

    @model_validator(mode="after")
    def _has_rules(self) -> ExperimentConfig:
        if self.health.rules is None:
            name = "v3" if self.trainer.command is None else "generic"
            object.__setattr__(self, "health", self.health.model_copy(update={"rules": name}))
            try:
                self.health.build()
            except ValidationError:
                raise
            except ValueError as error:
                raise ValueError(f"health.{error}") from None
        return self

    @model_validator(mode="after")
    def _divisible(self) -> ExperimentConfig:
        games, workers = self.environment.num_envs, self.training.workers
        if games % workers and self.trainer.command is None:
            raise ValueError(f"environment.num_envs: must be a multiple of training.workers={workers}, not {games}")
        return self

    @property
    def rules_to_be_judged(self) -> tuple[Rule, ...]:
        """The rules of the user's own that miss their purpose if they are never judged.

        Of this project's trainer, only those on a metric that it never logs: others may be absent at some rungs.
        """
        if self.trainer.command is not None:
            return self.health.chosen
        return tuple(rule for rule in self.health.chosen if any(definition(metric) is None for metric in rule.metrics))

    @property
    def played(self) -> EnvironmentSection:
        """The environment as the policy plays it."""
        return self.environment.played(self.policy.has_graph)

    def with_values(self, changes: Mapping[str, Any]) -> ExperimentConfig:
        """A copy with dotted keys replaced, validated anew. A mapping is merged into the one that is there.

        Raises:
            KeyError: a key that does not exist (closed sections only).
            pydantic.ValidationError: a value that is not allowed.
        """
        data = self.model_dump()
        for key, value in changes.items():
            *path, last = key.split(".")
            node = data
            for part in path:
                if not isinstance(node.get(part), dict):
                    raise KeyError(key)
                node = node[part]
            node[last] = _merged(node.get(last), value)
        return ExperimentConfig.model_validate(data)


def _merged(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, Mapping):
        return value
    return {**before, **{key: _merged(before.get(key), each) for key, each in value.items()}}
