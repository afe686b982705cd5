"""The section `environment`: the game, its observation and its shaped reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Section


class Shaping(Section):
    """Coefficients of the training reward. The `score` that is reported never contains any of it."""

    task: float = 0.5
    """Times sign(r)·log(1 + |r|) of the environment's own reward r."""
    exploration: float = 0.1
    """Times log(1 + map squares seen for the first time on this dungeon level)."""
    descent: float = 3.0
    """For each dungeon level deeper than any before in this episode."""
    stairs: float = 0.1
    """For each square by which the hero gets nearer to known stairs down than ever before on this level."""


class EnvironmentSection(Section):
    id: str = "NetHackScore-v0"
    """A Gymnasium id that NLE registers."""
    character: str = "mon-hum-neu-mal"
    """Role, race, alignment, gender, as NetHack abbreviates them."""
    max_episode_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Step cap of an episode; reaching it is a truncation, never a death."""
    num_envs: Annotated[int, Field(ge=1, le=1024)] = 16
    crop_size: Annotated[int, Field(ge=3, le=21)] = 9
    """Side, in squares, of the glyph crop around the hero (odd)."""
    max_entities: Annotated[int, Field(ge=2, le=128)] = 16
    """Nodes of the entity graph, the hero included; the farthest are dropped."""
    neighbours: Annotated[int, Field(ge=1, le=16)] = 3
    """Each entity is linked to this many nearest others, beside hero ↔ all."""
    paths: Literal["graph", "stats", "none"] = "graph"
    """Where the policy is told the first steps of the shortest paths to the nearest frontier of the known map, object
    and stairs down: at the hero's node of the graph, in the statistics, which policies without a graph have too, or
    nowhere (docs/decisions.md). With `graph`, a policy without a graph is not told them, and no path is searched."""
    action_mask: bool = True
    """Whether a policy is offered only what NetHack does not refuse, as it refuses `>` where there are no stairs."""
    shaping: Shaping = Shaping()
    random_episodes: Annotated[int, Field(ge=2)] = 100
    """Episodes of the random baseline, played once per experiment under the same step cap. The rule `not_above_random`
    takes 1000 to be certain."""

    def without_paths(self) -> EnvironmentSection:
        """The same for a player that does not look at the paths, so that none is searched."""
        return self.model_copy(update={"paths": "none"})

    def played(self, graph: bool) -> EnvironmentSection:
        """The environment for a policy with or without a graph: without paths that the policy would not read."""
        return self.without_paths() if self.paths == "graph" and not graph else self

    @model_validator(mode="after")
    def _odd_crop(self) -> EnvironmentSection:
        if self.crop_size % 2 == 0:
            raise ValueError(f"crop_size: must be odd, so that the hero is in the middle, not {self.crop_size}")
        return self
