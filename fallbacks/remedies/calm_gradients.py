"""Gradient explosion and NaN: a smaller learning rate, warmed up again, tighter clipping, LayerNorm."""

from fallbacks.remedies.remedy import FIRST_SUSPECTS, Remedy, Restored
from pipeline.attempt.file import Carry

CALM_GRADIENTS = Remedy(
    name="calm_gradients",
    summary="half the learning rate, warmed up again with new moments; clipping at half the norm; LayerNorm",
    cures=("gradient_explosion", "numerical_instability", "performance_collapse"),
    restores=(
        *FIRST_SUSPECTS,
        Restored("training.gat_learning_rate_factor", "above"),
        Restored("training.router_learning_rate_factor", "above"),
        Restored("training.warmup_steps", "below", within=1000),  # none at all: a short run has a short one
        Restored("training.critic_coef", "above"),
        Restored("training.clip_ratio", "above"),
        Restored("training.reward_clip", "above"),
        Restored("policy.gat_layer_norm", "other"),
        Restored("phases.temperature_end", "below"),  # sparsemax at a temperature near 0 has steep gradients
    ),
    scales={"training.learning_rate": 1 / 2, "training.max_grad_norm": 1 / 2},
    carry=Carry(optimiser=False, warmed_up=False),
)
