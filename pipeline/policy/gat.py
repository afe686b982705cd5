"""Graph attention over the entity graph: the hero attends to what is around.

Graph attention is that of Veličković et al. 2018 (https://arxiv.org/abs/1710.10903). It is built on torch-geometric's
dense layer: with 16 nodes a graph, a dense (nodes × nodes) attention is faster on a CPU than gathering edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import DenseGATConv

from pipeline.config import PolicySection
from pipeline.policy.embedding import Embedding
from pipeline.policy.interface import ObservationSpec

_FAR = 10.0  # squares; positions are divided by it


class GraphAttention(DenseGATConv):
    """torch-geometric's `DenseGATConv` with the same parameters, which also returns its attention.

    W is the layer's matrix. The attention vectors a are `att_src` for neighbours and `att_dst` for the node that
    attends.

    Args:
        in_channels: F, features of a node.
        out_channels: C, features of a head.
        heads: number of heads.
        temperature: divides the attention scores.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, temperature: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, heads=heads)
        self.temperature = temperature

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns features (B, N, heads·C) and attention (B, heads, N, N).

        Args:
            x: (B, N, F).
            mask: (B, N, N), 0 where there is an edge and −∞ where there is none.
        """
        batch, nodes, features = x.shape
        rows = x.reshape(batch * nodes, features)
        # The attention of a node sums to one, so adding the bias before the sum is the same as adding it after.
        h = functional.linear(rows, self.lin.weight, self.bias)
        h = h.view(batch, nodes, self.heads, self.out_channels).transpose(1, 2)  # (B, heads, N, C)
        # aₖ·(W x) = (aₖ W)·x
        scored = (self._score_weight() @ rows.T).view(2, self.heads, batch, nodes)
        source, target = scored.transpose(1, 2).unbind()  # (B, heads, N)
        scores = functional.leaky_relu(target.unsqueeze(-1) + source.unsqueeze(-2), self.negative_slope)
        attention = (scores + mask[:, None]).softmax(dim=-1)
        return (attention @ h).transpose(1, 2).flatten(2), attention

    def first_node(self, x: Tensor, first: Tensor, mask: Tensor) -> Tensor:
        """The features (B, heads·C) of node 0 alone, the only ones that are read after the last layer.

        The sums are those of `forward` in another order: Σⱼ attentionⱼ W xⱼ = W Σⱼ attentionⱼ xⱼ. So W is applied to
        one node instead of N.

        Args:
            x: (B, N, F).
            first: (B, F), x[:, 0]. The caller needs it too, and each indexing costs a zero tensor in the backward pass.
            mask: (B, N, N), 0 where there is an edge and −∞ where there is none.
        """
        source_weight, target_weight = self._score_weight().chunk(2)
        source = x @ source_weight.T  # (B, N, heads)
        target = first @ target_weight.T  # (B, heads)
        scores = functional.leaky_relu(target.unsqueeze(1) + source, self.negative_slope)
        attention = (scores + mask[:, 0].unsqueeze(-1)).softmax(dim=1)
        gathered = attention.transpose(1, 2) @ x  # (B, heads, F)
        return torch.einsum("bhf,hcf->bhc", gathered, self._weight_by_head()).flatten(1) + self.bias

    def _weight_by_head(self) -> Tensor:
        """W as (heads, C, F)."""
        return self.lin.weight.view(self.heads, self.out_channels, -1)

    def _score_weight(self) -> Tensor:
        """`att_src` W stacked on `att_dst` W, (2·heads, F), divided by the temperature.

        The leaky ReLU is homogeneous, so dividing here divides the scores.
        """
        vectors = torch.cat([self.att_src, self.att_dst]).view(2, self.heads, 1, self.out_channels)
        return (vectors @ self._weight_by_head()).flatten(0, 2) / self.temperature


class GraphEncoder(nn.Module):
    """Module: entity graph → h_logic.

    | Symbol | Shape | Description |
    |---|---|---|
    | node_glyph, node_kind | (B, N) int | what each entity is; kind 0: no such node |
    | node_position | (B, N, 2) | squares from the hero |
    | paths | (B, P) | where paths lead, features of node 0 alone; absent if P is 0 |
    | adjacency | (B, N, N) bool | [i, j]: node i attends to node j |
    | dropout | (B, layers, H) bool or None | True: the unit is kept; the same for all nodes of a graph |
    | h_logic | (B, H) | the hero's features after the last layer |

    Dropout is consistent (Hausknecht & Wagener 2022, https://arxiv.org/abs/2202.11818). Its mask is drawn when the
    policy acts, is kept with the transition, and is used again in the update. So the update recomputes the policy that
    acted.
    """

    def __init__(self, spec: ObservationSpec, config: PolicySection) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.dropout = config.gat_dropout
        self.residual = config.gat_residual
        self.layer_count = config.gat_layers
        self.hidden_size = hidden
        self.glyph = Embedding(spec.glyphs, config.glyph_embedding)
        self.kind = Embedding(spec.kinds, config.glyph_embedding)
        self.paths = spec.paths
        self.enter = nn.Linear(2 * config.glyph_embedding + 5 + spec.paths, hidden)
        self.layers = nn.ModuleList(
            GraphAttention(hidden, hidden // config.gat_heads, config.gat_heads, config.attention_temperature)
            for _ in range(config.gat_layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(hidden) if config.gat_layer_norm else nn.Identity() for _ in range(config.gat_layers)
        )

    def draw_dropout(self, samples: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Masks (samples, layers, H) bool, True where a unit is kept."""
        shape = (samples, self.layer_count, self.hidden_size)
        return (torch.rand(shape, generator=generator) >= self.dropout).to(device)

    def _embed(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        position = obs["node_position"]
        distance = position.abs().amax(-1, keepdim=True)
        parts = [
            self.glyph(obs["node_glyph"]),
            self.kind(obs["node_kind"]),
            (position / _FAR).clamp(-2, 2),
            position.sign() * (distance <= 1),
            torch.log1p(distance) / 4,
        ]
        if self.paths:
            parts.append(functional.pad(obs["paths"].unsqueeze(1), (0, 0, 0, position.shape[1] - 1)))
        features = torch.cat(parts, dim=-1)
        mask = torch.zeros(obs["adjacency"].shape, device=position.device)
        return functional.relu(self.enter(features)), mask.masked_fill_(~obs["adjacency"], float("-inf"))

    def _finish(self, index: int, z: Tensor, h: Tensor, dropout: Tensor | None) -> Tensor:
        """A layer's output (…, H) from its attended features z and its input h: activation, dropout, residual, norm."""
        z = functional.relu(z)
        if dropout is not None:
            z = z * (dropout / (1 - self.dropout))
        return self.norms[index](z + h if self.residual else z)  # type: ignore[no-any-return]

    def forward(self, obs: dict[str, Tensor], dropout: Tensor | None = None) -> Tensor:
        """h_logic (B, H); without `dropout` every unit is kept."""
        h, mask = self._embed(obs)
        *_, last = self.layers
        for index, layer in enumerate(self.layers):
            kept = None if dropout is None else dropout[:, index]
            if layer is not last:
                h = self._finish(index, layer(h, mask)[0], h, None if kept is None else kept.unsqueeze(1))
            elif isinstance(layer, GraphAttention):
                hero = h[:, 0]
                h = self._finish(index, layer.first_node(h, hero, mask), hero, kept)
        return h

    @torch.no_grad()
    def inspect(self, obs: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """The attention (B, heads, N, N) of each layer, and the final features (B, N, H) of all nodes; no dropout."""
        h, mask = self._embed(obs)
        attention: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            z, weights = layer(h, mask)
            h = self._finish(index, z, h, None)
            attention.append(weights)
        return attention, h
