"""GAT over-smoothing: at most two layers, residual connections, dropout, and an encoder that learns more slowly."""

from fallbacks.remedies.remedy import FIRST_SUSPECTS, Remedy, Restored

SHALLOW_GAT = Remedy(
    name="shallow_gat",
    summary="at most two GAT layers, residual connections, dropout; the encoder learns at 0.3 of its rate",
    cures=("gat_oversmoothing",),
    restores=(
        *FIRST_SUSPECTS,
        Restored("policy.gat_layers", "above", within=1),
        Restored("policy.gat_residual", "other"),
        Restored("policy.gat_dropout", "below"),
        Restored("policy.gat_layer_norm", "other"),
        Restored("policy.attention_temperature", "either"),
        Restored("training.gat_learning_rate_factor", "above"),
    ),
    scales={"training.gat_learning_rate_factor": 0.3},
    needs="a trained graph encoder",
)
