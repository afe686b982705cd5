"""Second fallback: softmax routing in every phase, never sparsemax."""

from fallbacks.rung import Rung, setting
from pipeline.health.phase import Phase

SOFTMAX_ONLY = Rung(
    name="softmax_only",
    summary="softmax routing in every phase, no sparsemax",
    transform=setting({f"phases.{phase.key}.routing": "softmax" for phase in Phase}),
    needs="V3's router",
    addresses=("expert_collapse", "gradient_explosion", "numerical_instability"),
)
