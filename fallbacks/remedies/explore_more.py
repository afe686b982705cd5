"""Reward plateau: more reward for what is new, more shaping, more entropy."""

from fallbacks.remedies.remedy import FIRST_SUSPECTS, Remedy, Restored

EXPLORE_MORE = Remedy(
    name="explore_more",
    summary="three times the entropy term; twice the reward for new squares, new depths and known stairs",
    cures=("reward_plateau",),
    restores=(
        *FIRST_SUSPECTS,
        Restored("training.entropy_coef", "below"),
        Restored("training.learning_rate", "below"),
        Restored("environment.shaping.task", "below"),
        Restored("environment.shaping.exploration", "below"),
        Restored("environment.shaping.descent", "below"),
        Restored("environment.shaping.stairs", "below"),
    ),
    scales={
        "training.entropy_coef": 3.0,
        "environment.shaping.exploration": 2.0,
        "environment.shaping.descent": 2.0,
        "environment.shaping.stairs": 2.0,
    },
)
