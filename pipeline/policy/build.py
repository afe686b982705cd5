"""The policy that a configuration names."""

from __future__ import annotations

from pipeline.config import PolicySection
from pipeline.policy.interface import ObservationSpec
from pipeline.policy.mixture import MixturePolicy
from pipeline.policy.v2 import V2Policy
from pipeline.policy.v3 import V3Policy


def build_policy(spec: ObservationSpec, config: PolicySection) -> MixturePolicy:
    """V3, V2, or V2 with graph features, by `config.kind`."""
    return V3Policy(spec, config) if config.kind == "v3" else V2Policy(spec, config)
