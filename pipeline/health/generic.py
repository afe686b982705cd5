"""Rules for any training: what is wrong whatever is trained, told by the names of its metrics."""

from __future__ import annotations

from pipeline.health.ceased import CeasedRule
from pipeline.health.collapse import CollapseRule
from pipeline.health.explosion import ExplosionRule
from pipeline.health.frozen import FrozenRule
from pipeline.health.names import GRADIENTS, LOSSES, NO_LEVELS, SCORES
from pipeline.health.nonfinite import NonFiniteRule
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Rule
from pipeline.health.unfinished import UnfinishedRule

_HELD_OUT = ("val", "valid", "validation", "test", "dev", "holdout")
"""Words of data that were kept from training: what falls there while training goes on has overfitted."""
_EVALUATION = (*_HELD_OUT, "eval", "evaluation")
_OBJECTIVES = ("loss", "losses", "*loss", "nll", "perplexity", "ppl")
_PARTS = ("d", "g", "disc", "discriminator", "gen", "generator", "adv", "actor", "critic", "policy", "value", "vf",
          "pg", "q", "td", "entropy", "kl", "aux")  # fmt: skip
"""Words of losses that need not fall: of opponents, and of the parts of reinforcement learning."""
_NOT_THE_OBJECTIVE = (*NO_LEVELS, *_EVALUATION, *_PARTS)
_FIRST_STAGES = ("warmup", "warm", "pretrain", "pretraining", "pre", "init", "initial", "bc", "imitation", "demo",
                 "curriculum", "best", "final")  # fmt: skip
"""Words of what ends before the training does."""

GENERIC: tuple[Rule, ...] = (
    NonFiniteRule(
        name="nan_loss",
        words=LOSSES,
        without=(*GRADIENTS, "scale"),
        meaning="A loss, an entropy or a divergence is NaN or infinite and stays so: the weights are broken. A smaller "
        "learning rate, clipping, bounds on logarithms and divisions.",
    ),
    NonFiniteRule(
        name="nan_gradient",
        words=GRADIENTS,
        without=("scale",),
        window=20,
        patience=20,
        at_end=3,
        meaning="No gradient is a number any more. With mixed precision single ones, and the first few, are healthy: "
        "the scale of the loss is being found.",
    ),
    NonFiniteRule(
        name="not_a_number",
        words=(*LOSSES, *GRADIENTS, *SCORES),
        window=1,
        patience=1,
        never=1,
        at_end=0,
        action="warn",
        meaning="A loss, a gradient or a score was NaN or infinite. A score may be: the mean over no episode is NaN.",
    ),
    ExplosionRule(
        name="explosion",
        words=("loss", "losses", "*loss", "nll", "perplexity", "ppl", "objective", *GRADIENTS),
        without=("scale", "lr", "weight", "best"),
        meaning="A loss or a gradient norm stays a thousand times above nearly all that the run has been like. A "
        "single spike is harmless, and a loss that grows slowly with the reward is too.",
    ),
    FrozenRule(
        name="frozen_loss",
        words=("loss", "losses", "*loss", "nll", "perplexity", "ppl"),
        without=(*NO_LEVELS, *_EVALUATION),
        meaning="The losses are the same to the last bit, report after report, and no better than at first: nothing is "
        "learnt. A learning rate of 0, frozen parameters, dead units, no gradient.",
    ),
    CollapseRule(
        name="lost_performance",
        words=SCORES,
        without=(*NO_LEVELS, *_HELD_OUT, "intrinsic", "bonus", "curiosity", "penalty"),
        meaning="A score, a reward or an accuracy had clearly risen above its start, has lost most of that gain, and "
        "has not recovered for a quarter of the run. A smaller learning rate; an earlier checkpoint.",
    ),
    CollapseRule(
        name="rising_loss",
        words=_OBJECTIVES,
        without=_NOT_THE_OBJECTIVE,
        action="warn",
        meaning="A training loss had clearly fallen, and has risen again by most of it. In reinforcement learning that "
        "may be the reward that grows: a warning.",
    ),
    PlateauRule(
        name="standstill",
        metric=None,
        words=SCORES,
        without=NO_LEVELS,
        window_episodes=200,
        relative_gain=0.02,
        check_every=100,
        action="warn",
        meaning="With 95 % confidence the score has gained less than a fiftieth of its mean in 200 reports (or "
        "episodes, where the run counts them). Many trainings converge so: a warning.",
    ),
    PlateauRule(
        name="nothing_learnt",
        metric=None,
        words=_OBJECTIVES,
        without=_NOT_THE_OBJECTIVE,
        window_episodes=50,
        relative_gain=0.01,
        whole=True,
        action="warn",
        meaning="With 95 % confidence the loss has not fallen by a hundredth of its mean from the start to the end. In "
        "reinforcement and adversarial learning losses say little, and are left out where the name tells.",
    ),
    FrozenRule(
        name="constant_score",
        words=SCORES,
        without=NO_LEVELS,
        reports=None,
        zeros=True,
        action="warn",
        meaning="The score was the same from the start to the end. At its maximum that is success, else nothing was "
        "learnt.",
    ),
    CeasedRule(
        name="no_longer_logged",
        words=(*LOSSES, *GRADIENTS, *SCORES),
        without=_FIRST_STAGES,
        action="warn",
        meaning="A loss, a gradient or a score was logged again and again, and then no more, while other metrics went "
        "on. A script that leaves out what is not a number looks so, and so does one that takes another branch.",
    ),
    UnfinishedRule(
        name="unfinished",
        meaning="The trainer ended with exit code 0 long before its own `progress` was complete. It is started again "
        "from its last checkpoint. Early stopping on purpose: log a `progress` of 1 at the end, or let this rule warn.",
    ),
)
