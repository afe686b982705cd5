"""The fault suite: `benchmarks/faults/*.yaml`, each a way in which such a training really goes wrong.

A file is an experiment over `base.yaml` with one more section, `fault`. The section names the right verdict, and the
rungs that remove the cause.
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
class Fault:
    """One file of the suite; the verdict of `base` is `healthy`."""

    name: str
    family: str
    cause: str
    verdict: str
    """The right verdict."""
    cured_by: dict[str, str]
    """Rung that removes the cause → why."""
    values: dict[str, Any]
    """The experiment's values over those of `base.yaml`."""

    def config(self, *overrides: str, base: Path = FOLDER / f"{BASE}.yaml") -> ExperimentConfig:
        """The experiment with overrides, validated like any other. `base`: the file that the fault's values change."""
        return validate(merge(OmegaConf.merge(OmegaConf.load(base), self.values), overrides, self.name), self.name)

    @property
    def injected_at(self) -> int:
        """The first update that the fault affects: that of the injected event, or the first of all."""
        return min((each["at_update"] for each in self.values.get("faults", ())), default=1)

    @property
    def of_training(self) -> bool:
        """Whether the fault shows in the metrics; an infrastructure fault shows in the process."""
        return self.verdict not in INFRASTRUCTURE_FAILURES


@cache
def load_suite() -> dict[str, Fault]:
    """Every fault by name, `base` first."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml"), key=lambda each: (each.stem != BASE, each.stem)):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        about = values.pop("fault", {"family": "healthy", "cause": "none", "verdict": "healthy", "cured_by": {}})
        found[path.stem] = Fault(name=path.stem, values=values, **about)
    return found


def only_warn() -> list[str]:
    """Overrides that make every rule warn instead of ending the run, so that a run is recorded beyond its failure."""
    return [f"health.override.{rule.name}.action=warn" for rule in RULE_SETS["v3"]]
