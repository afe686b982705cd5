"""The graph encoder equals torch-geometric's, and has the properties of a function of graphs."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import DenseGATConv

from pipeline.config import ExperimentConfig, PolicySection
from pipeline.policy.gat import GraphAttention, GraphEncoder
from pipeline.policy.interface import ObservationSpec
from tests.conftest import small_config

SPEC = ObservationSpec(glyphs=100, kinds=11, crop=5, stats=31, actions=23)


def graphs(count: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    links = torch.rand((count, 6, 6), generator=generator) < 0.4
    adjacency = links | links.transpose(1, 2) | torch.eye(6, dtype=torch.bool)
    adjacency[:, 0] = adjacency[:, :, 0] = True
    return {
        "node_glyph": torch.randint(0, 100, (count, 6), generator=generator),
        "node_kind": torch.randint(1, 11, (count, 6), generator=generator),
        "node_position": torch.randn((count, 6, 2), generator=generator) * 4,
        "adjacency": adjacency,
    }


def encoder() -> GraphEncoder:
    torch.manual_seed(0)
    return GraphEncoder(SPEC, small_config().policy)


def test_attention_layer_equals_torch_geometric() -> None:
    torch.manual_seed(0)
    layer = GraphAttention(8, 4, heads=2)
    torch.nn.init.normal_(layer.bias)
    x, adjacency = torch.randn(3, 6, 8), graphs()["adjacency"]
    mask = torch.zeros(adjacency.shape).masked_fill(~adjacency, float("-inf"))
    ours, attention = layer(x, mask)
    assert torch.allclose(ours, DenseGATConv.forward(layer, x, adjacency.float()), atol=1e-5)
    assert torch.allclose(attention.sum(-1), torch.ones(3, 2, 6))
    assert not attention[~adjacency[:, None].expand_as(attention)].any()
    assert torch.allclose(layer.first_node(x, x[:, 0], mask), ours[:, 0], atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 10.0])
def test_temperature_divides_the_attention_scores(temperature: float) -> None:
    torch.manual_seed(0)
    layer = GraphAttention(8, 4, heads=2)
    x, adjacency = torch.randn(3, 6, 8), graphs()["adjacency"]
    mask = torch.zeros(adjacency.shape).masked_fill(~adjacency, float("-inf"))
    at_one = layer(x, mask)[1]
    layer.temperature = temperature
    features, attention = layer(x, mask)
    power = at_one ** (1 / temperature)
    assert torch.allclose(attention, power / power.sum(-1, keepdim=True), atol=1e-5)
    assert torch.allclose(layer.first_node(x, x[:, 0], mask), features[:, 0], atol=1e-6)


def test_h_logic_does_not_depend_on_the_order_of_the_entities() -> None:
    gat, one = encoder(), graphs()
    order = torch.tensor([0, 4, 2, 5, 1, 3])
    other = {key: value[:, order] for key, value in one.items() if key != "adjacency"}
    other["adjacency"] = one["adjacency"][:, order][:, :, order]
    assert torch.allclose(gat(one), gat(other), atol=1e-5)


@pytest.mark.parametrize("changed", ["node_glyph", "node_kind", "node_position", "adjacency"])
def test_h_logic_differs_between_graphs(changed: str) -> None:
    gat, one = encoder(), graphs()
    other = one | {changed: graphs(seed=1)[changed]}
    assert not torch.allclose(gat(one), gat(other), atol=1e-4)


def test_dropout_mask_is_part_of_the_input() -> None:
    gat, batch = encoder(), graphs()
    gat.dropout = 0.5
    mask = gat.draw_dropout(3, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert torch.equal(gat(batch, mask), gat(batch, mask))
    assert not torch.allclose(gat(batch, mask), gat(batch))


def test_dropout_keeps_the_expected_size() -> None:
    """Kept units are scaled by 1 / (1 − p), so a mask that keeps all units gives more than no mask by that factor."""
    config = small_config(policy__gat_layers=1, policy__gat_residual=False, policy__gat_layer_norm=False)
    gat, batch = GraphEncoder(SPEC, config.policy), graphs()
    gat.dropout = 0.5
    kept = torch.ones(3, 1, 16, dtype=torch.bool)
    assert torch.allclose(gat(batch, kept), 2 * gat(batch), atol=1e-6)


def test_layers_residual_and_norm_are_options() -> None:
    torch.manual_seed(0)
    plain = GraphEncoder(SPEC, small_config(policy__gat_layers=4, policy__gat_residual=False).policy)
    assert len(plain.layers) == 4 and plain(graphs()).shape == (3, 16)
    bare = GraphEncoder(SPEC, small_config(policy__gat_layer_norm=False).policy)
    assert not any(isinstance(norm, torch.nn.LayerNorm) for norm in bare.norms)


def defaults() -> GraphEncoder:
    """The encoder as it is without a word about it in an experiment's file, but for its width."""
    torch.manual_seed(0)
    return GraphEncoder(SPEC, PolicySection(hidden_size=16))


def test_the_brief_is_the_default() -> None:
    """At most two layers, residual connections, LayerNorm, dropout; the encoder learns."""
    for policy in (PolicySection(), ExperimentConfig().policy):
        assert policy.kind == "v3" and policy.has_graph and not policy.gat_frozen
        assert policy.gat_layers <= 2 and policy.gat_residual and policy.gat_layer_norm and policy.gat_dropout > 0
    gat = defaults()
    assert len(gat.layers) == 2 == len(gat.norms)


def test_by_default_residual_connections_carry_the_graph_past_layers_that_say_nothing() -> None:
    gat, one, other = defaults(), graphs(), graphs(seed=1)
    for parameter in gat.layers.parameters():
        torch.nn.init.zeros_(parameter)
    assert not torch.allclose(gat(one), gat(other), atol=1e-2)
    h = gat._embed(one)[0][:, 0]
    for norm in gat.norms:
        h = norm(h)
    assert torch.allclose(gat(one), h, atol=1e-6)
    assert not torch.allclose(gat.inspect(one)[1], gat.inspect(other)[1], atol=1e-2)
    gat.residual = False
    assert torch.allclose(gat(one), gat(other))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_by_default_layer_norm_bounds_the_features_whatever_the_weights(scale: float) -> None:
    """At its initial gain and bias: mean 0 and variance 1 over the units, of each node after each layer."""
    gat, batch = defaults(), graphs()
    with torch.no_grad():
        for parameter in gat.layers.parameters():
            parameter.mul_(scale)
    outputs: list[torch.Tensor] = []
    for norm in gat.norms:
        norm.register_forward_hook(lambda module, given, output: outputs.append(output))
    for look in (gat, lambda graph: gat.inspect(graph)[1]):
        features = look(batch)
        assert len(outputs) == 2
        for each in (*outputs, features):
            assert torch.allclose(each.mean(-1), torch.zeros(each.shape[:-1]), atol=1e-5)
            assert torch.allclose(each.var(-1, unbiased=False), torch.ones(each.shape[:-1]), atol=1e-2)
        outputs.clear()


@pytest.mark.parametrize("layer", [0, 1])
def test_by_default_dropout_acts_in_each_layer(layer: int) -> None:
    gat, batch = defaults(), graphs()
    mask = gat.draw_dropout(2000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert float((~mask[:, layer]).float().mean()) == pytest.approx(PolicySection().gat_dropout, abs=0.01)
    others = torch.ones(3, 2, 16, dtype=torch.bool)
    some = others.clone()
    some[:, layer, ::2] = False
    assert not torch.allclose(gat(batch, some), gat(batch, others), atol=1e-2)
