"""Rules for any training: what is wrong whatever is trained, told by the names of its metrics."""

from __future__ import annotations

from pipeline.health.ceased import CeasedRule
from pipeline.health.collapse import CollapseRule
from pipeline.health.explosion import ExplosionRule
from pipeline.health.few_reports import FewReportsRule
from pipeline.health.frozen import FrozenRule
from pipeline.health.gain import FEW
from pipeline.health.names import GRADIENTS, LOSSES, NO_LEVELS, NO_RATES, RATES, SCORES
from pipeline.health.no_gain import NoGainRule
from pipeline.health.nonfinite import NonFiniteRule
from pipeline.health.outset import PARTS, OutsetRule
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Rule
from pipeline.health.still import StillRule
from pipeline.health.unfinished import UnfinishedRule
from pipeline.health.zero_rate import ZeroRateRule

_HELD_OUT = ("val", "valid", "validation", "test", "dev", "holdout")
"""Words of data that were kept from training: what falls there while training goes on has overfitted."""
_EVALUATION = (*_HELD_OUT, "eval", "evaluation")
_OBJECTIVES = ("loss", "losses", "*loss", "nll", "perplexity", "ppl")
_NOT_THE_OBJECTIVE = (*NO_LEVELS, *_EVALUATION, *PARTS)
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
    OutsetRule(
        name="early_explosion",
        words=_OBJECTIVES,
        without=_NOT_THE_OBJECTIVE,
        meaning="A loss jumps far above its first reports and stays there: it exploded before the run had a past of "
        "its own. A smaller learning rate, warm-up, clipping.",
    ),
    OutsetRule(
        name="early_gradients",
        words=GRADIENTS,
        without=("scale", "lr", "weight", "best", "param", "params", "parameter", "parameters", "clip", "clipped"),
        stays=1000.0,
        after_peak=1000.0,
        meaning="The norm of the gradient jumps a thousand times above its first reports and stays there.",
    ),
    OutsetRule(
        name="far_above_start",
        words=_OBJECTIVES,
        without=(*NO_LEVELS, *_EVALUATION, "kl", "entropy", "aux"),
        stays=10.0,
        certain=False,
        action="warn",
        meaning="A loss ends ten times above its first reports, and no score explains it. In reinforcement and "
        "adversarial learning that may be healthy: a warning.",
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
    NoGainRule(
        name="policy_no_longer_moves",
        words=SCORES,
        without=(*NO_LEVELS, "intrinsic", "bonus", "curiosity", "penalty"),
        idle=("kl",),
        meaning="The divergence of the policy from the one before was exactly 0 in the last two thirds of the reports, "
        "and no score has gained: the policy is saturated, and no update reaches it. A smaller learning rate.",
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
    ZeroRateRule(
        name="zero_rate",
        words=RATES,
        without=NO_RATES,
        no_gain=True,
        meaning="The learning rate was logged, and was 0 from the start to the end; no loss and no score has gained.",
    ),
    NoGainRule(
        name="learns_nothing",
        words=_OBJECTIVES,
        without=_NOT_THE_OBJECTIVE,
        certainly_below=0.02,
        proof=SCORES,
        sure=True,
        meaning="From the first report to the last the score was the same to the last bit, and no gain can be seen in "
        "the loss; or the loss has certainly gained less than a fiftieth of its mean, no score a tenth, and all are "
        "noise around a constant.",
    ),
    NoGainRule(
        name="nothing_learnt",
        words=_OBJECTIVES,
        without=_NOT_THE_OBJECTIVE,
        certainly_below=0.01,
        proof=SCORES,
        reports=FEW,
        action="warn",
        meaning="No gain can be seen in the loss from the first third of the run to the last, or certainly less than a "
        "hundredth of its mean; nor in a score. A learning rate of 0, frozen weights, or a few more reports.",
    ),
    NoGainRule(
        name="no_gain",
        words=SCORES,
        without=(*NO_LEVELS, "intrinsic", "bonus", "curiosity", "penalty"),
        reports=FEW,
        action="warn",
        meaning="No gain can be seen in any score from the first third of the run to the last.",
    ),
    StillRule(
        name="losses_stand_still",
        words=(*_OBJECTIVES, "value", "values", "q"),
        without=(*NO_LEVELS, *_EVALUATION),
        action="warn",
        meaning="Every loss and every estimate of value ends where it began, while the score may have risen: less "
        "exploration raises it too. A learning rate of 0, frozen weights; or a network that had learnt before.",
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
    ZeroRateRule(
        name="rate_logged_as_zero",
        words=RATES,
        without=NO_RATES,
        action="warn",
        meaning="The learning rate was logged as exactly 0 from the start to the end. If something is learnt all the "
        "same, the script rounds what it logs.",
    ),
    FewReportsRule(
        name="few_reports",
        words=(*LOSSES, *GRADIENTS, *SCORES),
        enough=FEW,
        action="warn",
        meaning="So few reports that no rule could judge them: healthy means only that the script ended with exit "
        "code 0 and without NaN. Log more often.",
    ),
    UnfinishedRule(
        name="unfinished",
        meaning="The trainer ended with exit code 0 long before its own `progress` was complete. It is started again "
        "from its last checkpoint. Early stopping on purpose: log a `progress` of 1 at the end, or let this rule warn.",
    ),
)
