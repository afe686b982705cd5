"""The section `policy`: the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Positive, Section, sequence
from pipeline.health.rule import Name

EXPERTS = ("survival", "combat", "exploration", "general")


class PolicySection(Section):
    kind: Literal["v3", "v2", "v2_gat", "ppo"] = "v3"
    """v3: graph attention and a softmax/sparsemax router. v2: flat state and a Gumbel router. v2_gat: V2 whose
    state also holds the (detached) output of the graph encoder. ppo: a plain policy of the same size."""
    graph: bool = True
    """Whether V3 has its graph encoder; without it is an ablation."""
    experts: Annotated[tuple[Name, ...], Field(min_length=1, max_length=16)] = sequence(EXPERTS)
    hidden_size: Annotated[int, Field(ge=4, le=1024)] = 64
    expert_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Hidden units of each expert (default: hidden_size), or of the plain policy's actor (default: 8 × hidden_size)."""
    shared_size: Annotated[int, Field(ge=0, le=4096)] = 0
    """Hidden units of a shared expert, which no router weighs: the policy is its logits plus Σₖ αₖ · logitsₖ. 0: there
    is none, and the policy is the sum alone, as in the brief (docs/decisions.md)."""
    glyph_embedding: Annotated[int, Field(ge=1, le=128)] = 8
    gat_layers: Annotated[int, Field(ge=1, le=16)] = 2
    gat_heads: Annotated[int, Field(ge=1, le=16)] = 4
    gat_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gat_residual: bool = True
    gat_layer_norm: bool = True
    gat_frozen: bool = False
    """The graph encoder's parameters are not trained."""
    attention_temperature: Positive = 1.0
    """Divides the attention scores: near 0 each node attends to one other, far above 1 to all alike."""
    router_bias: tuple[float, ...] = sequence(())
    """The router's logits at initialisation, one for each expert; empty: all 0."""
    gumbel_temperature: Positive = 1.0
    """Temperature of V2's Gumbel router."""

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph encoder."""
        return self.kind == "v2_gat" or (self.kind == "v3" and self.graph)

    @model_validator(mode="after")
    def _consistent(self) -> PolicySection:
        if len(set(self.experts)) != len(self.experts):
            raise ValueError(f"experts: names must differ, not {list(self.experts)}")
        if self.hidden_size % self.gat_heads:
            raise ValueError(f"hidden_size: must be a multiple of gat_heads={self.gat_heads}, not {self.hidden_size}")
        if self.router_bias and len(self.router_bias) != len(self.experts):
            raise ValueError(
                f"router_bias: must have one value for each of {list(self.experts)}, not {list(self.router_bias)}"
            )
        return self
