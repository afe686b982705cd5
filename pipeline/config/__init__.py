"""The whole configuration of an experiment: frozen, validated, with the brief's V3 values as defaults.

A rung of the ladder is a pure function on :class:`ExperimentConfig`, so :func:`difference` of two of these objects says
how two attempts differ. Each section of the YAML file has a class; its keys are the class's fields.
"""

from pipeline.config.difference import changed_keys, difference, flatten
from pipeline.config.environment import EnvironmentSection, Shaping
from pipeline.config.experiment import BudgetSection, ExperimentConfig, Fault, TrackingSection
from pipeline.config.health import HealthSection
from pipeline.config.ladder import AS_IT_STANDS, PREFLIGHT_ITEMS, RUNGS, CustomRung, LadderSection
from pipeline.config.launcher import LauncherSection
from pipeline.config.policy import EXPERTS, PolicySection
from pipeline.config.section import Positive, PositiveInt, Section
from pipeline.config.trainer import BY_TIME, CheckpointSource, MetricsSource, NamedMetric, TrainerSection
from pipeline.config.training import PhaseSettings, PhasesSection, TrainingSection

__all__ = [
    "AS_IT_STANDS", "BY_TIME", "EXPERTS", "PREFLIGHT_ITEMS", "RUNGS", "BudgetSection", "CheckpointSource", "CustomRung",
    "EnvironmentSection", "ExperimentConfig", "Fault", "HealthSection", "LadderSection", "LauncherSection",
    "MetricsSource", "NamedMetric", "PhaseSettings", "PhasesSection", "PolicySection", "Positive", "PositiveInt",
    "Section", "Shaping", "TrackingSection", "TrainerSection", "TrainingSection", "changed_keys", "difference",
    "flatten",
]  # fmt: skip
