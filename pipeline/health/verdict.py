"""Verdicts: how an attempt ended, and the evidence."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

TrainingVerdict = Literal[
    "expert_collapse",
    "router_indecision",
    "gat_oversmoothing",
    "gradient_explosion",
    "numerical_instability",
    "reward_plateau",
]
InfrastructureVerdict = Literal["crash", "hang", "out_of_memory"]
VerdictName = Literal["healthy", "interrupted"] | TrainingVerdict | InfrastructureVerdict

TRAINING_FAILURES: tuple[str, ...] = get_args(TrainingVerdict)
INFRASTRUCTURE_FAILURES: tuple[str, ...] = get_args(InfrastructureVerdict)
MEANINGS: dict[str, str] = {
    "healthy": "trained to the end; no rule fired",
    "expert_collapse": "one expert takes nearly all samples, or one is never chosen",
    "router_indecision": "the router stays near uniform and never decides",
    "gat_oversmoothing": "the graph encoder makes all nodes alike",
    "gradient_explosion": "gradients stay far above the run's own level, or have damaged the policy",
    "numerical_instability": "NaN or Inf came back more often than rollback may mend",
    "reward_plateau": "the score has stopped rising, or cannot rise",
    "crash": "the trainer process died",
    "hang": "the trainer process fell silent",
    "out_of_memory": "the trainer process ran out of memory",
    "interrupted": "a person, or the budget, ended it",
}


class Evidence(BaseModel):
    """What a person can check: the rule, the values in its window, the threshold, and from which step to which."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    rule: str
    metric: str | None = None
    values: tuple[float, ...] = ()
    threshold: str = ""
    onset_step: int | None = None
    """First step (of the environment) at which the condition held."""
    last_good_step: int | None = None
    """Newest step before the onset whose metrics were healthy; None: there was none. A checkpoint of that very step is
    suspect already: the metrics after it measure its weights."""
    detection_step: int | None = None
    detail: dict[str, Any] = {}

    def sentence(self) -> str:
        """One line for a terminal or a note."""
        if self.metric is None:
            told = {key: value for key, value in self.detail.items() if key not in ("log_tail", "certain")}
            return ", ".join(
                str(value) if key in ("reason", "cause") else f"{key} {value}" for key, value in told.items()
            )
        last = f"{self.values[-1]:#.3g}" if self.values else "?"
        return f"{self.metric} {last} ({self.threshold}), steps {self.onset_step} – {self.detection_step}"


class Verdict(BaseModel):
    """How an attempt ended."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    name: VerdictName
    evidence: tuple[Evidence, ...] = ()

    def trusts(self, step: int) -> bool:
        """Whether weights that were saved at this step were healthy and stayed so until the failure began."""
        if not self.is_training_failure:
            return True
        return all(each.last_good_step is not None and step < each.last_good_step for each in self.evidence)

    @property
    def failed_from_the_start(self) -> bool:
        """Whether no metrics of the attempt were ever healthy; the weights that it started from are suspect too."""
        return self.is_training_failure and any(each.last_good_step is None for each in self.evidence)

    @property
    def is_training_failure(self) -> bool:
        return self.name in TRAINING_FAILURES

    @property
    def is_infrastructure_failure(self) -> bool:
        return self.name in INFRASTRUCTURE_FAILURES

    @property
    def sentence(self) -> str:
        return "; ".join(each.sentence() for each in self.evidence)
