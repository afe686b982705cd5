"""First fallback: the graph encoder keeps the weights of the last healthy checkpoint; training leaves them alone."""

from fallbacks.rung import Rung, setting

FREEZE_GAT = Rung(
    name="freeze_gat",
    summary="graph encoder frozen; router, experts and the rest are trained",
    transform=setting({"policy.gat_frozen": True}),
    needs="a graph encoder",
    addresses=("gat_oversmoothing", "gradient_explosion", "numerical_instability"),
)
