"""What a policy takes over from another one's checkpoint: parameters and Adam's moments, as tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.attempt.file import Carry
from pipeline.policy.interface import Policy

Moments = dict[str, dict[str, Tensor]]
"""Adam's moments by parameter name."""


def fitted(state: dict[str, Any], policy: Policy) -> dict[str, Any]:
    """A checkpoint's content, with as many inputs as this policy has."""
    own, learnt = policy.state_dict(), state["ppo"]
    learnt = {**learnt, "moments": fit_moments(learnt["moments"], own)}
    return state | {"policy": fit_inputs(state["policy"], own), "ppo": learnt}


def carried_weights(state: dict[str, Any], carry: Carry, policy: Policy) -> dict[str, Tensor]:
    """All parameters of this policy, with what `carry` names from a checkpoint's content."""
    rows = policy.expert_rows()
    weights = {name: tensor for name, tensor in state["policy"].items() if _is_carried(name, carry)}
    own = policy.state_dict()
    if carry.upcycles:
        return own | upcycled(weights, own, leader=int(np.argmax(state["usage"])))
    if rows & weights.keys():
        weights = select_experts(weights, rows, tuple(state["experts"]), policy.expert_names)
    return own | weights


def carried_moments(state: dict[str, Any], carry: Carry, policy: Policy) -> Moments:
    """The moments that `carry` names from a checkpoint's content, of this policy's experts."""
    moments = {
        name: values
        for name, values in state["ppo"]["moments"].items()
        if _is_carried(name, carry) and name.split(".")[0] not in carry.forgets
    }
    experts = tuple(state["experts"]), policy.expert_names
    return changed_moments(moments, lambda tensors: select_experts(tensors, policy.expert_rows(), *experts))


def _is_carried(name: str, carry: Carry) -> bool:
    return carry.modules is None or name.split(".")[0] in carry.modules


_OF_INPUTS = ("gat.enter.weight", "visual.stats.weight")
"""Weights of layers that read observations; what `environment.paths` adds to these comes last."""


def fit_inputs(tensors: dict[str, Tensor], policy: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with as many inputs as this policy has.

    They may come from a policy that was told less, as before there was `environment.paths`. The weights of inputs that
    it did not know are 0, so it plays as it did. What this policy is no longer told is left out.

    Args:
        tensors: parameters by name, or means of their gradients.
        policy: parameters of the policy that continues, by name.
    """
    found = dict(tensors)
    for name, more in _more_inputs(tensors, policy):
        found[name] = functional.pad(tensors[name], (0, more))
    return found


def fit_moments(moments: Moments, policy: dict[str, Tensor]) -> Moments:
    """Adam's moments by parameter name, with as many inputs as this policy has.

    The squared gradients of an input that is new are those of the unit's other inputs, in the mean. With 0, Adam would
    divide the first gradients by themselves alone, and move the new weights by several learning rates at each step.
    """

    def squares(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = fit_inputs(tensors, policy)
        for name, more in _more_inputs(tensors, policy):
            if more > 0:
                found[name][..., -more:] = tensors[name].mean(-1, keepdim=True)
        return found

    return changed_moments(moments, partial(fit_inputs, policy=policy), squares)


def _more_inputs(tensors: dict[str, Tensor], policy: dict[str, Tensor]) -> Iterator[tuple[str, int]]:
    """The tensors whose number of inputs may differ, and how many more this policy has."""
    for name in sorted(tensors.keys() & policy.keys() & set(_OF_INPUTS)):
        yield name, policy[name].shape[-1] - tensors[name].shape[-1]


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Changes tensors by name."""


def changed_moments(moments: Moments, change: Change, squares: Change | None = None) -> Moments:
    """Adam's moments by parameter name, with both of them changed; `squares` changes the second, if it is given."""
    for key, each in (("exp_avg", change), ("exp_avg_sq", squares or change)):
        tensors = each({name: values[key] for name, values in moments.items()})
        moments = {name: {**values, key: tensors[name]} for name, values in moments.items()}
    return moments


def select_experts(
    tensors: dict[str, Tensor], rows: set[str], source: tuple[str, ...], target: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors with the experts of another policy.

    Args:
        tensors: parameters or moments by name.
        rows: names of the tensors whose first dimension is the expert; the others stay as they are.
        source: names of the experts in the tensors.
        target: names of the wanted experts, in their order; each is in `source`.
    """
    if source == target:
        return tensors
    index = torch.tensor([source.index(name) for name in target])
    return {name: tensor[index] if name in rows else tensor for name, tensor in tensors.items()}


_APART = 0.1
"""Share of its own first weights that sets an upcycled expert apart from the others."""


def upcycled(tensors: dict[str, Tensor], fresh: dict[str, Tensor], leader: int) -> dict[str, Tensor]:
    """A mixture whose experts all begin as the one that led, with a router that has learnt nothing.

    So the mixture plays as the leader did, whatever the router says, and the experts can part again (sparse upcycling:
    Komatsuzaki et al. 2023, https://arxiv.org/abs/2212.05055). Identical ones would stay identical, so each of the
    others gets a share of its first weights on top.

    Args:
        tensors: parameters of the policy by name.
        fresh: those of the same policy before training.
        leader: index of the expert.
    """
    found = {}
    for name, tensor in tensors.items():
        part = name.split(".")[0]
        if part == "experts":
            found[name] = tensor[leader] + _APART * fresh[name]
            found[name][leader] = tensor[leader]
        else:
            found[name] = fresh[name] if part == "router" else tensor
    return found
