"""The policy that a configuration names."""

from __future__ import annotations

from pipeline.config import PolicySection
from pipeline.policy.interface import ObservationSpec, Policy
from pipeline.policy.plain import PlainPolicy
from pipeline.policy.v2 import V2Policy
from pipeline.policy.v3 import V3Policy


def build_policy(spec: ObservationSpec, config: PolicySection) -> Policy:
    """The untrained policy of `config.kind`: V3, V2 (with graph features or without), or the plain policy."""
    kinds = {"v3": V3Policy, "v2": V2Policy, "v2_gat": V2Policy, "ppo": PlainPolicy}
    return kinds[config.kind](spec, config)
