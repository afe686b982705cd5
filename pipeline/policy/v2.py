"""V2: a flat state and a Gumbel router that draws one expert a step, with or without graph features."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import PolicySection
from pipeline.policy.interface import ObservationSpec, Routing
from pipeline.policy.mixture import MixturePolicy, Weighing
from pipeline.policy.router import draw_gumbel, gumbel_route


class V2Policy(MixturePolicy):
    """h_vis (and, for `v2_gat`, h_logic detached) → Gumbel-softmax, straight-through → one expert's logits."""

    def __init__(self, spec: ObservationSpec, config: PolicySection) -> None:
        super().__init__(spec, config, graph=config.has_graph, graph_trained=False)
        self.temperature = config.gumbel_temperature

    def draw_noise(self, samples: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        return {"gumbel": draw_gumbel(samples, len(self.expert_names), generator, device)}

    def _weigh(self, router_logits: Tensor, routing: Routing, noise: dict[str, Tensor]) -> Weighing:
        gumbel = noise["gumbel"]
        alpha, weights, choice = gumbel_route(router_logits, gumbel, noise.get("choice"), self.temperature)
        return Weighing(alpha, alpha, weights, {"gumbel": gumbel, "choice": choice})
