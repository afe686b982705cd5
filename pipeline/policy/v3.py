"""V3: graph attention, and a router that changes from softmax to sparsemax."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import PolicySection
from pipeline.policy.interface import ObservationSpec, Routing
from pipeline.policy.mixture import MixturePolicy, Weighing
from pipeline.policy.router import route


class V3Policy(MixturePolicy):
    """h_vis and h_logic → router → α; the policy is Σₖ αₖ · logitsₖ."""

    def __init__(self, spec: ObservationSpec, config: PolicySection) -> None:
        super().__init__(spec, config, graph=config.has_graph, graph_trained=not config.gat_frozen)

    def draw_noise(self, samples: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        if self.gat is None or not self.graph_trained or self.gat.dropout == 0:
            return {}  # dropout regularises training; a frozen encoder gives its best features
        return {"dropout": self.gat.draw_dropout(samples, generator, device)}

    def _weigh(self, router_logits: Tensor, routing: Routing, noise: dict[str, Tensor]) -> Weighing:
        alpha, soft_alpha = route(router_logits, routing)
        return Weighing(alpha, soft_alpha, alpha, {key: noise[key] for key in ("dropout",) if key in noise})
