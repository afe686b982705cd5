"""What V3 and V2 have in common: a visual branch, an optional graph encoder, a router, experts and a critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import PolicySection
from pipeline.policy.embedding import Embedding
from pipeline.policy.experts import Experts
from pipeline.policy.gat import GraphEncoder
from pipeline.policy.heads import Critic, LogitHead
from pipeline.policy.interface import ObservationSpec, Policy, PolicyOutput, Routing, bound_logits, mask_logits


class VisualBranch(nn.Module):
    """Module: glyph crop and visited squares (B, C, C) each, and statistics (B, S) → h_vis (B, 2H)."""

    def __init__(self, spec: ObservationSpec, config: PolicySection) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.glyph = Embedding(spec.glyphs, config.glyph_embedding)
        self.crop = nn.Linear(spec.crop**2 * config.glyph_embedding, 2 * hidden)
        self.visited = nn.Linear(spec.crop**2, 2 * hidden, bias=False)
        self.stats = nn.Linear(spec.stats, hidden)
        self.out = nn.Linear(3 * hidden, 2 * hidden)

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        crop = self.crop(self.glyph(obs["crop"]).flatten(1)) + self.visited(obs["visited"].flatten(1).float())
        stats = functional.relu(self.stats(obs["stats"]))
        return functional.relu(self.out(torch.cat([functional.relu(crop), stats], dim=-1)))


class Weighing(NamedTuple):
    """How the experts are mixed; the fields are defined in :class:`PolicyOutput`."""

    alpha: Tensor
    soft_alpha: Tensor
    weights: Tensor
    record: dict[str, Tensor]


class MixturePolicy(Policy):
    """Mixture of named experts: the policy is Σₖ weightsₖ · logitsₖ. Subclasses compute the weights.

    A shared expert, if there is one, has weight 1 in every state (Dai et al. 2024, https://arxiv.org/abs/2401.06066).

    Args:
        spec: sizes of the input.
        config: sizes of the network, and names of the experts.
        graph: whether there is a graph encoder.
        graph_trained: whether gradients reach the graph encoder. If not, its output is the same in all epochs of an
            update, so it is computed once, when acting.
    """

    def __init__(self, spec: ObservationSpec, config: PolicySection, *, graph: bool, graph_trained: bool) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.expert_names = config.experts
        self.visual = VisualBranch(spec, config)
        self.gat: GraphEncoder | None = GraphEncoder(spec, config) if graph else None
        self.graph_trained = graph and graph_trained
        state_size = 2 * hidden + (hidden if graph else 0)
        self.router = LogitHead(state_size, hidden, len(config.experts))
        self.experts = Experts(state_size, config.expert_size or hidden, spec.actions, len(config.experts))
        size = config.shared_size
        self.shared = LogitHead(state_size, size, spec.actions) if size else None
        self.critic = Critic(state_size, hidden)
        initialise(self)
        if config.router_bias:
            self.router.out.bias.data = torch.tensor(config.router_bias)
        if self.gat is not None and not graph_trained:
            self.gat.requires_grad_(False)

    def _weigh(self, router_logits: Tensor, routing: Routing, noise: dict[str, Tensor]) -> Weighing:
        """Weights of the experts (B, E) from the router's logits (B, E)."""
        raise NotImplementedError

    def forward(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        """One forward pass, as in :meth:`Policy.forward`.

        If `noise` holds an `h_logic`, it is used instead of the graph encoder. It is recorded only if the graph encoder
        is not trained.
        """
        state, h_logic = self._state(obs, noise)
        record = {"h_logic": h_logic} if h_logic is not None and not self.graph_trained else {}
        router_logits = self.router(state)
        weighing = self._weigh(router_logits, routing, noise)
        expert_logits = self.experts(state)
        mixed = (weighing.weights.unsqueeze(1) @ expert_logits).squeeze(1)
        logits = bound_logits(mixed if self.shared is None else mixed + self.shared(state))
        return PolicyOutput(
            logits=mask_logits(logits, obs),
            value=self.critic(state),
            alpha=weighing.alpha,
            soft_alpha=weighing.soft_alpha,
            weights=weighing.weights,
            router_logits=router_logits,
            expert_logits=mask_logits(expert_logits, obs),
            h_logic=h_logic,
            record=record | weighing.record,
        )

    def _state(self, obs: dict[str, Tensor], noise: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The state (B, S) that router, experts and critic see, and h_logic (B, H)."""
        h_vis = self.visual(obs)
        if self.gat is None:
            return h_vis, None
        h_logic = noise["h_logic"] if "h_logic" in noise else self.gat(obs, noise.get("dropout"))
        if not self.graph_trained:
            h_logic = h_logic.detach()
        return torch.cat([h_vis, h_logic], dim=-1), h_logic

    def value(self, obs: dict[str, Tensor]) -> Tensor:
        """Critic's estimate (B,), without dropout."""
        return self.critic(self._state(obs, {})[0])  # type: ignore[no-any-return]

    def expert_rows(self) -> set[str]:
        """Names of the parameters whose first dimension is the expert."""
        names = {f"experts.{name}" for name, _ in self.experts.named_parameters()}
        return names | {"router.out.weight", "router.out.bias"}


def initialise(policy: Policy) -> None:
    """Initialises all linear layers orthogonally, with gain √2, 1 for the value and 0.1 for logits.

    This is usual for PPO (Andrychowicz et al. 2021, https://arxiv.org/abs/2006.05990). Embeddings are normal with
    deviation 0.5. The graph layers keep torch-geometric's initialisation, and the experts their own.
    """
    for name, module in policy.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("gat.layers"):
            gain = 0.1 if name in ("router.out", "shared.out", "actor.out") else 1.0 if name == "critic.out" else 2**0.5
            nn.init.orthogonal_(module.weight, gain=gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
