"""The baseline: a plain actor-critic of V3's size, without graph, router and experts."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import PolicySection
from pipeline.policy.heads import Critic, LogitHead
from pipeline.policy.interface import ObservationSpec, Policy, PolicyOutput, Routing, mask_logits
from pipeline.policy.mixture import VisualBranch, initialise


class PlainPolicy(Policy):
    """h_vis → action logits and value.

    The loss's terms on α and on the experts are constant for it, so their gradients are zero.
    """

    def __init__(self, spec: ObservationSpec, config: PolicySection) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.visual = VisualBranch(spec, config)
        self.actor = LogitHead(2 * hidden, config.expert_size or 8 * hidden, spec.actions)
        self.critic = Critic(2 * hidden, hidden)
        initialise(self)

    def forward(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        state = self.visual(obs)
        logits = mask_logits(self.actor(state), obs)
        certain = torch.ones_like(logits[:, :1])
        return PolicyOutput(
            logits=logits,
            value=self.critic(state),
            alpha=certain,
            soft_alpha=certain,
            weights=certain,
            router_logits=torch.zeros_like(certain),
            expert_logits=logits.unsqueeze(1),
            h_logic=None,
            record={},
        )

    def value(self, obs: dict[str, Tensor]) -> Tensor:
        """Critic's estimate (B,)."""
        return self.critic(self.visual(obs))  # type: ignore[no-any-return]
