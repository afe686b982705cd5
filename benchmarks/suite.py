"""The fault suite: `benchmarks/faults/*.yaml`, each a way in which such a training really goes wrong.

A file is an experiment over `base.yaml` with one section more, `fault`: which verdict is right, by what symptom one
can see it, and which rungs remove the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from pipeline.config import ExperimentConfig
from pipeline.experiment_file import merge, validate
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.verdict import INFRASTRUCTURE_FAILURES

FOLDER = Path(__file__).parent / "faults"
BASE = "base"


@dataclass(frozen=True)
class Symptom:
    """What a person who knew the fault would look at."""

    metric: str
    above: float | None = None
    below: float | None = None
    of_ten: int = 6
    """In so many of the ten updates from the onset on."""


@dataclass(frozen=True)
class Fault:
    """One file of the suite; `base` has no verdict."""

    name: str
    family: str
    cause: str
    verdict: str
    cured_by: dict[str, str]
    symptom: Symptom | None
    values: dict[str, Any]

    def config(self, *overrides: str) -> ExperimentConfig:
        """The experiment, validated as any other."""
        base = OmegaConf.load(FOLDER / f"{BASE}.yaml")
        return validate(merge(OmegaConf.merge(base, self.values), overrides, self.name), self.name)

    @property
    def of_training(self) -> bool:
        """Seen in the metrics; an infrastructure fault is seen in the process."""
        return self.verdict not in INFRASTRUCTURE_FAILURES


@cache
def load_suite() -> dict[str, Fault]:
    """Every fault by name, `base` first."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml"), key=lambda each: (each.stem != BASE, each.stem)):
        values = yaml.safe_load(path.read_text())
        about = values.pop("fault", {"family": "healthy", "cause": "none", "verdict": "healthy", "cured_by": {}})
        symptom = Symptom(**about.pop("symptom")) if "symptom" in about else None
        found[path.stem] = Fault(name=path.stem, symptom=symptom, values=values, **about)
    return found


def only_warn() -> list[str]:
    """Overrides with which no rule ends a run, so that it is recorded beyond its failure."""
    return [f"health.override.{rule.name}.action=warn" for rule in RULE_SETS["v3"]]
